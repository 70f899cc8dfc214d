"""A worker: it takes a ready lane, makes a slice of the lane's deliveries, and takes the next lane."""

from __future__ import annotations

import asyncio
from contextvars import Context
from itertools import islice
from time import perf_counter
from typing import TYPE_CHECKING

from pabal.delivery.arrivals import Arrivals, EventArrivals, LogArrivals
from pabal.delivery.attempt import make_attempt
from pabal.delivery.consumer import ACTIVE, Consumer
from pabal.delivery.context import current_event
from pabal.delivery.direct_path import deliver_direct, deliver_direct_stored
from pabal.delivery.failure import Verdict
from pabal.delivery.fast_path import deliver_fast, deliver_fast_stored
from pabal.delivery.lane import IDLE, READY, RUNNING, Item, Lane
from pabal.delivery.letters_in_memory import call_off

if TYPE_CHECKING:
    from pabal.delivery.engine import Engine

_TURN = 0.001
"""Seconds a worker keeps the event loop before it yields, with handlers that never wait."""
_SLICE_MOST = 256
_SORT_MOST = 2048
"""Events sorted at once, within a turn: the more there are, the longer the slices of each lane become."""


class Worker:
    """Make deliveries, one at a time, while the engine runs."""

    __slots__ = ("_burst", "context", "deadline", "engine", "expired", "slot", "task")

    def __init__(self, engine: Engine, slot: int) -> None:
        self.engine = engine
        self.slot = slot
        self.deadline: float | None = None
        self.expired = False
        self.context = Context()
        """The context of the worker's task; its ``current_event`` is the event being handled."""
        self.task: asyncio.Task[None]
        self._burst = 0.0

    async def run(self) -> None:
        """Make deliveries until the engine stops."""
        home = self.engine
        if not hasattr(self, "task"):
            await asyncio.sleep(0)  # an eager task factory started this inside ``start()``
        try:
            await self._work(home)
        finally:
            if not home.halting:
                home.on_workers_cancelled()

    async def _work(self, home: Engine) -> None:
        ready = home.ready
        while not home.halting:
            if not ready:
                self._burst = 0.0
                current_event.set(None)
                await home.rest()
                continue
            lane = ready.popleft()
            if ready and home.resting:
                home.wake()
            consumer = lane.consumer
            # The engine it works for until it leaves this lane: its own, or one that shares its workers.
            engine = self.engine = consumer.engine
            if consumer.state != ACTIVE or engine.halting:
                lane.state = IDLE
                continue
            if isinstance(lane, Arrivals):
                lane.state = IDLE
                if not len(lane):
                    continue  # another worker has sorted or handled everything since this was queued
            elif engine.quarantine.active and not engine.quarantine.admits(lane):
                continue
            started = perf_counter()
            figures = consumer.figures
            before = figures.timed
            if isinstance(lane, Lane):
                await self._make_slice(lane, consumer)
            elif not lane.can_deliver_direct():
                lane.sort_into_lanes(_SORT_MOST)
            elif isinstance(lane, EventArrivals):
                await deliver_direct(self, lane)
            elif isinstance(lane, LogArrivals):
                await deliver_direct_stored(self, lane)
            elapsed = perf_counter() - started
            figures.busy_seconds += elapsed
            made = figures.timed - before
            if made:
                figures.durations.add(elapsed / made, made)
            self._adapt(consumer, made, elapsed)
            if engine.quarantine.active:
                engine.quarantine.settle()
            if engine.admission.waiters:
                engine.admission.admit()
            if consumer.state != ACTIVE or engine.halting:
                engine.background.notify_observers()
            self._burst += elapsed
            if self._burst > _TURN:
                self._burst = 0.0
                current_event.set(None)  # tasks the handler left behind are not inside of it any more
                await asyncio.sleep(0)

    async def _make_slice(self, lane: Lane, consumer: Consumer) -> None:
        if consumer.is_fast and consumer.tracker is None:
            await deliver_fast(self, lane, consumer)
        elif (
            consumer.is_fast
            and consumer.replay is None
            and not consumer.failing
            and not consumer.redelivering
        ):
            await deliver_fast_stored(self, lane, consumer)
        elif lane.shared:
            await self._deliver_shared(lane, consumer)
        elif consumer.subscription.batch is not None:
            await self._deliver_batches(lane, consumer)
        else:
            await self._deliver_ordered(lane, consumer)

    def _adapt(self, consumer: Consumer, made: int, elapsed: float) -> None:
        """Double the slice while slices are short and halve it when they are long, around half a turn."""
        if elapsed > _TURN:
            consumer.slice = max(1, consumer.slice >> 1)
        elif made >= consumer.slice and elapsed < _TURN / 2:
            consumer.slice = min(_SLICE_MOST, consumer.slice << 1)

    # -- for the fast and the full path ---------------------------------------------------------------

    def after_failure(self, lane: Lane, consumer: Consumer, item: Item, error: BaseException) -> None:
        """Handle a failure on the fast path; raise the error if it ends the worker."""
        if self._ends_worker(error):
            self._return_unfinished(lane, consumer, [item])
            raise error
        if self._handle_failure(lane, consumer, [item], self._attempt_number(consumer, item[0]), error):
            self.put_back(lane)

    def raise_if_ending(self, error: BaseException | None) -> None:
        """Raise an error if it ends the worker; drop any other, of a delivery that was taken over."""
        if error is not None and self._ends_worker(error):
            raise error

    # -- the full path --------------------------------------------------------------------------------

    async def _deliver_ordered(self, lane: Lane, consumer: Consumer) -> None:
        items = lane.items
        lane.state = RUNNING
        left = consumer.slice
        while items and left and consumer.state == ACTIVE:
            left -= 1
            if (consumer.failing or consumer.predecessors) and self._must_wait(lane, consumer, items[0]):
                return
            if not await self._deliver(lane, consumer, [items.popleft()]):
                return
        self.put_back(lane)

    async def _deliver_shared(self, lane: Lane, consumer: Consumer) -> None:
        items = lane.items
        self.occupy(lane)
        left = consumer.slice
        while items and left and consumer.state == ACTIVE:
            left -= 1
            item = items.popleft()
            failing = consumer.failing.get(item[0]) if consumer.failing else None
            if failing is not None:
                delay = failing.due - self.engine.clock.monotonic()
                if delay > 0:
                    self.engine.return_later(lane, item, delay)
                    continue
            if consumer.predecessors:
                blocker = consumer.find_blocker(*item)
                if blocker is not None:
                    # It waits in a lane of its own, so that the rest of the shared lane can go on.
                    solo_lane = Lane(consumer, lane.key)
                    solo_lane.items.append(item)
                    consumer.solo_lanes.add(solo_lane)
                    blocker.hold(item[0], solo_lane)
                    continue
            await self._deliver(lane, consumer, [item])
        self.put_back(lane)

    async def _deliver_batches(self, lane: Lane, consumer: Consumer) -> None:
        items = lane.items
        lane.state = RUNNING
        size = consumer.subscription.batch or 1
        left = consumer.slice
        while items and left and consumer.state == ACTIVE:
            left -= 1
            if self._must_wait(lane, consumer, items[0]):
                return
            count = 1 if lane.isolate else min(size, len(items))
            if consumer.predecessors:
                count = self._count_unblocked(consumer, lane, count)
            batch = [items.popleft() for _ in range(count)]
            if not await self._deliver(lane, consumer, batch):
                return
            if lane.isolate:
                lane.isolate -= 1
        self.put_back(lane)

    def _count_unblocked(self, consumer: Consumer, lane: Lane, count: int) -> int:
        """Return how many of the next ``count`` deliveries may be made by priority; the first one may."""
        for index, item in enumerate(islice(lane.items, count)):
            if consumer.find_blocker(*item) is not None:
                return index
        return count

    def _must_wait(self, lane: Lane, consumer: Consumer, item: Item) -> bool:
        """Set a lane aside if its first delivery is not due yet, or a lower priority number goes first."""
        if consumer.failing:
            failing = consumer.failing.get(item[0])
            if failing is not None:
                delay = failing.due - self.engine.clock.monotonic()
                if delay > 0:
                    self.engine.wait(lane, delay)
                    return True
        if consumer.predecessors:
            blocker = consumer.find_blocker(*item)
            if blocker is not None:
                blocker.hold(item[0], lane)
                return True
        return False

    async def _deliver(self, lane: Lane, consumer: Consumer, items: list[Item]) -> bool:
        """Make one attempt; return whether the worker goes on with the lane (False: it was set aside)."""
        tracker = consumer.tracker
        first = items[0][0]
        attempt = self._attempt_number(consumer, first)
        policy = consumer.subscription.retry
        error: BaseException | None = None
        excess = attempt - policy.max_attempts - bool(lane.isolate)
        if excess > 0 and not self.engine.quarantine.allows_extra_attempt(consumer, first, excess):
            return self.engine.failures.exhausted(lane, consumer, items)
        journal = consumer.journal
        if journal is not None:
            journal.begin(self.slot, consumer.number, first, items[-1][0], attempt)
        consumer.in_flight += 1
        try:
            await make_attempt(self, consumer, lane, items, attempt)
        except BaseException as caught:
            if self._ends_worker(caught):
                self._return_unfinished(lane, consumer, items)
                raise
            error = caught
        finally:
            consumer.in_flight -= 1
            consumer.figures.timed += len(items)
            if journal is not None:
                journal.end(self.slot)
        if consumer.tracker is not tracker:
            # The subscription was taken over or reopened in the meantime: its progress is not ours to record.
            self.engine.pending -= len(items)
            return False
        if error is not None:
            return self._handle_failure(lane, consumer, items, attempt, error)
        if consumer.failing or consumer.redelivering:
            self.engine.failures.succeeded(lane, consumer, items)
        consumer.finish_all(items)
        if consumer.followed:
            for position, _ in items:
                consumer.mark_attempted(position)
        self.engine.pending -= len(items)
        return True

    # -- afterwards -----------------------------------------------------------------------------------

    def _attempt_number(self, consumer: Consumer, position: int) -> int:
        failing = consumer.failing.get(position) if consumer.failing else None
        return 1 if failing is None else failing.attempts + 1

    def _ends_worker(self, error: BaseException) -> bool:
        """Return whether an error ends the worker, rather than being a failure of the handler."""
        if isinstance(error, asyncio.CancelledError):
            # An engine that shares its workers with other engines may be stopping alone.
            ending = self.engine.cancelling and self.engine.host is None
            return ending or bool(self.task.cancelling())
        if isinstance(error, GeneratorExit):
            return not self._is_running()  # thrown in from outside, while the task does not run
        return isinstance(error, (KeyboardInterrupt, SystemExit))

    def _is_running(self) -> bool:
        try:
            return asyncio.current_task() is self.task
        except RuntimeError:
            return False

    def _handle_failure(
        self, lane: Lane, consumer: Consumer, items: list[Item], attempt: int, error: BaseException
    ) -> bool:
        if consumer.state != ACTIVE:
            self.engine.pending -= len(items)  # the subscription ended while the handler ran: no retry
            call_off(consumer, [position for position, _ in items])
            return False
        verdict = self.engine.failures.failed(lane, consumer, items, attempt, error)
        if consumer.followed:
            for position, _ in items:
                consumer.mark_attempted(position)
        return verdict is Verdict.GO_ON

    def _return_unfinished(self, lane: Lane, consumer: Consumer, items: list[Item]) -> None:
        """Put deliveries back into their lane, because this worker ends before their handler has."""
        if consumer.state == ACTIVE:  # else the lane was given up, and another worker may be going on with it
            lane.items.extendleft(reversed(items))
        if consumer.tracker is None:
            call_off(consumer, [position for position, _ in items])

    def occupy(self, lane: Lane) -> None:
        """Mark a lane as taken; a shared lane is queued again, for other workers."""
        if not lane.shared:
            lane.state = RUNNING
        elif len(lane.items) > 1:
            lane.state = READY
            self.engine.ready.append(lane)
            if self.engine.resting:
                self.engine.wake()
        else:
            lane.state = IDLE

    def put_back(self, lane: Lane) -> None:
        """Leave a lane: queue it again if it holds more, or read back its tail from disk."""
        if lane.shared:
            if lane.items and lane.state != READY:
                self.engine.make_ready(lane)
        elif lane.items:
            lane.state = READY
            self.engine.ready.append(lane)
        elif lane.spilled is not None:
            self.engine.reload(lane)
        else:
            lane.state = IDLE
            if lane.consumer.solo_lanes:
                lane.consumer.solo_lanes.discard(lane)
