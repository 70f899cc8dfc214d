"""Queries of operators to the in-memory storage."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from pabal.domain.envelope import StoredRecord, id_to_bytes
from pabal.errors import InvalidEventError
from pabal.ports.arguments import check_bounds
from pabal.ports.inspection import ActionRecord, DeliveryRecord, LogFigures

if TYPE_CHECKING:
    from pabal.domain.event import DomainEvent
    from pabal.ports.storage import Start
    from pabal.storage.memory.subscriptions import MemorySubscriptions

T = TypeVar("T")


class MemoryInspection:
    """Implement ``LogInspection``; a part of ``InMemoryEventStorage``, which owns the rows."""

    if TYPE_CHECKING:
        _rows: list[StoredRecord]
        _by_id: dict[bytes, int]
        _streams: dict[str, dict[str, list[int]]]
        _scheduled: list[tuple[float, bytes, DomainEvent]]
        _subscriptions: MemorySubscriptions
        _actions: list[ActionRecord]

        def _notify_controls(self, result: T) -> T: ...

    async def measure(self) -> LogFigures:
        """Return the extent of the log; it has no size in bytes."""
        head = len(self._rows)
        return LogFigures(min(1, head), head, len(self._scheduled), None)

    async def find_record(self, event_id: str) -> StoredRecord | None:
        """Return the row of an event id; None if there is none or the text is not a UUID."""
        try:
            position = self._by_id.get(id_to_bytes(event_id))
        except InvalidEventError:
            return None
        return None if position is None else self._rows[position - 1]

    async def read_stream(
        self, aggregate_id: str, aggregate_type: str | None, *, after_version: int = 0, limit: int = 100
    ) -> list[StoredRecord]:
        """Return up to ``limit`` rows of an aggregate above a version, ordered by type and version."""
        check_bounds(limit, after_version=after_version)
        streams = self._streams.get(aggregate_id, {})
        kinds = sorted(kind for kind in streams if aggregate_type in (None, kind))
        found = (position for kind in kinds for position in streams[kind][max(0, after_version) :])
        return [self._rows[position - 1] for position in islice(found, limit)]

    async def list_streams(
        self, *, prefix: str = "", after: tuple[str, str] | None = None, limit: int = 100
    ) -> list[tuple[str, str, int]]:
        """Return (aggregate id, aggregate type or ``""``, version) of each stream, ordered by id and type."""
        check_bounds(limit)
        found = [
            (identity, kind, len(entries))
            for identity, streams in self._streams.items()
            if identity.startswith(prefix)
            for kind, entries in streams.items()
            if after is None or (identity, kind) > after
        ]
        return sorted(found)[:limit]

    async def deliveries_at(self, position: int) -> list[DeliveryRecord]:
        """Return the state of one event at every durable subscription, ordered by subscription name."""
        check_bounds(position=position)
        return self._subscriptions.deliveries_at(position)

    async def request_reset(self, name: str, start: Start) -> int | None:
        """Move a cursor and return its position, or None if it is held and its holder is asked to move it."""
        return self._notify_controls(self._subscriptions.request_reset(name, start))

    async def request_reopening(self, name: str) -> None:
        """Ask the holder of a subscription, if there is one, to take it again from its stored state."""
        self._notify_controls(self._subscriptions.request_reopening(name))

    async def begin_action(self, actor: str, action: str, subject: str, details: Any) -> int:
        """Record the start of an operator's action in the audit log and return its number."""
        number = len(self._actions) + 1
        self._actions.append(ActionRecord(number, datetime.now(UTC), actor, action, subject, details))
        return number

    async def finish_action(self, number: int, result: str, *, succeeded: bool) -> None:
        """Record the result of an action in the audit log; ignore a number that is not in it."""
        if not 0 < number <= len(self._actions):
            return
        begun = self._actions[number - 1]
        self._actions[number - 1] = msgspec.structs.replace(begun, result=result, succeeded=succeeded)

    async def list_actions(self, *, before: int | None = None, limit: int = 100) -> list[ActionRecord]:
        """Return up to ``limit`` recorded actions by descending number, below ``before`` if given."""
        check_bounds(limit, before=before or 0)
        known = self._actions if before is None else self._actions[: max(0, before - 1)]
        return known[::-1][:limit]
