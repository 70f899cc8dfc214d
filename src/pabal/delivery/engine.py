"""The delivery engine: lanes that are ready, workers that take them, and the few places that act."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any

from pabal.delivery.admission import Admission
from pabal.delivery.arrivals import Arrivals
from pabal.delivery.background import Background
from pabal.delivery.clock import SystemClock
from pabal.delivery.consumer import ACTIVE, CLOSED, HALTED, STARTING, Consumer
from pabal.delivery.context import Mark, Middleware, current_event, wrap
from pabal.delivery.dead_letters import MemoryDeadLetters
from pabal.delivery.ending import bury_work, end_work, ended, save_last
from pabal.delivery.failure import Failures
from pabal.delivery.feed import Feed
from pabal.delivery.lane import IDLE, LOADING, READY, WAITING, Item, Lane
from pabal.delivery.listening import Listeners
from pabal.delivery.quarantine import Quarantine
from pabal.delivery.redelivery import Redelivery
from pabal.delivery.router import Router
from pabal.delivery.settlement import Settlement
from pabal.delivery.subscription import Subscription, key_text
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
    """Deliver events to consumers. Belongs to one event loop; nothing here is thread-safe."""

    def __init__(
        self,
        *,
        worker_count: int,
        clock: Clock | None = None,
        seed: int | None = None,
        crew: Engine | None = None,
    ) -> None:
        self.crew = crew
        """The engine whose workers do this one's work, too: several logs, one set of workers."""
        self.fellows: list[Engine] = []
        """The engines whose work this one's workers do besides its own."""
        self.clock: Clock = clock or SystemClock()
        self.random = random.Random(seed).random
        self.worker_count = worker_count
        self.consumers: dict[str, Consumer] = {}
        self._by_id: dict[str, Consumer] = {}
        self.router = Router(self.consumers)
        self.sequence = 0
        """Counts the events published on a bus without storage."""
        self.numbered = 0
        """Numbers the deliveries of a bus without storage, in place of positions."""
        self.ready: deque[Lane | Arrivals] = deque() if crew is None else crew.ready
        self.resting: deque[asyncio.Future[None]] = deque() if crew is None else crew.resting
        self.admission = Admission(self)
        self.pending = 0
        """Deliveries in memory that are not finished: queued, running, or waiting for a retry."""
        self.parked = 0
        """Dead letters there are now."""
        self.halting = False
        self.cancelling = False
        self.workers: list[Worker] = [] if crew is None else crew.workers
        self.timers = Timers(self.clock)
        self.watchdog = Watchdog(self.clock, self.workers)
        self.failures = Failures(self)
        self.settlement = Settlement(self)
        self.redelivery = Redelivery(self)
        self.dead_letters = MemoryDeadLetters()
        self.background = Background(self)
        self.quarantine = Quarantine(self)
        self.feed: Feed | None = None
        self.middleware: tuple[Middleware, ...] = ()
        self.listeners = Listeners()
        self._executor: ThreadPoolExecutor | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        """The event loop of the last start."""
        self._outlived: list[asyncio.Task[None]] = []
        """Workers whose handlers did not end when they were cancelled."""

    # -- consumers ------------------------------------------------------------------------------------

    def add(self, subscription: Subscription) -> Consumer:
        """Take a subscription in; without storage it is active at once."""
        consumer = Consumer(subscription, self, self._call_of(subscription))
        self.consumers[subscription.name] = self._by_id[subscription.id] = consumer
        if self.feed is None:  # dead letters in memory outlive the subscription, and so does what they block
            consumer.blocked = dict.fromkeys(self.dead_letters.blocking_keys(subscription.name), 0)
        self._rewire(consumer, *self.router.joined(consumer))
        if self.feed is None:
            consumer.state = ACTIVE
        else:
            self.background.spawn(self.feed.leases.open_or_stand_by(consumer))
        return consumer

    def remove(self, identity: str) -> bool:
        """Let a subscription go, by its id; what waits for it is forgotten, or stays unfinished on disk."""
        consumer = self._by_id.pop(identity, None)
        if consumer is None:
            return False
        del self.consumers[consumer.name]
        consumer.state = CLOSED
        if self.feed is not None and not self.halting:
            self.feed.leases.let_go(consumer)
        self.pending -= consumer.drop_lanes()
        self._rewire(*self.router.left(consumer))
        self.admission.let_in()
        self.background.noticed()
        return True

    def rewire(self) -> None:
        """Compute anew what depends on which consumers and middleware there are."""
        self.router.wire()
        self._rewire(*self.consumers.values())

    def _rewire(self, *consumers: Consumer) -> None:
        for consumer in consumers:
            consumer.rewire(self._call_of(consumer.subscription), with_middleware=bool(self.middleware))

    def _call_of(self, subscription: Subscription) -> Any:
        return wrap(subscription.handler.bind(self._threads, lambda: self.cancelling), self.middleware)

    def _threads(self) -> Executor:
        if self.crew is not None:
            return self.crew._threads()
        if self._executor is None:
            self._executor = ThreadPoolExecutor(max(4, self.worker_count), "pabal-handler")
        return self._executor

    # -- routing --------------------------------------------------------------------------------------

    def accept(self, consumer: Consumer, position: int, event: DomainEvent) -> None:
        """Put an event into one consumer's lane, behind everything that precedes it there."""
        if consumer.state == HALTED and consumer.tracker is None:
            # Without a log there is no place to come back to later.
            consumer.figures.dropped += 1
            self.report(EventDropped(consumer.name, event.event_id, event.event_type))
            return
        if consumer.followed and consumer.state == ACTIVE and position not in consumer.failing:
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
        """Append to a lane that nothing bars, or leave it on disk behind what was left there."""
        if lane.spilled is not None:
            consumer.spill_behind(lane, position)
            return
        consumer.queued += 1
        self.enter(consumer, lane, position, event)

    def enter(self, consumer: Consumer, lane: Lane, position: int, event: DomainEvent) -> None:
        """Append to a lane and see that somebody looks at it."""
        lane.items.append((position, event))
        self.pending += 1
        if lane.state == IDLE:
            self.make_ready(lane)

    def is_handling(self, mark: Mark) -> bool:
        """Tell whether some worker handles this very event, or batch, now."""
        return mark is not None and any(worker.context.get(current_event) is mark for worker in self.workers)

    def in_handler(self) -> bool:
        """Tell whether a handler is calling, itself or through a task it waits for."""
        return self.is_handling(current_event.get())

    def lanes_of(self, consumer: Consumer, event: DomainEvent) -> dict[Any, Lane] | None:
        """Return the lanes by aggregate id that this event's class uses, or None."""
        return consumer.lanes_of(kind_of(event))

    # -- workers and lanes ----------------------------------------------------------------------------

    def make_ready(self, lane: Lane | Arrivals) -> None:
        """Queue a lane for the workers and wake one."""
        lane.state = READY
        self.ready.append(lane)
        if self.resting:
            self.wake()

    def wake(self) -> None:
        """Wake one resting worker."""
        while self.resting:
            future = self.resting.popleft()
            if not future.done():
                future.set_result(None)
                return

    async def rest(self) -> None:
        """Wait, as a worker, for a lane to become ready."""
        if self.admission.waiters:
            self.admission.let_in(all_at_once=True)
        for engine in (self, *self.fellows):
            if engine.background.observers:
                engine.background.noticed()
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
        """Put a delivery without a key back into its lane when it is due; others go on meanwhile."""
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
        """Read back what a lane left on disk."""
        assert self.feed is not None
        lane.state = LOADING
        self.background.spawn(self.feed.reload(lane))

    def abandoned(self) -> None:
        """Take note that workers were cancelled from outside, as at the end of ``asyncio.run``."""
        self.router.stored = True  # nothing may go the direct way into lanes that nobody empties
        self.router.forget()

    # -- what others need of the engine ---------------------------------------------------------------

    def halt(self, consumer: Consumer, reason: str) -> None:
        """Stop one subscription where it is; the others go on."""
        told = storable(reason[:1000])  # it is written into the log, for others to read
        consumer.reason = f"halted at {told}; fix the cause, then restart the bus or call bus.resume()"
        self.set_aside(consumer, HALTED)
        self.report(SubscriptionHalted(consumer.name, consumer.reason))
        if self.feed is not None:
            self.feed.controls.note_halts()

    def set_aside(self, consumer: Consumer, state: str) -> None:
        """Empty a consumer's lanes until it is opened anew; running handlers are not touched."""
        consumer.state = state
        consumer.live = False
        self.pending -= consumer.drop_lanes()
        self.admission.let_in()
        self.background.noticed()

    def fenced(self, consumer: Consumer) -> None:
        """Let go of a subscription that another process took over."""
        assert self.feed is not None
        self.feed.leases.fenced(consumer)

    def halted_in(self, name: str) -> int | None:
        """Return the epoch in which a consumer stands halted; None where it does not."""
        consumer = self.consumers.get(name)
        return consumer.epoch if consumer is not None and consumer.state == HALTED else None

    def is_halted(self, name: str) -> bool:
        """Tell whether a subscription has halted here."""
        return self.halted_in(name) is not None

    async def resume(self, name: str, epoch: int | None) -> bool:
        """Let a consumer that halted in ``epoch`` go on; one taken up anew since may have halted again."""
        consumer = self.consumers.get(name)
        if consumer is None or epoch is None or self.halted_in(name) != epoch:
            return False
        if self.feed is not None:
            await self.feed.controls.resume(consumer)
        elif self.in_handler():
            self.background.spawn(self._go_on(consumer))
        else:
            await self._go_on(consumer)
        return True

    async def _go_on(self, consumer: Consumer) -> None:
        # What still runs would otherwise have its event, or the next of its key, handled beside it.
        await self.background.until(lambda: not consumer.in_flight)
        if consumer.state == HALTED:  # neither ended meanwhile, nor resumed by another call
            consumer.reason = ""
            consumer.state = ACTIVE
            self.router.forget()
            self.report(SubscriptionResumed(consumer.name))

    def note_parked(self, change: int) -> None:
        """Count dead letters that were made here, or are none any more (negative)."""
        self.parked += change
        if self.crew is not None:
            self.crew.note_parked(change)

    def report(self, report: Report) -> None:
        """Hand a report to every listener; one that raises is taken off."""
        self.listeners.tell(report)

    # -- life -----------------------------------------------------------------------------------------

    async def start(self, storage: EventStorage | None) -> None:
        """Open what is subscribed; with storage, begin to read. Nothing is handled before ``begin_work``."""
        await ended(self._outlived)
        self._loop = asyncio.get_running_loop()
        self.halting = self.cancelling = False
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
            consumer.drop_lanes()  # what a worker put back that ended after the stop
            consumer.state = ACTIVE if storage is None else STARTING
            consumer.reason = ""
        self.rewire()
        if self.feed is not None:
            await self.feed.start()
        if self.crew is not None:
            self.crew.fellows.append(self)

    def begin_work(self) -> None:
        """Start the workers, once the bus takes what handlers publish."""
        for slot in range(self.worker_count):
            worker = Worker(self, self._first_slot + slot)
            worker.task = asyncio.create_task(
                worker.run(), name=f"pabal-worker-{slot}", context=worker.context
            )
            self.workers.append(worker)

    async def stop(self, deadline: float) -> None:
        """Let running handlers end until ``deadline`` (monotonic), then cancel them; save progress."""
        self.halting = True
        if self._loop is not None and self._loop.is_closed():
            bury_work(self)
        for consumer in self.consumers.values():
            consumer.end_slices()
        while self.resting:
            self.wake()
        await end_work(self, deadline)
        self.timers.clear()
        self.watchdog.stop()
        if self.feed is None and self.pending:
            _log.warning("%d deliveries were unfinished when the bus stopped and are lost", self.pending)
        if self.feed is not None:
            await self.feed.stop()
            await save_last(self, self.feed, deadline)
            self.feed = None
        for consumer in self.consumers.values():
            consumer.drop_lanes()
            consumer.arrivals.state = IDLE  # ``ready`` is about to forget it
            consumer.tracker = None
            consumer.live = consumer.opened = False
            consumer.number = consumer.epoch = 0  # forgotten from now on, it is meant to begin anew
        if self.crew is None:
            self._outlived += [worker.task for worker in self.workers if not worker.task.done()]
            self.workers.clear()
            self.ready.clear()
        self.quarantine.reset()
        self.admission.end()
        if self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)
            self._executor = None
        self.background.noticed()
