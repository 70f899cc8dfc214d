"""What a backend must provide so that an operator can look into it and control it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, Protocol

from pabal.ports.groups import OnDamage
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
    ResetPlan,
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
    "ResetPlan",
    "StreamPage",
    "StreamView",
    "SubscriptionView",
    "Target",
    "Totals",
    "Trace",
    "TraceNode",
]


class CutShort(list[EventView]):
    """The result of a search that stopped early, having read too much; ``at`` is the cursor to go on from."""

    def __init__(self, found: Iterable[EventView], at: str) -> None:
        super().__init__(found)
        self.at = at


class OperationsSource(Protocol):
    """Provide one backend's side of ``Operations``. Every error is a PabalError; nothing else is raised."""

    @property
    def target(self) -> Target:
        """Return a description of the bus or log being looked at."""
        ...

    @property
    def actions(self) -> frozenset[Action]:
        """Return the actions that are possible here; the others raise ActionNotPossibleError."""
        ...

    async def totals(self) -> Totals:
        """Return the totals of the bus or log."""
        ...

    async def subscriptions(self) -> list[SubscriptionView]:
        """Return every subscription, by name."""
        ...

    async def reasons(self) -> list[Reason]:
        """Return what is wrong beyond the states of the subscriptions.

        The numbers of those with the codes ``parked`` and ``forgotten`` count as dead letters.
        """
        ...

    async def types(self) -> list[str]:
        """Return the event type names to choose from."""
        ...

    async def series(self, edges: Sequence[int]) -> Series | None:
        """Return figures over time, between ascending, equally distant times (seconds since 1970)."""
        ...

    async def latest_samples(self, since: int) -> list[Sample]:
        """Return the newest sample of each bus, if it is not older than ``since`` (microseconds)."""
        ...

    async def published_since(self, moment: datetime) -> int:
        """Return how many events entered the log since ``moment``."""
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
        """Return up to ``limit`` events strictly between two cursors, beginning at one of them.

        None as a cursor means that end of the log. Without an index, the result may be CutShort. Raises
        InvalidFilterError for a text that is not a cursor.
        """
        ...

    def read(
        self,
        wanted: EventFilter,
        *,
        after: str | None,
        limit: int | None,
        on_damage: OnDamage | None,
    ) -> AsyncGenerator[EventView, None]:
        """Iterate over up to ``limit`` matching events, with payloads, up to the current end of the log.

        They come oldest first, from a cursor on. At a damaged event it raises CorruptLogError, or calls
        ``on_damage`` with it and passes over the event.
        """
        ...

    def follow(
        self, wanted: EventFilter, *, after: str | None, every: float
    ) -> AsyncGenerator[EventView, None]:
        """Iterate for ever over matching events, with payloads, as they enter the log.

        Without ``after``, only new events are returned. ``every`` is the polling interval if nothing
        announces them.
        """
        ...

    async def event(self, event_id: str) -> EventView | None:
        """Return an event with its payload, or None."""
        ...

    async def deliveries(self, event: EventView) -> list[DeliveryView]:
        """Return what is known about an event at each subscription, by name."""
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
        """Return dead letters with ids above ``after``, by ascending id."""
        ...

    async def dead_letter(self, dead_letter_id: int) -> DeadLetterView:
        """Return a dead letter. Raises DeadLetterNotFoundError."""
        ...

    async def dead_letter_groups(self) -> list[DeadLetterGroup]:
        """Count dead letters by subscription and error type, the largest group first."""
        ...

    async def pause(self, name: str) -> ActionResult:
        """Stop a subscription from taking events until it is resumed. Raises SubscriptionNotFoundError."""
        ...

    async def resume(self, name: str) -> ActionResult:
        """Resume a paused or halted subscription. Raises SubscriptionNotFoundError."""
        ...

    async def reset(self, name: str, to: Start) -> ActionResult:
        """Move a subscription's cursor, back to handle events once more, or forward to skip them.

        Raises SubscriptionNotFoundError, and SubscriptionInUseError if another process handles it.
        """
        ...

    async def replay(self, name: str, first: int | datetime, last: int | datetime | None) -> ActionResult:
        """Deliver events once more, from one position to another (None: the position it has reached).

        Raises SubscriptionNotFoundError, and UsageError for an empty range.
        """
        ...

    async def retry(self, dead_letter_id: int, payload: bytes | None) -> ActionResult:
        """Deliver a dead letter again, with another payload (JSON) if given; count 0 if already under way.

        Raises DeadLetterNotFoundError, DecodeError for a payload that does not fit, SubscriptionError.
        """
        ...

    async def discard(self, dead_letter_id: int) -> ActionResult:
        """Remove a dead letter for good. Raises DeadLetterNotFoundError."""
        ...

    async def projections(self, *, rows: bool) -> list[ProjectionView]:
        """Return every projection, by name; with ``rows``, count the rows of its tables."""
        ...

    async def remove_projection(self, name: str, *, unfinished: bool) -> ActionResult:
        """Drop a projection's tables and position; with ``unfinished``, only those of an unfinished rebuild.

        The count is 0 if there was nothing to drop. Raises ProjectionNotFoundError.
        """
        ...

    async def rebuild_projection(self, name: str, rebuild: Callable[[Any], Awaitable[int]]) -> ActionResult:
        """Let ``rebuild(storage)`` rebuild a projection's tables; it returns the position they reached."""
        ...

    async def begin_action(self, actor: str, action: str, subject: str, details: Any) -> int:
        """Record durably that an action begins; return its number in the audit log."""
        ...

    async def finish_action(self, number: int, result: str, *, succeeded: bool) -> None:
        """Record the result of an action."""
        ...

    async def audit(self, *, before: int | None, limit: int) -> list[AuditEntry]:
        """Return actions with numbers below ``before``, newest first."""
        ...

    async def aclose(self) -> None:
        """Close everything that was opened for this object."""
        ...
