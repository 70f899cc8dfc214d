"""A group of processes on a server as a source for operators, inspected without joining the group."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from datetime import datetime
from typing import Any

import msgspec

from pabal.domain.envelope import to_microseconds
from pabal.errors import CorruptLogError, UsageError
from pabal.operations.dead_letters import matching_letters, retry_elsewhere
from pabal.operations.filters import matcher, parse_place
from pabal.operations.health import reasons_of_forgotten
from pabal.operations.projections import PROJECTION_ACTIONS, NoProjections
from pabal.operations.views import audit_entry, delivery_view, event_view, letter_view
from pabal.ports.groups import GroupInspection, OnDamage, Place, Placed
from pabal.ports.operations import (
    ActionResult,
    AuditEntry,
    CutShort,
    DeadLetterFilter,
    DeadLetterGroup,
    DeadLetterView,
    DeliveryView,
    EventFilter,
    EventView,
    Reason,
    StreamPage,
    SubscriptionView,
    Target,
    Totals,
)
from pabal.ports.samples import Sample, Series
from pabal.ports.storage import Start
from pabal.ports.views import ALL_ACTIONS

_TYPE_SAMPLE = 500
_NO_STREAMS = (
    "a log on Redis keeps no streams of aggregates; list events with the filter aggregate=TYPE/ID, "
    "or keep a local storage and feed the bus with relay(storage, bus)"
)


class GroupSource(NoProjections):
    """Inspect one group. Filters scan its log, which has no indexes; deliveries go on undisturbed."""

    actions = ALL_ACTIONS - PROJECTION_ACTIONS

    def __init__(self, group: GroupInspection) -> None:
        self._group = group

    @property
    def target(self) -> Target:
        """Return the group that this source shows."""
        address = self._group.address
        return Target(address.partition(":")[0], address, live=False, has_log=True)

    # -- reading --------------------------------------------------------------------------------------

    async def totals(self) -> Totals:
        """Return the totals over the whole group."""
        return await self._group.totals()

    async def subscriptions(self) -> list[SubscriptionView]:
        """Return every subscription, by name."""
        return await self._group.subscriptions()

    async def reasons(self) -> list[Reason]:
        """Return the problems that are not apparent from the subscriptions."""
        return reasons_of_forgotten(await self._group.count_forgotten_letters())

    async def types(self) -> list[str]:
        """Return the event types that occur among the newest events."""
        result = await self._group.search(lambda row: True, limit=_TYPE_SAMPLE, oldest_first=False)
        return sorted({entry.row.event_type for entry in result.events})

    async def series(self, edges: Sequence[int]) -> Series | None:
        """Return None: no history of figures is stored."""
        return None

    async def latest_samples(self, since: int) -> list[Sample]:
        """Return an empty list: the processes store no samples."""
        return []

    async def published_since(self, moment: datetime) -> int:
        """Return how many events entered the log since a time."""
        return await self._group.published_since(moment)

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
        """Return up to ``limit`` events between two places, by the time at which they entered the log."""
        after_place = parse_place("after", after)
        starts_at_root = oldest_first and after_place is None
        result = await self._group.search(
            matcher(wanted),
            before=parse_place("before", before),
            after=after_place,
            since=await self._since(wanted) if starts_at_root else _moment(wanted.since),
            until=_moment(wanted.until),
            limit=limit,
            oldest_first=oldest_first,
        )
        views = [_view(entry, payload=payloads) for entry in result.events]
        return views if result.cut is None else CutShort(views, str(result.cut))

    async def read(
        self,
        wanted: EventFilter,
        *,
        after: str | None,
        limit: int | None,
        on_damage: OnDamage | None,
    ) -> AsyncGenerator[EventView, None]:
        """Iterate over up to ``limit`` matching events with payloads, up to the end of the log."""
        place = parse_place("after", after)
        found = self._group.read(
            matcher(wanted),
            after=place,
            since=await self._since(wanted) if place is None else _moment(wanted.since),
            until=_moment(wanted.until),
            on_damage=on_damage,
        )
        remaining = limit
        async with aclosing(found) as entries:
            async for entry in entries:
                yield _view(entry, payload=True)
                remaining = None if remaining is None else remaining - 1
                if remaining == 0:
                    return

    async def _since(self, wanted: EventFilter) -> int | None:
        """Return the time before which nothing matches: a correlation id is that of a chain's first event."""
        since = _moment(wanted.since)
        if wanted.correlation_id is not None:
            with suppress(CorruptLogError):  # it is reported when it is reached
                root = await self._group.find_event(wanted.correlation_id)
                since = since if root is None else max(since or 0, root.row.recorded_at)
        return since

    async def follow(
        self, wanted: EventFilter, *, after: str | None, every: float
    ) -> AsyncGenerator[EventView, None]:
        """Iterate over matching events as they enter the log; the server notifies of them."""
        place = Place(0, 0) if after == "0" else parse_place("after", after)
        async with aclosing(self._group.follow(matcher(wanted), place, _moment(wanted.since))) as entries:
            async for entry in entries:
                yield _view(entry, payload=True)

    async def event(self, event_id: str) -> EventView | None:
        """Return one event with its payload, or None; the server indexes only each partition's newest ids."""
        found = await self._group.find_event(event_id)
        return None if found is None else _view(found, payload=True)

    async def deliveries(self, event: EventView) -> list[DeliveryView]:
        """Return the state of an event at each subscription of the group."""
        place = parse_place("cursor", event.cursor)
        assert place is not None
        return [delivery_view(record) for record in await self._group.deliveries_at(place)]

    async def streams(self, prefix: str, after: str | None, limit: int) -> StreamPage:
        """Raise UsageError: the log has no index by aggregate."""
        raise UsageError(_NO_STREAMS)

    async def stream(
        self, aggregate_id: str, aggregate_type: str | None, after_version: int, limit: int
    ) -> list[EventView]:
        """Raise UsageError: aggregates have no versions in this log."""
        raise UsageError(_NO_STREAMS)

    async def dead_letters(self, wanted: DeadLetterFilter, *, after: int, limit: int) -> list[DeadLetterView]:
        """Return dead letters by ascending id."""
        return await matching_letters(self._group, wanted, after=after, limit=limit)

    async def dead_letter(self, dead_letter_id: int) -> DeadLetterView:
        """Return one dead letter. Raises DeadLetterNotFoundError."""
        return letter_view(await self._group.get_dead_letter(dead_letter_id))

    async def dead_letter_groups(self) -> list[DeadLetterGroup]:
        """Return the number of dead letters for each subscription and error type."""
        return await self._group.group_dead_letters()

    # -- actions --------------------------------------------------------------------------------------

    async def pause(self, name: str) -> ActionResult:
        """Pause a subscription in all processes that handle its partitions."""
        return ActionResult("pause", name, int(await self._group.pause_subscription(name)))

    async def resume(self, name: str) -> ActionResult:
        """Resume a paused or halted subscription in all processes that handle its partitions."""
        return ActionResult("resume", name, int(await self._group.resume_subscription(name)))

    async def reset(self, name: str, to: Start) -> ActionResult:
        """Move a subscription in every partition; processes that handle one follow within moments."""
        position = await self._group.reset_subscription(name, to)
        pending = await self._group.is_moving(name)
        return ActionResult("reset", name, 1, position=position, pending=pending)

    async def replay(self, name: str, first: int | datetime, last: int | datetime | None) -> ActionResult:
        """Deliver finished events again, all of them or those between two times."""
        replay = await self._group.request_replay(name, first, last)
        return ActionResult("replay", name, replay.last - replay.first + 1, pending=True)

    async def retry(self, dead_letter_id: int, payload: bytes | None) -> ActionResult:
        """Have a dead letter delivered again by the process that handles its partition, now or later."""
        letter = await self._group.get_dead_letter(dead_letter_id)
        return await retry_elsewhere(self._group, letter, payload)

    async def discard(self, dead_letter_id: int) -> ActionResult:
        """Remove a dead letter for good; the events queued behind it are released."""
        await self._group.discard_dead_letter(dead_letter_id)
        return ActionResult("discard", str(dead_letter_id), 1)

    # -- the audit log --------------------------------------------------------------------------------

    async def begin_action(self, actor: str, action: str, subject: str, details: Any) -> int:
        """Record the start of an action in the audit log."""
        return await self._group.begin_action(actor, action, subject, details)

    async def finish_action(self, number: int, result: str, *, succeeded: bool) -> None:
        """Record the result of an action in the audit log."""
        await self._group.finish_action(number, result, succeeded=succeeded)

    async def audit(self, *, before: int | None, limit: int) -> list[AuditEntry]:
        """Return recorded actions, newest first."""
        return [audit_entry(record) for record in await self._group.list_actions(before=before, limit=limit)]

    async def aclose(self) -> None:
        """Disconnect."""
        await self._group.aclose()


def _view(entry: Placed, *, payload: bool) -> EventView:
    view = event_view(entry.row, payload=payload)
    return msgspec.structs.replace(view, cursor=str(Place(entry.partition, entry.row.position)))


def _moment(at: datetime | None) -> int | None:
    return None if at is None else to_microseconds(at)
