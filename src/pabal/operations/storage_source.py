"""A log as a source for operators, with the live bus on it if there is one in this process."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any

import msgspec

from pabal.bus.base import BaseEventBus
from pabal.delivery.tracebacks import storable
from pabal.errors import InvalidFilterError, SubscriptionInUseError
from pabal.operations.dead_letters import matching_letters, retry_elsewhere
from pabal.operations.filters import parse_position
from pabal.operations.following import poll, read_to_end
from pabal.operations.health import count_forgotten, reasons_of_forgotten
from pabal.operations.log import find_rows, position_at
from pabal.operations.projections import list_projections, remove_projection
from pabal.operations.views import (
    audit_entry,
    delivery_view,
    event_view,
    letter_view,
    reasons_of,
    subscription_view,
    with_bus_counters,
)
from pabal.ports.arguments import MAX_POSITION
from pabal.ports.groups import OnDamage
from pabal.ports.inspection import InspectableStorage
from pabal.ports.operations import (
    Action,
    ActionResult,
    AuditEntry,
    DeadLetterFilter,
    DeadLetterGroup,
    DeadLetterView,
    DeliveryView,
    EventFilter,
    EventView,
    ProjectionView,
    Reason,
    StreamPage,
    StreamView,
    SubscriptionView,
    Target,
    Totals,
)
from pabal.ports.samples import Sample, Series
from pabal.ports.storage import Start
from pabal.ports.views import ALL_ACTIONS


class StorageSource:
    """Read from a storage, and from the bus that runs on it in this process, if there is one.

    With ``owns_storage``, ``aclose`` closes the storage.
    """

    def __init__(
        self,
        storage: InspectableStorage,
        bus: BaseEventBus | None = None,
        *,
        owns_storage: bool = False,
    ) -> None:
        self._storage = storage
        self._bus = bus
        self._owns_storage = owns_storage

    @property
    def target(self) -> Target:
        """Return the log that this source shows."""
        kind = "sqlite" if self._storage.capabilities.persistent else "memory"
        return Target(kind, storable(self._storage.path), self._bus is not None, has_log=True)

    @property
    def actions(self) -> frozenset[Action]:
        """Return the supported actions: all of them."""
        return ALL_ACTIONS

    # -- reading --------------------------------------------------------------------------------------

    async def totals(self) -> Totals:
        """Return the totals over the whole log, and the bus's counters."""
        extent = await self._storage.measure()
        events = extent.head - extent.first + 1 if extent.head else 0
        totals = Totals(events, extent.head, extent.scheduled, extent.size_bytes)
        return totals if self._bus is None else with_bus_counters(totals, self._bus)

    async def subscriptions(self) -> list[SubscriptionView]:
        """Return every subscription, by name."""
        records = await self._storage.list_subscriptions()
        extent = await self._storage.measure()
        figures = {} if self._bus is None else self._bus.get_statistics()["subscriptions"]
        return [subscription_view(record, extent, figures.get(record.name)) for record in records]

    async def reasons(self) -> list[Reason]:
        """Return the problems that are not apparent from the subscriptions."""
        groups = await self._storage.group_dead_letters()
        records = await self._storage.list_subscriptions() if groups else []
        forgotten = count_forgotten(groups, {record.name for record in records})
        return ([] if self._bus is None else reasons_of(self._bus)) + reasons_of_forgotten(forgotten)

    async def _newest(self) -> str:
        """Return the log's last position as a cursor."""
        return str(await self._storage.head())

    async def types(self) -> list[str]:
        """Return the names of event types in the log."""
        return await self._storage.list_event_types()

    async def series(self, edges: Sequence[int]) -> Series | None:
        """Return figures over time, between the given edges."""
        return await self._storage.read_series(edges)

    async def latest_samples(self, since: int) -> list[Sample]:
        """Return the samples that each bus stored of its own figures."""
        return await self._storage.latest_samples(since)

    async def published_since(self, moment: datetime) -> int:
        """Return how many events entered the log since a time."""
        extent = await self._storage.measure()
        return extent.head + 1 - await self._position_at(moment) if extent.head else 0

    async def _position_at(self, moment: datetime) -> int:
        extent = await self._storage.measure()
        return await position_at(self._storage, moment, extent.first, extent.head)

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
        """Return up to ``limit`` events strictly between two positions."""
        rows = await find_rows(
            self._storage,
            wanted,
            before=parse_position("before", before),
            after=parse_position("after", after),
            limit=limit,
            oldest_first=oldest_first,
        )
        return [event_view(row, payload=payloads) for row in rows]

    def read(
        self,
        wanted: EventFilter,
        *,
        after: str | None,
        limit: int | None,
        on_damage: OnDamage | None,
    ) -> AsyncGenerator[EventView, None]:
        """Iterate over up to ``limit`` matching events with payloads, up to the end of the log."""
        return read_to_end(self, wanted, after, limit, on_damage)

    def follow(
        self, wanted: EventFilter, *, after: str | None, every: float
    ) -> AsyncGenerator[EventView, None]:
        """Iterate over matching events as they enter the log, even if the publishing process restarts."""
        return poll(self, self._newest, wanted, after, every)

    async def event(self, event_id: str) -> EventView | None:
        """Return one event with its payload, or None."""
        row = await self._storage.find_record(event_id)
        return None if row is None else event_view(row, payload=True)

    async def deliveries(self, event: EventView) -> list[DeliveryView]:
        """Return the state of an event at each subscription."""
        assert event.position is not None
        return [delivery_view(record) for record in await self._storage.deliveries_at(event.position)]

    async def streams(self, prefix: str, after: str | None, limit: int) -> StreamPage:
        """Return aggregates whose id begins with ``prefix``."""
        last = None if not after else _parse_stream_cursor(after)
        found = await self._storage.list_streams(prefix=prefix, after=last, limit=limit + 1)
        views = tuple(StreamView(*entry) for entry in found[:limit])
        more = msgspec.json.encode(found[limit - 1][:2]).decode() if len(found) > limit else None
        return StreamPage(views, more)

    async def stream(
        self, aggregate_id: str, aggregate_type: str | None, after_version: int, limit: int
    ) -> list[EventView]:
        """Return an aggregate's events above a version."""
        rows = await self._storage.read_stream(
            aggregate_id, aggregate_type, after_version=after_version, limit=limit
        )
        return [event_view(row, payload=True) for row in rows]

    async def dead_letters(self, wanted: DeadLetterFilter, *, after: int, limit: int) -> list[DeadLetterView]:
        """Return dead letters by ascending id."""
        return await matching_letters(self._storage, wanted, after=after, limit=limit)

    async def dead_letter(self, dead_letter_id: int) -> DeadLetterView:
        """Return one dead letter. Raises DeadLetterNotFoundError."""
        return letter_view(await self._storage.get_dead_letter(dead_letter_id))

    async def dead_letter_groups(self) -> list[DeadLetterGroup]:
        """Return the number of dead letters for each subscription and error type."""
        return await self._storage.group_dead_letters()

    async def projections(self, *, rows: bool) -> list[ProjectionView]:
        """Return every projection by name."""
        return await list_projections(self._storage, rows=rows)

    # -- actions --------------------------------------------------------------------------------------

    @property
    def _running(self) -> BaseEventBus | None:
        return self._bus if self._bus is not None and self._bus.is_running else None

    async def pause(self, name: str) -> ActionResult:
        """Stop delivering events to a subscription until it is resumed."""
        pause = self._running.subscriptions.pause if self._running else self._storage.pause_subscription
        return ActionResult("pause", name, int(await pause(name)))

    async def resume(self, name: str) -> ActionResult:
        """Resume a paused or halted subscription."""
        resume = self._running.subscriptions.resume if self._running else self._storage.resume_subscription
        return ActionResult("resume", name, int(await resume(name)))

    async def reset(self, name: str, to: Start) -> ActionResult:
        """Move a subscription's cursor; ``position`` of the result is its new position."""
        if self._running is not None and name in self._running.get_statistics()["subscriptions"]:
            try:
                position: int | None = await self._running.subscriptions.reset(name, to)
            except SubscriptionInUseError:  # another process handles it, and this one is on standby
                position = await self._storage.request_reset(name, to)
        else:
            position = await self._storage.request_reset(name, to)
        return ActionResult("reset", name, 1, position=position, pending=position is None)

    async def replay(self, name: str, first: int | datetime, last: int | datetime | None) -> ActionResult:
        """Deliver a range of events again."""
        first = first if isinstance(first, int) else await self._position_at(first)
        last = await self._position_at(last) - 1 if isinstance(last, datetime) else last
        if self._running is not None:
            replay = await self._running.subscriptions.replay(name, first, last)
        else:
            replay = await self._storage.request_replay(name, first, MAX_POSITION if last is None else last)
        return ActionResult("replay", name, replay.last - replay.first + 1, pending=True)

    async def retry(self, dead_letter_id: int, payload: bytes | None) -> ActionResult:
        """Deliver a dead letter again, here or in the process that handles its subscription, now or later."""
        letter = await self._storage.get_dead_letter(dead_letter_id)
        subject = str(dead_letter_id)
        if self._bus is not None and letter.subscription in self._bus.get_statistics()["subscriptions"]:
            if payload is None:
                return ActionResult("retry", subject, await self._bus.dead_letters.retry(dead_letter_id))
            edited = msgspec.json.decode(payload)
            begun = await self._bus.dead_letters.edit_and_retry(dead_letter_id, edited)
            return ActionResult("edit", subject, int(begun))
        result = await retry_elsewhere(self._storage, letter, payload)
        await self._storage.request_reopening(letter.subscription)
        return result

    async def discard(self, dead_letter_id: int) -> ActionResult:
        """Remove a dead letter for good."""
        if self._bus is not None and self._bus.is_running:
            await self._bus.dead_letters.discard(dead_letter_id)
        else:
            letter = await self._storage.discard_dead_letter(dead_letter_id)
            await self._storage.request_reopening(letter.subscription)
        return ActionResult("discard", str(dead_letter_id), 1)

    async def remove_projection(self, name: str, *, unfinished: bool) -> ActionResult:
        """Drop a projection's tables and position."""
        return await remove_projection(self._storage, name, unfinished=unfinished)

    async def rebuild_projection(self, name: str, rebuild: Callable[[Any], Awaitable[int]]) -> ActionResult:
        """Rebuild a projection's tables; ``position`` of the result is their new position."""
        return ActionResult("rebuild", f"projection {name}", 1, position=await rebuild(self._storage))

    # -- the audit log --------------------------------------------------------------------------------

    async def begin_action(self, actor: str, action: str, subject: str, details: Any) -> int:
        """Record the start of an action durably in the audit log."""
        return await self._storage.begin_action(actor, action, subject, details)

    async def finish_action(self, number: int, result: str, *, succeeded: bool) -> None:
        """Record the result of an action in the audit log."""
        await self._storage.finish_action(number, result, succeeded=succeeded)

    async def audit(self, *, before: int | None, limit: int) -> list[AuditEntry]:
        """Return recorded actions, newest first."""
        return [
            audit_entry(record) for record in await self._storage.list_actions(before=before, limit=limit)
        ]

    async def aclose(self) -> None:
        """Close the storage if this source owns it."""
        if self._owns_storage:
            await self._storage.aclose()


def _parse_stream_cursor(cursor: str) -> tuple[str, str]:
    try:
        return msgspec.json.decode(cursor, type=tuple[str, str])
    except (msgspec.DecodeError, UnicodeError):
        raise InvalidFilterError(
            field="after", value=cursor, reason="pass the 'next' of a page of streams"
        ) from None
