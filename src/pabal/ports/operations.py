"""What a backend answers so that an operator can look into it and steer it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, Protocol

from pabal.ports.samples import Sample, Series
from pabal.ports.storage import DeadLetterGroup, Start
from pabal.ports.views import (
    Action,
    ActionResult,
    AuditEntry,
    DeadLetterFilter,
    DeadLetterPage,
    DeadLetterView,
    DeliveryView,
    EventDetail,
    EventFilter,
    EventPage,
    EventView,
    Level,
    Overview,
    ProjectionView,
    Reason,
    RebuildView,
    StreamPage,
    StreamView,
    SubscriptionView,
    Target,
    Totals,
    Trace,
    TraceNode,
)

__all__ = [
    "Action",
    "ActionResult",
    "AuditEntry",
    "CutShort",
    "DeadLetterFilter",
    "DeadLetterGroup",
    "DeadLetterPage",
    "DeadLetterView",
    "DeliveryView",
    "EventDetail",
    "EventFilter",
    "EventPage",
    "EventView",
    "Level",
    "OperationsSource",
    "Overview",
    "ProjectionView",
    "Reason",
    "RebuildView",
    "StreamPage",
    "StreamView",
    "SubscriptionView",
    "Target",
    "Totals",
    "Trace",
    "TraceNode",
]


class CutShort(list[EventView]):
    """Hold what a search found before it had looked at too much; ``at`` is the cursor to go on from."""

    def __init__(self, found: Iterable[EventView], at: str) -> None:
        super().__init__(found)
        self.at = at


class OperationsSource(Protocol):
    """Answer what an operator asks of one backend. Errors are PabalErrors; nothing else escapes."""

    @property
    def target(self) -> Target:
        """Return what is being looked at."""
        ...

    @property
    def actions(self) -> frozenset[Action]:
        """Return what can be done here; the others raise ActionNotPossibleError."""
        ...

    async def totals(self) -> Totals:
        """Return figures of the whole."""
        ...

    async def subscriptions(self) -> list[SubscriptionView]:
        """Return every subscription, by name."""
        ...

    async def reasons(self) -> list[Reason]:
        """Return what is wrong beyond what the subscriptions say of themselves."""
        ...

    async def types(self) -> list[str]:
        """Return the names of event types to choose from."""
        ...

    async def series(self, edges: Sequence[int]) -> Series | None:
        """Return figures over time between ascending, equally distant times (seconds since 1970)."""
        ...

    async def latest_samples(self, since: int) -> list[Sample]:
        """Return what each bus noted of itself, not longer ago than ``since`` (microseconds)."""
        ...

    async def published_since(self, moment: datetime) -> int:
        """Return how many events entered the log since then."""
        ...

    async def events(
        self,
        wanted: EventFilter,
        *,
        before: str | None,
        after: str | None,
        limit: int,
        payloads: bool,
        oldest_first: bool,
    ) -> list[EventView]:
        """Return up to ``limit`` events strictly between two cursors, from one end or the other.

        None as a cursor means that end of the log. Where nothing is indexed a search may be CutShort. Raises
        InvalidFilterError for a text that is no cursor.
        """
        ...

    def follow(
        self, wanted: EventFilter, *, after: str | None, every: float
    ) -> AsyncGenerator[EventView, None]:
        """Iterate over matching events with payloads as they enter the log, for ever.

        Without ``after`` only over new ones; ``every`` is how long to wait where nobody tells of them.
        """
        ...

    async def event(self, event_id: str) -> EventView | None:
        """Return one event with its payload, or None."""
        ...

    async def deliveries(self, event: EventView) -> list[DeliveryView]:
        """Return what is known of an event at each subscription, by name."""
        ...

    async def streams(self, prefix: str, after: str | None, limit: int) -> StreamPage:
        """Return aggregates whose id begins with ``prefix``, by id."""
        ...

    async def stream(
        self, aggregate_id: str, aggregate_type: str | None, after_version: int, limit: int
    ) -> list[EventView]:
        """Return an aggregate's events above a version, in version order."""
        ...

    async def dead_letters(self, wanted: DeadLetterFilter, *, after: int, limit: int) -> list[DeadLetterView]:
        """Return dead letters by ascending id, from above ``after``."""
        ...

    async def dead_letter(self, dead_letter_id: int) -> DeadLetterView:
        """Return one. Raises DeadLetterNotFoundError."""
        ...

    async def dead_letter_groups(self) -> list[DeadLetterGroup]:
        """Return how many dead letters there are of each subscription and error type, largest first."""
        ...

    async def pause(self, name: str) -> ActionResult:
        """Let a subscription take no more events until it is resumed. Raises SubscriptionNotFoundError."""
        ...

    async def resume(self, name: str) -> ActionResult:
        """Let a paused or halted subscription go on. Raises SubscriptionNotFoundError."""
        ...

    async def reset(self, name: str, to: Start) -> ActionResult:
        """Move a subscription's cursor, so that it handles what lies behind once more, or skips.

        Raises SubscriptionNotFoundError, or SubscriptionInUseError where another process handles it.
        """
        ...

    async def replay(self, name: str, first: int | datetime, last: int | datetime | None) -> ActionResult:
        """Deliver the events from one position to another (None: as far as it has come) once more.

        Raises SubscriptionNotFoundError, and UsageError for a range that holds nothing.
        """
        ...

    async def retry(self, dead_letter_id: int, payload: bytes | None) -> ActionResult:
        """Deliver a dead letter again, with another payload if given (JSON); count 0 if under way already.

        Raises DeadLetterNotFoundError, DecodeError for a payload that does not fit, SubscriptionError.
        """
        ...

    async def discard(self, dead_letter_id: int) -> ActionResult:
        """Remove a dead letter for good. Raises DeadLetterNotFoundError."""
        ...

    async def projections(self, *, rows: bool) -> list[ProjectionView]:
        """Return every projection by name; with ``rows``, count what its tables hold."""
        ...

    async def remove_projection(self, name: str, *, unfinished: bool) -> ActionResult:
        """Drop a projection's tables and position; with ``unfinished``, only what a rebuild has made so far.

        Count 0 where there was nothing of the kind. Raises ProjectionNotFoundError.
        """
        ...

    async def rebuild_projection(self, name: str, rebuild: Callable[[Any], Awaitable[int]]) -> ActionResult:
        """Have ``rebuild(storage)`` build a projection's tables anew; it returns the position they are at."""
        ...

    async def begin_action(self, actor: str, action: str, subject: str, details: Any) -> int:
        """Write down durably that an action begins; return its number in the audit log."""
        ...

    async def finish_action(self, number: int, result: str, *, succeeded: bool) -> None:
        """Write down what came of it."""
        ...

    async def audit(self, *, before: int | None, limit: int) -> list[AuditEntry]:
        """Return actions, newest first, from below ``before``."""
        ...

    async def aclose(self) -> None:
        """Let go of what was opened for this."""
        ...
