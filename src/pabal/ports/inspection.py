"""What an operator needs from a log beyond what delivery needs: raw rows, and a durable record of actions.

Rows are returned as stored, so a process that has none of the application's classes can read them. What
``pabal.ports.storage`` promises holds here too.
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
    """Measure a log: its first and last position (0: empty), what is scheduled, and bytes on disk.

    ``size_bytes`` counts the write-ahead log, too; None for a log that is not on disk.
    """

    first: int
    head: int
    scheduled: int
    size_bytes: int | None


class DeliveryRecord(msgspec.Struct, frozen=True):
    """Show what is stored of one position at one subscription; times are seconds since 1970."""

    subscription: str
    state: str
    """``finished``, ``pending``, ``retrying``, ``parked`` or ``queued``."""
    attempts: int = 0
    """How many are known of; where a delivery finished, they are all known if any of them failed."""
    due_at: float | None = None
    failures: tuple[AttemptFailure, ...] = ()
    dead_letter_id: int | None = None
    finished_at: float | None = None
    """Where it is known: for a delivery that succeeded after failed attempts."""


class ActionRecord(msgspec.Struct, frozen=True):
    """Hold an operator's action; ``succeeded`` is None until it is finished."""

    id: int
    at: datetime
    actor: str
    action: str
    subject: str
    details: Any
    result: str = ""
    succeeded: bool | None = None


class ActionLog(Protocol):
    """Keep the audit log: what operators did, and what came of it."""

    async def begin_action(self, actor: str, action: str, subject: str, details: Any) -> int:
        """Write an action down and return its number."""
        ...

    async def finish_action(self, number: int, result: str, *, succeeded: bool) -> None:
        """Write down what came of an action."""
        ...

    async def list_actions(self, *, before: int | None = None, limit: int = 100) -> list[ActionRecord]:
        """Return up to ``limit`` actions by descending number, from below the number ``before``."""
        ...


class LogInspection(ActionLog, Protocol):
    """Read rows and surroundings; keep the audit log."""

    async def measure(self) -> LogFigures:
        """Return the extent of the log, at a cost that does not grow with it."""
        ...

    async def find_record(self, event_id: str) -> StoredRecord | None:
        """Return the row of an event id, or None (also for a text that is no UUID)."""
        ...

    async def read_stream(
        self, aggregate_id: str, aggregate_type: str | None, *, after_version: int = 0, limit: int = 100
    ) -> list[StoredRecord]:
        """Return an aggregate's rows above a version, in order."""
        ...

    async def list_streams(
        self, *, prefix: str = "", after: tuple[str, str] | None = None, limit: int = 100
    ) -> list[tuple[str, str, int]]:
        """Return (aggregate id, aggregate type or ``""``, version), ordered by the first two."""
        ...

    async def deliveries_at(self, position: int) -> list[DeliveryRecord]:
        """Return what is stored of a position at every durable subscription, by name.

        With the failed attempts of a delivery that succeeded at last, while its event and its subscription
        are there, and ``RECOVERIES_KEPT`` others have not recovered since.
        """
        ...

    async def request_reset(self, name: str, start: Start) -> int | None:
        """Do what ``reset_subscription`` does, or have it done by whoever handles the subscription.

        Returns the position it stands at now, None where it was only asked for: who handles it obeys within
        moments, or whoever takes it next. Raises SubscriptionNotFoundError.
        """
        ...

    async def request_reopening(self, name: str) -> None:
        """Ask the holder of a subscription, if there is one, to take it up anew from what is stored.

        For what was changed beside it: a dead letter that is to be retried, or was discarded.
        """
        ...


class InspectableStorage(EventStorage, LogInspection, SampleStore, Protocol):
    """Be a storage whose log an operator can look into."""


def state_of(position: int, frontier: int, unfinished: Container[int]) -> str:
    """Return the state of a delivery of which no retry, dead letter or queue says otherwise."""
    return "pending" if position > frontier or position in unfinished else "finished"


def with_recoveries(record: DeliveryRecord, earlier: Sequence[RecoveredDelivery]) -> DeliveryRecord:
    """Put before what is stored of a delivery how it recovered before: once, or again after a replay."""
    if not earlier:
        return record
    failures = [failure for one in earlier for failure in one.failures]
    return msgspec.structs.replace(
        record,
        attempts=sum(one.attempts for one in earlier) + record.attempts,
        failures=(*failures, *record.failures),
        finished_at=earlier[-1].finished_at if record.state == "finished" else None,
    )
