"""``Operations``: inspect and control a bus. The command line and the dashboard are built on this."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import Self

from pabal.domain.envelope import to_microseconds
from pabal.errors import CorruptLogError, EventNotFoundError, InvalidFilterError, SubscriptionNotFoundError
from pabal.operations.actions import Actions, checked_letter_id
from pabal.operations.health import judge, other_letters
from pabal.operations.masking import Masking
from pabal.operations.paging import make_page
from pabal.operations.trace import build_trace
from pabal.ports.arguments import MAX_POSITION
from pabal.ports.operations import (
    ActionResult,
    AuditEntry,
    CutShort,
    DeadLetterFilter,
    DeadLetterGroup,
    DeadLetterPage,
    DeadLetterView,
    EventDetail,
    EventFilter,
    EventPage,
    EventView,
    OperationsSource,
    Overview,
    ProjectionView,
    ResetPlan,
    StreamPage,
    SubscriptionView,
    Target,
    Totals,
    Trace,
)
from pabal.ports.samples import Sample, Series
from pabal.ports.storage import Start

_NO_FILTER = EventFilter()
_MAX_LIMIT = 1000
_MAX_TRACE_EVENTS = 5000
_MAX_EFFECTS = 500
_CONCURRENCY = 50
_RATE_WINDOW = timedelta(seconds=60)


class Operations(Actions):
    """Show the contents of a bus or log, and act on them; every action is recorded in the audit log.

    Make one with ``pabal.factory.open_operations(path_or_url)`` for the log of a bus that runs elsewhere or
    not at all, or with ``operations_of(bus_or_storage)``. ``masking`` decides how much of payloads is shown,
    and ``actor`` is the name in the audit log. Lists come in pages of up to ``limit`` (1 to 1,000; any other
    number raises InvalidFilterError). Use it with ``async with``, or call ``aclose()``.

    ``open_operations`` shows an example. Views are plain values defined in ``pabal.ports.operations``. All
    times are aware; pass aware ones too. Any call may raise StorageError. An action that this bus does not
    support raises ActionNotPossibleError; ``overview().actions`` lists the supported ones.
    """

    def __init__(
        self, source: OperationsSource, *, masking: Masking | None = None, actor: str = "operator"
    ) -> None:
        super().__init__(source, actor)
        self.masking = masking or Masking()

    @property
    def target(self) -> Target:
        """Return the bus or log that is shown."""
        return self._source.target

    def using(self, *, actor: str | None = None, masking: Masking | None = None) -> Operations:
        """Return the same operations under another actor's name, or with another masking."""
        return Operations(self._source, masking=masking or self.masking, actor=actor or self.actor)

    # -- overview -------------------------------------------------------------------------------------

    async def overview(self) -> Overview:
        """Return health with reasons, totals and rates, at a cost that does not grow with the log.

        ``published_per_second`` is the average over the last minute.
        """
        now = datetime.now(UTC)
        views = await self._source.subscriptions()
        more = await self._source.reasons()
        health, reasons = judge(self.target, views, more, now)
        recent = await self._source.published_since(now - _RATE_WINDOW)
        return Overview(
            target=self.target,
            as_of=now,
            health=health,
            reasons=reasons,
            totals=await self._source.totals(),
            published_per_second=round(recent / _RATE_WINDOW.total_seconds(), 3),
            subscriptions=len(views),
            lag=max((view.lag for view in views), default=0),
            in_flight=sum(view.in_flight or 0 for view in views),
            retries=sum(view.retries for view in views),
            parked=sum(view.parked for view in views) + other_letters(more),
            queued=sum(view.queued for view in views),
            actions=tuple(sorted(self._source.actions)),
        )

    async def totals(self) -> Totals:
        """Return the totals over the whole log, and the counters of a live bus."""
        return await self._source.totals()

    async def types(self) -> list[str]:
        """Return the event types that occur among the newest events, for use in filters."""
        return await self._source.types()

    async def series(self, edges: Sequence[int]) -> Series | None:
        """Return figures over time between ascending, equally spaced times (seconds since 1970).

        None if no history is stored: on a bus without storage, and on Redis.
        """
        return await self._source.series(edges)

    async def latest_samples(self, max_age: timedelta) -> list[Sample]:
        """Return each bus's newest sample of its own figures on this log, unless older than ``max_age``."""
        since = datetime.now(UTC) - max_age
        return await self._source.latest_samples(to_microseconds(since))

    async def published_since(self, moment: datetime) -> int:
        """Return how many events entered the log since an aware time; 0 if there is no log."""
        return await self._source.published_since(moment)

    async def subscriptions(self) -> list[SubscriptionView]:
        """Return every subscription by name: the durable ones, or those of a bus without log."""
        return await self._source.subscriptions()

    async def subscription(self, name: str) -> SubscriptionView:
        """Return one subscription. Raises SubscriptionNotFoundError."""
        views = {view.name: view for view in await self.subscriptions()}
        if name not in views:
            raise SubscriptionNotFoundError(name=name, known=", ".join(views) or "none")
        return views[name]

    async def plan_reset(self, name: str, to: Start) -> ResetPlan:
        """Return what ``reset`` would do, without doing it. Raises SubscriptionNotFoundError."""
        view = await self.subscription(name)
        totals = await self._source.totals()
        oldest = totals.head - totals.events
        if isinstance(to, datetime):
            position = totals.head - await self._source.published_since(to)
        elif isinstance(to, str):
            position = 0 if to == "beginning" else totals.head
        else:
            position = min(to, totals.head)
        return ResetPlan(
            name,
            view.watermark,
            position,
            again=max(0, view.watermark - max(position, oldest)),
            skipped=max(0, position - max(view.watermark, oldest)),
        )

    async def plan_replay(
        self, name: str, first: int | datetime = 1, last: int | datetime | None = None
    ) -> ActionResult:
        """Return what ``replay`` would do, without doing it; ``count`` is 0 if the range is empty.

        Raises SubscriptionNotFoundError.
        """
        view = await self.subscription(name)
        totals = await self._source.totals()
        if isinstance(first, datetime):
            first = totals.head - await self._source.published_since(first) + 1
        if isinstance(last, datetime):
            last = totals.head - await self._source.published_since(last)
        end = view.frontier if last is None else min(last, view.frontier)
        oldest = totals.head - totals.events + 1
        return ActionResult("replay", name, max(0, end - max(first, oldest) + 1), pending=True)

    # -- events ---------------------------------------------------------------------------------------

    async def events(
        self,
        wanted: EventFilter = _NO_FILTER,
        *,
        before: str | None = None,
        after: str | None = None,
        limit: int = 50,
        payloads: bool = False,
    ) -> EventPage:
        """Return a page of events, newest first.

        ``before`` and ``after`` are cursors, such as ``older`` and ``newer`` of a page. With ``before``, it
        returns the newest events below it; with ``after``, the oldest above it; with both, the newest between
        them; with neither, the newest of all. Payloads are included only if ``payloads`` is true. Raises
        InvalidFilterError.
        """
        limit = _checked_limit(limit)
        oldest_first = after is not None and before is None
        found = await self._source.events(
            wanted, before=before, after=after, limit=limit + 1, payloads=payloads, oldest_first=oldest_first
        )
        page = make_page(found, limit, oldest_first=oldest_first, begins_below=before is not None)
        return EventPage(tuple(map(self.masking.event, page.events)), page.older, page.newer)

    async def read(
        self,
        wanted: EventFilter = _NO_FILTER,
        *,
        after: str | None = None,
        limit: int | None = None,
        on_damage: Callable[[CorruptLogError], None] | None = None,
    ) -> AsyncGenerator[EventView, None]:
        """Iterate over matching events with their payloads, oldest first, up to the current end of the log.

        ``after`` is a cursor (None: from the beginning), ``limit`` the maximum number of events (None: all).
        A damaged event is never returned: it raises CorruptLogError, or, if ``on_damage`` is given, is passed
        to it and left out. Raises InvalidFilterError.
        """
        found = self._source.read(wanted, after=after, limit=limit, on_damage=on_damage)
        async with aclosing(found) as events:
            async for event in events:
                yield self.masking.event(event)

    async def follow(
        self,
        wanted: EventFilter = _NO_FILTER,
        *,
        after: str | None = None,
        every: float = 0.25,
    ) -> AsyncGenerator[EventView, None]:
        """Iterate over matching events as they are published, forever; without ``after``, only new ones.

        It continues when the publishing process restarts. A file is checked every ``every`` seconds, while a
        server notifies. Payloads are included. Raises InvalidFilterError, and UsageError for a bus without a
        log in this process; for one on a server, use ``pabal.factory.open_operations(url)``.
        """
        async with aclosing(self._source.follow(wanted, after=after, every=every)) as events:
            async for event in events:
                yield self.masking.event(event)

    async def event(self, event_id: str) -> EventDetail:
        """Return one event: payload, deliveries with their failed attempts, cause and the first 500 effects.

        Raises EventNotFoundError, also if there is no log.
        """
        event = await self._source.event(event_id)
        if event is None:
            raise EventNotFoundError(event_id=event_id)
        cause = None if event.causation_id is None else await self._source.event(event.causation_id)
        effects = await self._source.events(
            EventFilter(causation_id=event.event_id, correlation_id=event.correlation_id or event.event_id),
            before=None,
            after=event.cursor,
            limit=_MAX_EFFECTS,
            payloads=False,
            oldest_first=True,
        )
        deliveries = await self._source.deliveries(event)
        return EventDetail(
            event=self.masking.event(event),
            deliveries=tuple(self.masking.delivery(delivery) for delivery in deliveries),
            cause=None if cause is None else self.masking.event(cause),
            effects=tuple(effects),
        )

    async def trace(self, correlation_id: str, *, limit: int = _MAX_TRACE_EVENTS) -> Trace:
        """Return the causation tree of a correlation id, or of the chain that an event id belongs to.

        Reads up to ``limit`` events; ``complete`` is False if there are more. Raises EventNotFoundError if
        there is no such event.
        """
        event = await self._source.event(correlation_id)
        if event is not None and event.correlation_id is not None:
            correlation_id = event.correlation_id
        found = await self._source.events(
            EventFilter(correlation_id=correlation_id),
            before=None,
            after=None,
            limit=limit + 1,
            payloads=False,
            oldest_first=True,
        )
        if not found:
            raise EventNotFoundError(event_id=correlation_id)
        complete = len(found) <= limit and not isinstance(found, CutShort)
        return build_trace(correlation_id, found[:limit], complete=complete)

    # -- streams --------------------------------------------------------------------------------------

    async def streams(self, *, prefix: str = "", after: str | None = None, limit: int = 50) -> StreamPage:
        """Return a page of aggregates whose id begins with ``prefix``, by id.

        ``after`` is the ``next`` of a page. Raises InvalidFilterError, and UsageError for a log on Redis,
        which has no streams.
        """
        return await self._source.streams(prefix, after, _checked_limit(limit))

    async def stream(
        self,
        aggregate_id: str,
        aggregate_type: str | None = None,
        *,
        after_version: int = 0,
        limit: int = 100,
    ) -> list[EventView]:
        """Return an aggregate's events after a version, oldest first; empty for an unknown aggregate.

        Without ``aggregate_type``, aggregates of any type with this id are included. Payloads are included.
        Raises UsageError for a log on Redis.
        """
        found = await self._source.stream(
            aggregate_id, aggregate_type, min(after_version, MAX_POSITION), _checked_limit(limit)
        )
        return [self.masking.event(event) for event in found]

    # -- projections ----------------------------------------------------------------------------------

    async def projections(self, *, rows: bool = False) -> list[ProjectionView]:
        """Return every projection stored in the file, by name; an empty list if there is no file.

        ``rows`` counts the rows of the tables, which reads all of them.
        """
        return await self._source.projections(rows=rows)

    # -- dead letters ---------------------------------------------------------------------------------

    async def dead_letters(
        self, wanted: DeadLetterFilter | None = None, *, after: int = 0, limit: int = 50
    ) -> DeadLetterPage:
        """Return a page of dead letters, oldest first; ``after`` is the ``next`` of a page."""
        limit = _checked_limit(limit)
        found = await self._source.dead_letters(
            wanted or DeadLetterFilter(), after=min(after, MAX_POSITION), limit=limit + 1
        )
        page = tuple(self.masking.letter(letter) for letter in found[:limit])
        return DeadLetterPage(page, page[-1].id if len(found) > limit else None)

    async def parked(self, events: Sequence[EventView]) -> set[str]:
        """Return the ids of those of ``events`` that at least one subscription has parked.

        The cost does not depend on the number of dead letters.
        """
        found: set[str] = set()
        for first in range(0, len(events), _CONCURRENCY):
            batch = events[first : first + _CONCURRENCY]
            for event, deliveries in zip(
                batch, await asyncio.gather(*map(self._source.deliveries, batch)), strict=True
            ):
                if any(delivery.dead_letter_id is not None for delivery in deliveries):
                    found.add(event.event_id)
        return found

    async def dead_letter(self, dead_letter_id: int) -> DeadLetterView:
        """Return one dead letter. Raises DeadLetterNotFoundError."""
        return self.masking.letter(await self._source.dead_letter(checked_letter_id(dead_letter_id)))

    async def dead_letter_groups(self) -> list[DeadLetterGroup]:
        """Return the dead letters counted by subscription and error type, largest group first."""
        return await self._source.dead_letter_groups()

    # -- the audit log, closing -----------------------------------------------------------------------

    async def audit(self, *, before: int | None = None, limit: int = 50) -> list[AuditEntry]:
        """Return recorded actions, newest first; ``before`` is the last id of the previous page."""
        below = None if before is None else min(before, MAX_POSITION)
        return await self._source.audit(before=below, limit=_checked_limit(limit))

    async def aclose(self) -> None:
        """Close what was opened for these operations; a bus or storage that was passed in stays open."""
        await self._source.aclose()

    async def __aenter__(self) -> Self:
        """Return the operations themselves."""
        return self

    async def __aexit__(self, *error: object) -> None:
        """Close the operations."""
        await self.aclose()


def _checked_limit(limit: int) -> int:
    if not 1 <= limit <= _MAX_LIMIT:
        raise InvalidFilterError(
            field="limit", value=str(limit), reason=f"it must be between 1 and {_MAX_LIMIT}"
        )
    return limit
