"""What an operator needs from a log and delivery does not: raw rows, and a durable record of actions.

Rows are returned as stored, so that a process without the application's classes can read them. The promises
of ``pabal.ports.storage`` hold here too.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from datetime import datetime
from typing import Any, Protocol

import msgspec

from pabal.domain.envelope import StoredRecord
from pabal.ports.samples import SampleStore
from pabal.ports.storage import AttemptFailure, EventStorage, RecoveredDelivery, Start


class LogFigures(msgspec.Struct, frozen=True):
    """The extent of a log: first and last position (0: empty), number of scheduled events, bytes on disk.

    ``size_bytes`` includes the write-ahead log; it is None for a log that is not on disk.
    """

    first: int
    head: int
    scheduled: int
    size_bytes: int | None


class DeliveryRecord(msgspec.Struct, frozen=True):
    """What is stored about one position for one subscription; times are seconds since 1970."""

    subscription: str
    state: str
    """``finished``, ``pending``, ``retrying``, ``parked`` or ``queued``."""
    attempts: int = 0
    """The number of attempts that are stored; 0 for a delivery that succeeded at once."""
    due_at: float | None = None
    failures: tuple[AttemptFailure, ...] = ()
    dead_letter_id: int | None = None
    finished_at: float | None = None
    """Known for a delivery that succeeded after failed attempts; None for others."""


class ActionRecord(msgspec.Struct, frozen=True):
    """An operator's action; ``succeeded`` is None until it is finished."""

    id: int
    at: datetime
    actor: str
    action: str
    subject: str
    details: Any
    result: str = ""
    succeeded: bool | None = None


class ActionLog(Protocol):
    """Keep the audit log: the actions of operators and their results."""

    async def begin_action(self, actor: str, action: str, subject: str, details: Any) -> int:
        """Record that an action begins; return its number."""
        ...

    async def finish_action(self, number: int, result: str, *, succeeded: bool) -> None:
        """Record the result of an action; a number that is unknown, or no longer kept, changes nothing."""
        ...

    async def list_actions(self, *, before: int | None = None, limit: int = 100) -> list[ActionRecord]:
        """Return up to ``limit`` actions, by descending number below ``before``."""
        ...


class LogInspection(ActionLog, Protocol):
    """Read rows and what is stored about them; keep the audit log."""

    async def measure(self) -> LogFigures:
        """Return the extent of the log, at a cost that does not depend on its length."""
        ...

    async def find_record(self, event_id: str) -> StoredRecord | None:
        """Return the row with an event id, or None (also for a text that is no UUID)."""
        ...

    async def read_stream(
        self, aggregate_id: str, aggregate_type: str | None, *, after_version: int = 0, limit: int = 100
    ) -> list[StoredRecord]:
        """Return an aggregate's rows above a version, in version order."""
        ...

    async def list_streams(
        self, *, prefix: str = "", after: tuple[str, str] | None = None, limit: int = 100
    ) -> list[tuple[str, str, int]]:
        """Return (aggregate id, aggregate type or ``""``, version), ordered by id and type."""
        ...

    async def deliveries_at(self, position: int) -> list[DeliveryRecord]:
        """Return what is stored about a position for every durable subscription, by name.

        This includes the failed attempts of a delivery that succeeded in the end, as long as its event and
        subscription exist and fewer than ``RECOVERIES_KEPT`` others have recovered since.
        """
        ...

    async def request_reset(self, name: str, start: Start) -> int | None:
        """Reset a subscription like ``reset_subscription``, or ask the process that handles it to do so.

        Returns its new position; None if it was only asked for, and will be done by the process that handles
        the subscription within moments, or by the next one. Raises SubscriptionNotFoundError.
        """
        ...


class InspectableStorage(EventStorage, LogInspection, SampleStore, Protocol):
    """A storage whose log an operator can inspect."""


def state_of(position: int, frontier: int, unfinished: Container[int]) -> str:
    """Return the state of a delivery that has no retry, dead letter or place in a queue."""
    return "pending" if position > frontier or position in unfinished else "finished"


def with_recoveries(record: DeliveryRecord, earlier: Sequence[RecoveredDelivery]) -> DeliveryRecord:
    """Add a delivery's earlier recoveries (several after replays) to what is stored about it now."""
    if not earlier:
        return record
    failures = [failure for one in earlier for failure in one.failures]
    return msgspec.structs.replace(
        record,
        attempts=sum(one.attempts for one in earlier) + record.attempts,
        failures=(*failures, *record.failures),
        finished_at=earlier[-1].finished_at if record.state == "finished" else None,
    )
