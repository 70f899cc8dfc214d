"""The delivery engine: consumers, ready lanes, and the workers that empty them."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from typing import Any

from pabal.delivery.admission import Admission
from pabal.delivery.arrivals import Arrivals, new_arrivals
from pabal.delivery.background import Background
from pabal.delivery.clock import SystemClock
from pabal.delivery.consumer import ACTIVE, CLOSED, HALTED, STARTING, Consumer
from pabal.delivery.context import Mark, Middleware, current_event, wrap
from pabal.delivery.dead_letters import MemoryDeadLetters
from pabal.delivery.failure import Failures
from pabal.delivery.feed import Feed
from pabal.delivery.lane import IDLE, LOADING, READY, WAITING, Item, Lane
from pabal.delivery.letters_in_memory import deliver_released
from pabal.delivery.listening import Listeners
from pabal.delivery.quarantine import Quarantine
from pabal.delivery.redelivery import Redelivery
from pabal.delivery.router import Router
from pabal.delivery.settlement import Settlement
from pabal.delivery.shutdown import discard_closed_loop, save_last, stop_workers, wait_until_ended
from pabal.delivery.subscription import Subscription, key_text
from pabal.delivery.tally import Tally
from pabal.delivery.threads import HandlerThreads
from pabal.delivery.timers import Timers
from pabal.delivery.tracebacks import storable
from pabal.delivery.watchdog import Watchdog
from pabal.delivery.worker import Worker
from pabal.domain.event import DomainEvent, kind_of
from pabal.ports.clock import Clock
from pabal.ports.storage import EventStorage
from pabal.ports.telemetry import EventDropped, Report, SubscriptionHalted, SubscriptionResumed

_log = logging.getLogger("pabal")


class Engine:
    """Deliver events to consumers. An engine belongs to one event loop, and is not thread-safe."""

    def __init__(
        self,
        *,
        worker_count: int,
        clock: Clock | None = None,
        seed: int | None = None,
        host: Engine | None = None,
    ) -> None:
        self.host = host
        """The engine whose workers also do this one's work, so that several logs share one set of workers."""
        self.guests: list[Engine] = []
        """The engines whose work is done by this one's workers besides its own."""
        self.clock: Clock = clock or SystemClock()
        self.random = random.Random(seed).random
        self.worker_count = worker_count
        self.consumers: dict[str, Consumer] = {}
        self._by_id: dict[str, Consumer] = {}
        self.router = Router(self.consumers)
        self.sequence = 0
        """Counts events published on a bus without storage."""
        self.numbered = 0
        """Numbers deliveries on a bus without storage, where there are no log positions."""
        self.ready: deque[Lane | Arrivals[Any]] = deque() if host is None else host.ready
        self.resting: deque[asyncio.Future[None]] = deque() if host is None else host.resting
        self.routing: asyncio.Lock = asyncio.Lock() if host is None else host.routing
        """Held while a page is routed, so that several logs take turns and publishers run in between."""
        self.admission = Admission(lambda: self.pending)
        self.pending = 0
        """Deliveries in memory that are not finished: queued, running, or waiting for a retry."""
        self.parked = 0
        """The number of dead letters that exist now."""
        self.halting = False
        self.cancelling = False
        self.workers: list[Worker] = [] if host is None else host.workers
        self.timers = Timers(self.clock)
        self.watchdog = Watchdog(self.clock, self.workers)
        self.failures = Failures(self)
        self.settlement = Settlement(self)
        self.redelivery = Redelivery(self)
        self.tally = Tally(self)
        self.dead_letters = MemoryDeadLetters()
        self.background = Background(self)
        self.quarantine = Quarantine(self)
        self.feed: Feed | None = None
        self.middleware: tuple[Middleware, ...] = ()
        self.listeners = Listeners()
        self.threads: HandlerThreads = HandlerThreads(max(4, worker_count)) if host is None else host.threads
        self._loop: asyncio.AbstractEventLoop | None = None
        """The event loop of the last start."""
        self._leftover_tasks: list[asyncio.Task[None]] = []
        """Workers whose handlers did not end when they were cancelled."""

    # -- consumers ------------------------------------------------------------------------------------

    def add(self, subscription: Subscription) -> Consumer:
        """Add a subscription: active at once without storage, opened in the background with it."""
        consumer = Consumer(subscription, self, self._wrap_handler(subscription))
        self.consumers[subscription.name] = self._by_id[subscription.id] = consumer
        self._rewire(consumer, *self.router.add_consumer(consumer))
        if self.feed is None:  # dead letters in memory outlive the subscription, and so do blocked keys
            consumer.blocked = self.dead_letters.blocks_of(subscription.name)
            consumer.state = ACTIVE
            deliver_released(consumer)
        elif self.feed.leases.has_begun and not self.halting:  # else this or the next start opens it
            self.background.spawn(self.feed.leases.open_or_stand_by(consumer))
        return consumer

    def remove(self, identity: str) -> bool:
        """Remove a subscription by its id; without a log, its waiting deliveries are lost."""
        consumer = self._by_id.pop(identity, None)
        if consumer is None:
            return False
        del self.consumers[consumer.name]
        consumer.state = CLOSED
        if self.feed is not None:
            self.feed.leases.release_removed(consumer)
        self.pending -= consumer.drop_lanes()
        self._rewire(*self.router.remove_consumer(consumer))
        self.admission.admit()
        self.background.notify_observers()
        return True

    def rewire(self) -> None:
        """Update everything that depends on the set of consumers and middleware."""
        self.router.wire()
        self._rewire(*self.consumers.values())

    def _rewire(self, *consumers: Consumer) -> None:
        for consumer in consumers:
            consumer.rewire(self._wrap_handler(consumer.subscription), with_middleware=bool(self.middleware))

    def _wrap_handler(self, subscription: Subscription) -> Any:
        call = subscription.handler.bind(self.threads.executor, lambda: self.cancelling)
        return wrap(call, self.middleware)

    # -- routing --------------------------------------------------------------------------------------

    def accept(self, consumer: Consumer, position: int, event: DomainEvent) -> None:
        """Put an event into its lane, or behind a parked key or a spilled tail; drop it if halted."""
        consumer.arrivals.use_lanes()
        if consumer.state != ACTIVE:  # an earlier one, sorted only now, may have halted it
            if consumer.state == HALTED and consumer.tracker is None:  # no log to read it from again
                consumer.figures.dropped += 1
                self.report(EventDropped(consumer.name, event.event_id, event.event_type))
            return
        if consumer.followed and position not in consumer.failing:
            consumer.unattempted.add(position)
        try:
            lane = consumer.lane_for(event, self.lanes_of(consumer, event))
        except Exception as error:
            self.failures.reject(consumer, position, event, None, error)
            return
        if consumer.blocked and not lane.shared:
            key = key_text(lane.key)
            if key in consumer.blocked:
                self.redelivery.queue(consumer, key, (position, event))
                return
        if lane.spilled is not None:
            consumer.spill_behind(lane, position)
            return
        if consumer.tracker is not None:
            consumer.queued += 1
        self.enter(consumer, lane, position, event)

    def enter_lane(self, consumer: Consumer, lane: Lane, position: int, event: DomainEvent) -> None:
        """Append to a lane that is not blocked; if its tail was spilled, leave the event on disk too."""
        if lane.spilled is not None:
            consumer.spill_behind(lane, position)
            return
        consumer.queued += 1
        self.enter(consumer, lane, position, event)

    def enter(self, consumer: Consumer, lane: Lane, position: int, event: DomainEvent) -> None:
        """Append to a lane, and queue it for the workers if it was idle."""
        lane.items.append((position, event))
        self.pending += 1
        if lane.state == IDLE:
            self.make_ready(lane)

    def is_handling(self, mark: Mark) -> bool:
        """Return whether a worker is handling exactly this event or batch now."""
        return mark is not None and any(worker.context.get(current_event) is mark for worker in self.workers)

    def in_handler(self) -> bool:
        """Return whether the caller is a handler that has not ended, or a task that one started."""
        return self.is_handling(current_event.get())

    def lanes_of(self, consumer: Consumer, event: DomainEvent) -> dict[Any, Lane] | None:
        """Return the lanes by aggregate id for this event's class, or None."""
        return consumer.lanes_of(kind_of(event))

    # -- workers and lanes ----------------------------------------------------------------------------

    def make_ready(self, lane: Lane | Arrivals[Any]) -> None:
        """Queue a lane for the workers and wake one of them."""
        lane.state = READY
        self.ready.append(lane)
        if self.resting:
            self.wake()

    def wake(self) -> None:
        """Wake one resting worker, if any."""
        while self.resting:
            future = self.resting.popleft()
            if not future.done():
                future.set_result(None)
                return

    async def rest(self) -> None:
        """Wait, as a worker, until a lane is ready."""
        if self.admission.waiters:
            self.admission.admit(all_at_once=True)
        for engine in (self, *self.guests):
            if engine.background.observers:
                engine.background.notify_observers()
        future = asyncio.get_running_loop().create_future()
        self.resting.append(future)
        await future

    def wait(self, lane: Lane, delay: float) -> None:
        """Set a lane aside until its first delivery is due."""
        lane.state = WAITING

        def due() -> None:
            if lane.state == WAITING and lane.consumer.state == ACTIVE:
                self.make_ready(lane)

        self.timers.add(delay, due)

    def return_later(self, lane: Lane, item: Item, delay: float) -> None:
        """Put a delivery without a key back into its lane when it is due; the lane goes on without it."""
        consumer = lane.consumer
        consumer.delayed[item[0]] = item

        def due() -> None:
            if consumer.delayed.get(item[0]) is item:
                del consumer.delayed[item[0]]
                lane.items.append(item)
                if lane.state == IDLE:
                    self.make_ready(lane)

        self.timers.add(delay, due)

    def reload(self, lane: Lane) -> None:
        """Read back the deliveries that a lane left on disk."""
        assert self.feed is not None
        lane.state = LOADING
        self.background.spawn(self.feed.reload(lane))

    def on_workers_cancelled(self) -> None:
        """Record that the workers were cancelled from outside, as at the end of ``asyncio.run``."""
        self.router.stored = True  # nothing may go directly into lanes that no worker empties
        self.router.forget()

    # -- for the other parts of the engine ------------------------------------------------------------

    def halt(self, consumer: Consumer, reason: str) -> None:
        """Stop one subscription where it is; all others go on."""
        cause = storable(reason[:1000])  # it is stored, for other processes to read
        consumer.reason = f"halted at {cause}; fix the cause, then restart the bus or call bus.resume()"
        self.set_aside(consumer, HALTED)
        self.report(SubscriptionHalted(consumer.name, consumer.reason))
        if self.feed is not None:
            self.feed.controls.note_halts()

    def set_aside(self, consumer: Consumer, state: str) -> None:
        """Empty a consumer's lanes until it is opened again; running handlers are not touched."""
        consumer.state = state
        consumer.live = False
        self.pending -= consumer.drop_lanes()
        self.admission.admit()
        self.background.notify_observers()

    def on_lease_lost(self, consumer: Consumer) -> None:
        """Let go of a subscription whose lease another process has taken over."""
        assert self.feed is not None
        self.feed.leases.on_lease_lost(consumer)

    def halted_in(self, name: str) -> int | None:
        """Return the epoch in which a subscription halted here, or None if it has not halted."""
        consumer = self.consumers.get(name)
        return consumer.epoch if consumer is not None and consumer.state == HALTED else None

    def is_halted(self, name: str) -> bool:
        """Return whether a subscription has halted here."""
        return self.halted_in(name) is not None

    async def resume(self, name: str, epoch: int | None) -> bool:
        """Resume a subscription that halted in ``epoch``; False if it is running, or halted later."""
        consumer = self.consumers.get(name)
        if consumer is None or epoch is None or self.halted_in(name) != epoch:
            return False
        if self.feed is not None:
            await self.feed.controls.resume(consumer)
        elif self.in_handler():
            self.background.spawn(self._resume(consumer))
        else:
            await self._resume(consumer)
        return True

    async def _resume(self, consumer: Consumer) -> None:
        # A handler that still runs would otherwise run beside the next attempt, or the next event of its key.
        await self.background.wait_until(lambda: not consumer.in_flight)
        if consumer.state == HALTED:  # neither removed nor resumed by another call in the meantime
            consumer.reason = ""
            consumer.state = ACTIVE
            self.router.forget()
            self.report(SubscriptionResumed(consumer.name))
            deliver_released(consumer)

    def note_parked(self, change: int) -> None:
        """Add ``change`` to the number of dead letters."""
        self.parked = max(0, self.parked + change)  # those of other processes may not be counted yet
        if self.host is not None:
            self.host.note_parked(change)

    def report(self, report: Report) -> None:
        """Pass a report to every listener; a listener that raises is removed."""
        self.listeners.notify(report)

    # -- life -----------------------------------------------------------------------------------------

    async def start(self, storage: EventStorage | None) -> None:
        """Open all subscriptions, and read if there is storage. ``begin_work`` then starts the workers."""
        await wait_until_ended(self._leftover_tasks)
        if self.host is None:
            await self.threads.wait_until_ended()
        self._loop = asyncio.get_running_loop()
        self.halting = self.cancelling = False
        if self.host is None:
            self.routing = asyncio.Lock()  # the last one may belong to another loop
        self.pending = 0
        self.router.stored = storage is not None
        self._first_slot = 0
        if storage is not None:
            self.feed = Feed(self, storage)
            self.redelivery.storage = storage
            self.settlement.start(storage)
            if storage.journal is not None:
                self._first_slot = storage.journal.reserve(self.worker_count)
        for consumer in self.consumers.values():
            consumer.drop_lanes()  # a worker that ended after the stop may have put deliveries back
            consumer.arrivals = new_arrivals(consumer)
            consumer.state = ACTIVE if storage is None else STARTING
            consumer.reason = ""
        self.rewire()
        if self.feed is not None:
            await self.feed.start()
        else:
            for consumer in self.consumers.values():
                deliver_released(consumer)
        if self.host is not None:
            self.host.guests.append(self)

    def begin_work(self) -> None:
        """Start the workers, once the bus accepts events published by handlers."""
        for slot in range(self.worker_count):
            worker = Worker(self, self._first_slot + slot)
            worker.task = asyncio.create_task(
                worker.run(), name=f"pabal-worker-{slot}", context=worker.context
            )
            self.workers.append(worker)

    async def stop(self, deadline: float) -> None:
        """Let running handlers finish until ``deadline`` (monotonic), then cancel them; save progress."""
        self.halting = True
        if self._loop is not None and self._loop.is_closed():
            discard_closed_loop(self)
        for consumer in self.consumers.values():
            consumer.end_slices()
        while self.resting:
            self.wake()
        await stop_workers(self, deadline)
        self.timers.clear()
        self.watchdog.stop()
        if self.feed is None and self.pending:
            _log.warning("%d deliveries were unfinished when the bus stopped and are lost", self.pending)
        if (feed := self.feed) is not None:
            await feed.stop()
            await save_last(self, feed, deadline)
            self.feed = None
        for consumer in self.consumers.values():
            consumer.drop_lanes()
            consumer.arrivals.state = IDLE  # ``ready`` is cleared below
            consumer.tracker = None
            consumer.live = consumer.is_loaded = False
            consumer.number = consumer.epoch = 0  # if it is forgotten from now on, it starts like a new one
        if self.host is None:
            self._leftover_tasks += [worker.task for worker in self.workers if not worker.task.done()]
            self.workers.clear()
            self.ready.clear()
            self.threads.stop()
        self.quarantine.reset()
        self.admission.release_all()
        self.background.notify_observers()
