"""What operators ask of the log in memory."""

from __future__ import annotations

from datetime import UTC, datetime
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
    """Answer ``LogInspection``; a part of the storage, which owns the rows."""

    if TYPE_CHECKING:
        _rows: list[StoredRecord]
        _by_id: dict[bytes, int]
        _streams: dict[tuple[str | None, str], list[int]]
        _scheduled: list[tuple[float, bytes, DomainEvent]]
        _subscriptions: MemorySubscriptions
        _actions: list[ActionRecord]

        def _asked(self, result: T) -> T: ...

    async def measure(self) -> LogFigures:
        """Return the extent of the log."""
        head = len(self._rows)
        return LogFigures(min(1, head), head, len(self._scheduled), None)

    async def find_record(self, event_id: str) -> StoredRecord | None:
        """Return the row of an event id, or None (also for a text that is no UUID)."""
        try:
            position = self._by_id.get(id_to_bytes(event_id))
        except InvalidEventError:
            return None
        return None if position is None else self._rows[position - 1]

    async def read_stream(
        self, aggregate_id: str, aggregate_type: str | None, *, after_version: int = 0, limit: int = 100
    ) -> list[StoredRecord]:
        """Return an aggregate's rows above a version, in order."""
        check_bounds(limit, after_version=after_version)
        kinds = sorted(
            kind or ""
            for kind, identity in self._streams
            if identity == aggregate_id and aggregate_type in (None, kind or "")
        )
        found: list[StoredRecord] = []
        for kind in kinds:
            positions = self._streams.get((kind or None, aggregate_id), [])[max(0, after_version) :]
            found += [self._rows[position - 1] for position in positions]
        return found[:limit]

    async def list_streams(
        self, *, prefix: str = "", after: tuple[str, str] | None = None, limit: int = 100
    ) -> list[tuple[str, str, int]]:
        """Return (aggregate id, aggregate type or ``""``, version), ordered by the first two."""
        check_bounds(limit)
        found = [
            (identity, kind or "", len(entries))
            for (kind, identity), entries in self._streams.items()
            if identity.startswith(prefix) and (after is None or (identity, kind or "") > after)
        ]
        return sorted(found)[:limit]

    async def deliveries_at(self, position: int) -> list[DeliveryRecord]:
        """Return what is stored of a position at every durable subscription, by name."""
        check_bounds(position=position)
        return self._subscriptions.deliveries_at(position)

    async def request_reset(self, name: str, start: Start) -> int | None:
        """Move a cursor, or have its holder do it; return its position, None where it is only asked for."""
        return self._asked(self._subscriptions.request_reset(name, start))

    async def request_reopening(self, name: str) -> None:
        """Ask the holder of a subscription, if there is one, to take it up anew from what is stored."""
        self._asked(self._subscriptions.request_reopening(name))

    async def begin_action(self, actor: str, action: str, subject: str, details: Any) -> int:
        """Write an action down and return its number."""
        number = len(self._actions) + 1
        self._actions.append(ActionRecord(number, datetime.now(UTC), actor, action, subject, details))
        return number

    async def finish_action(self, number: int, result: str, *, succeeded: bool) -> None:
        """Write down what came of an action."""
        begun = self._actions[number - 1]
        self._actions[number - 1] = msgspec.structs.replace(begun, result=result, succeeded=succeeded)

    async def list_actions(self, *, before: int | None = None, limit: int = 100) -> list[ActionRecord]:
        """Return actions by descending number, from below ``before``."""
        check_bounds(limit, before=before or 0)
        known = self._actions if before is None else self._actions[: max(0, before - 1)]
        return known[::-1][:limit]
