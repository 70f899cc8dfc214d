"""How an event enters the bus: checked, given its cause, and then stored, queued or scheduled."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import partial
from itertools import groupby
from sys import float_info
from typing import Any, Literal

from pabal.bus.dropping import OldestDropper
from pabal.bus.waiting import Expectations
from pabal.delivery.context import current_event, with_cause
from pabal.delivery.engine import Engine
from pabal.delivery.router import Route
from pabal.delivery.tracebacks import message_of
from pabal.domain.envelope import Receipt
from pabal.domain.event import DomainEvent, adopt, body_of, kind_of, private_copy
from pabal.errors import (
    BusNotRunningError,
    QueueFullError,
    StorageError,
    UnserializableEventError,
    UsageError,
)
from pabal.ports.storage import EventSink
from pabal.ports.telemetry import StorageTrouble

Backpressure = Literal["wait", "raise", "drop_oldest"]
_LOOK_EVERY = 10.0
"""Seconds between checks for due events in a file that other processes share."""


class Intake:
    """Take events in for a bus, while ``is_open``."""

    def __init__(
        self,
        engine: Engine,
        storage: EventSink | None,
        expectations: Expectations,
        *,
        limit: int,
        backpressure: Backpressure,
    ) -> None:
        if backpressure not in ("wait", "raise", "drop_oldest"):
            raise UsageError(f"backpressure is {backpressure!r}; use 'wait', 'raise' or 'drop_oldest'")
        self._engine = engine
        self._storage = storage
        self._expectations = expectations
        self._limit = limit
        self._backpressure = backpressure
        self._dropper = OldestDropper(engine)
        engine.router.aged = backpressure == "drop_oldest"
        self._in_flight = 0
        """Events whose append to the log is under way."""
        if storage is not None:
            engine.admission.count_taken = lambda: self._in_flight
        self._stored = 0
        self._release_at: float | None = None
        self.scheduled = 0
        self.last_position = 0
        """The highest position returned by a publish of this bus."""
        self.is_open = False

    @property
    def published(self) -> int:
        """Return how many events were taken in."""
        return self._stored if self._storage is not None else self._engine.sequence

    # -- one event, or several ------------------------------------------------------------------------

    async def publish(self, event: Any, delay: float | None, deliver_at: datetime | None) -> Receipt:
        """Take in one event that has to be checked, stored or scheduled, or may have to wait."""
        event = _prepare([event])[0]
        if delay is not None or deliver_at is not None:
            return await self._schedule(event, delay, deliver_at)
        return (await self._accept_all([event]))[0]

    async def publish_batch(self, events: Sequence[Any]) -> list[Receipt]:
        """Take in several events, all or none."""
        return await self._accept_all(_prepare(events))

    async def publish_stamped(self, events: list[DomainEvent]) -> list[Receipt]:
        """Take in events that other threads published, without waiting: the inbox has waited for room."""
        return await self._accept_all(events, waits=False)

    async def _accept_all(self, events: list[DomainEvent], *, waits: bool = True) -> list[Receipt]:
        if self._storage is not None:
            return await self._append_all(self._storage, events)
        engine, router = self._engine, self._engine.router
        runs = [(kind, self._validate(kind, run)) for kind, run in groupby(events, kind_of)]
        if engine.pending >= self._limit:
            needed = sum(len(router.route(kind).taken_by) * len(run) for kind, run in runs)
            await self._make_room(needed, waits)
        first, pending = engine.sequence + 1, engine.pending
        for kind, run in runs:
            self._accept(kind, run)
        if engine.admission.waiters and engine.pending == pending:
            engine.admission.admit(all_at_once=True)  # it took no room, so others need not wait for a worker
        return [Receipt(event.event_id, None, number) for number, event in enumerate(events, first)]

    def _validate(self, kind: type, events: Iterable[DomainEvent]) -> list[DomainEvent]:
        """Check events of one class before any is taken in, and copy those that could still be changed.

        A change the publisher makes later to its own object is not seen by handlers. Raises
        InvalidEventError.
        """
        if kind in self._engine.router.direct:
            return list(events)
        schema = self._engine.router.route(kind).schema
        checked = []
        for event in events:
            if schema.has_floats:
                schema.check_finite(body_of(event), event.event_id)
            try:
                checked.append(private_copy(event, schema) if schema.mutable else event)
            except Exception as error:
                raise UnserializableEventError(
                    event_type=schema.event_type, event_id=event.event_id, reason=message_of(error)
                ) from error
        return checked

    def _accept(self, kind: type, events: list[DomainEvent]) -> None:
        """Give checked events of one class to the subscriptions of a bus without storage."""
        engine = self._engine
        engine.sequence += len(events)
        route = engine.router.route(kind)
        if kind in engine.router.direct:
            for arrivals in route.arrivals:
                arrivals.extend(events)
        else:
            for event in events:
                self._dispatch(route, event)
        self._expectations.recent.extend(events)
        if self._expectations.waiting:
            for event in events:
                self._expectations.offer(event)

    def _dispatch(self, route: Route, event: DomainEvent) -> None:
        """Give an event to its subscriptions, on a route that is not direct."""
        engine = self._engine
        for arrivals in route.arrivals:
            if route.by_arrival:
                arrivals.extend((event,))
            else:
                arrivals.sort_into_lanes()  # earlier events must stay ahead
        if not route.by_arrival:
            engine.numbered += 1
            for consumer, _ in route.taken_by:
                engine.accept(consumer, engine.numbered, event)

    async def store(self, event: Any) -> Receipt:
        """Append one event to the log: ``publish`` for a bus with storage, in as few steps as possible."""
        if not isinstance(event, DomainEvent):
            event = adopt(event)
        event = with_cause(event, current_event.get())
        if self._in_flight >= self._limit or self._engine.admission.is_queued:
            return (await self._accept_all([event]))[0]
        assert self._storage is not None
        self._in_flight += 1
        try:
            position = (await self._storage.append_events((event,)))[0]
        finally:
            self._in_flight -= 1
            if self._engine.admission.waiters:
                self._engine.admission.admit()
        self._stored += 1
        if position > self.last_position:
            self.last_position = position
        return Receipt(event.event_id, position, position)

    async def _append_all(self, storage: EventSink, events: list[DomainEvent]) -> list[Receipt]:
        """Append to the log; while too many appends are uncommitted, wait or raise."""
        if self._in_flight >= self._limit or self._engine.admission.is_queued:
            if self._backpressure == "raise":
                raise QueueFullError(queue_size=self._in_flight, max_queue_size=self._limit)
            await self.wait_for_admission(asyncio.get_running_loop().create_future())
        self._in_flight += len(events)
        try:
            positions = await storage.append_events(events)
        finally:
            self._in_flight -= len(events)
            self._engine.admission.admit()
        self._stored += len(events)
        self.last_position = max(self.last_position, *positions, 0)
        return [
            Receipt(event.event_id, position, position)
            for event, position in zip(events, positions, strict=True)
        ]

    # -- a full bus -----------------------------------------------------------------------------------

    async def _make_room(self, needed: int, waits: bool) -> None:
        engine = self._engine
        if not needed:
            return
        if self._backpressure == "raise":
            raise QueueFullError(queue_size=engine.pending, max_queue_size=self._limit)
        if self._backpressure == "drop_oldest":
            while engine.pending + needed > self._limit and self._dropper.drop():
                continue
            return
        # A handler that publishes must not wait for room that only handlers can make.
        if waits and not engine.in_handler():
            await self.wait_for_admission(asyncio.get_running_loop().create_future())

    @property
    def is_full(self) -> bool:
        """Return whether a publisher has to wait for room."""
        return self._storage is None and self._backpressure == "wait" and self._engine.pending >= self._limit

    async def wait_for_admission(self, waiter: asyncio.Future[None]) -> None:
        """Wait until the engine lets ``waiter`` in. Raises BusNotRunningError if the bus stops first."""
        await self._engine.admission.wait(waiter)
        self._check_open()

    def _check_open(self) -> None:
        if not self.is_open:
            raise BusNotRunningError(action="publish", state="stopping")

    # -- later ----------------------------------------------------------------------------------------

    async def _schedule(
        self, event: DomainEvent, delay: float | None, deliver_at: datetime | None
    ) -> Receipt:
        now = self._engine.clock.time()
        delay = _delay(now, delay, deliver_at)
        if self._storage is not None:
            await self._storage.schedule_event(event, now + delay)
            if delay > 0:
                self._release_later(now + delay)
            else:
                await self.try_to_release(now)  # the event is stored, whether or not others can be released
        else:
            (event,) = self._validate(kind_of(event), [event])
            self.scheduled += 1
            self._engine.timers.add(delay, lambda: self._accept_due(event))
        return Receipt(event.event_id)

    def _accept_due(self, event: DomainEvent) -> None:
        self.scheduled -= 1
        if self.is_open:
            self._accept(kind_of(event), [event])

    def open(self) -> None:
        """Begin to take events in."""
        self.is_open = True
        self.scheduled = 0
        self._release_at = None
        if self._storage is not None and self._storage.capabilities.shared:
            self._engine.timers.add(_LOOK_EVERY, self._poll_due)

    async def release_due(self) -> None:
        """Append scheduled events that are due to the log, and arrange the next release."""
        assert self._storage is not None
        now = self._engine.clock.time()
        next_due = await self._storage.release_due(now)
        if self._release_at is not None and self._release_at <= now:
            self._release_at = None
        if next_due is not None:
            self._release_later(next_due)

    def _release_later(self, due: float) -> None:
        """Arrange a release at ``due``, unless one is arranged that is not later."""
        if not self.is_open or (self._release_at is not None and self._release_at <= due):
            return
        self._release_at = due
        wait = due - self._engine.clock.time()  # the storage's answer may be late, if the file was locked
        if wait > 0:
            self._engine.background.spawn_later(wait, partial(self.try_to_release, due))
        else:  # more was due than is appended at once: release the rest without a timer
            self._engine.background.spawn(self.try_to_release(due))

    async def try_to_release(self, due: float) -> None:
        """Call ``release_due()`` at ``due``; if the storage fails, try again after a second."""
        if self._release_at == due:
            self._release_at = None  # also if the clock was set back and the event is not due after all
        if not await self.release_or_report():
            # The disk may be full: due events stay stored, and are tried again.
            self._release_at = None
            self._engine.background.spawn_later(1.0, partial(self.try_to_release, due))

    async def release_or_report(self) -> bool:
        """Call ``release_due()``; if the storage fails, report that, and return False."""
        try:
            await self.release_due()
        except StorageError as error:
            self._engine.report(StorageTrouble("", error))
            return False
        return True

    def _poll_due(self) -> None:
        """Release events that a dead process left due, or that became due when the clock was set forward."""
        if self.is_open:
            self._engine.background.spawn(self.release_or_report())
            self._engine.timers.add(_LOOK_EVERY, self._poll_due)


def _prepare(events: Sequence[Any]) -> list[DomainEvent]:
    """Adopt events that are no DomainEvent, and name the event being handled as their cause."""
    adopted = [event if isinstance(event, DomainEvent) else adopt(event) for event in events]
    mark = current_event.get()
    return adopted if mark is None else [with_cause(event, mark) for event in adopted]


def _delay(now: float, delay: float | None, deliver_at: datetime | None) -> float:
    if deliver_at is None:
        if not isinstance(delay, (int, float)) or not abs(delay) <= float_info.max:
            raise UsageError(f"delay is {delay!r}; it must be a finite number of seconds")
        return delay
    if delay is not None:
        raise UsageError("give delay or deliver_at, not both")
    if not isinstance(deliver_at, datetime) or deliver_at.tzinfo is None:
        raise UsageError(f"deliver_at is {deliver_at!r}; pass an aware datetime")
    return deliver_at.timestamp() - now
