"""The fast path for deliveries that are in a lane: call the handler with nothing around it."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING

from pabal.delivery.arrivals import Arrivals
from pabal.delivery.consumer import ACTIVE, Consumer
from pabal.delivery.context import current_event
from pabal.delivery.lane import RUNNING, Item, Lane

if TYPE_CHECKING:
    from pabal.delivery.worker import Worker

LONG = 0.0005
"""Seconds after which a slice takes no further lane: its time is used up, or a handler waits."""


async def deliver_fast(worker: Worker, lane: Lane, consumer: Consumer) -> None:
    """Make a slice of a lane's deliveries on a bus without storage; ``deliver_direct`` does even less."""
    engine = worker.engine
    figures = consumer.figures
    items = lane.items
    handler = consumer.handler
    set_current = current_event.set
    failing = consumer.failing
    worker.occupy(lane)
    item: Item | None = None
    left = size = consumer.slice
    consumer.in_flight += 1
    try:
        while items and left:
            left -= 1
            item = items.popleft()
            event = item[1]
            set_current(event)
            await handler(event)
            if failing:
                # Other deliveries of the subscription have failed, and this one may have failed before.
                engine.failures.succeeded(lane, consumer, [item])
                consumer.finish(item[0])
            engine.pending -= 1
    except BaseException as error:
        assert item is not None
        figures.handled -= 1
        worker.after_failure(lane, consumer, item, error)
    else:
        worker.put_back(lane)
    finally:
        consumer.in_flight -= 1
        figures.timed += size - left
        figures.handled += size - left


async def deliver_fast_stored(worker: Worker, lane: Lane, consumer: Consumer) -> None:
    """Make a slice like ``deliver_fast``, of several lanes if need be, and record attempts and progress.

    Used while no delivery of the subscription has failed; the first failure ends the slice.
    """
    engine = worker.engine
    tracker, journal = consumer.tracker, consumer.journal
    assert tracker is not None
    items, failing = lane.items, consumer.failing
    slot, number, handler = worker.slot, consumer.number, consumer.handler
    worker.occupy(lane)
    left = consumer.slice
    error: BaseException | None = None
    item: Item | None = None
    until = perf_counter() + LONG
    consumer.in_flight += 1
    while True:
        size = left
        while items and left and not failing:
            left -= 1
            item = items.popleft()
            position, event = item
            if journal is not None:
                journal.begin(slot, number, position, position, 1)
            current_event.set(event)
            try:
                await handler(event)
            except BaseException as caught:
                error = caught
            if journal is not None:
                journal.end(slot)
            if error is not None or consumer.tracker is not tracker:
                break
            engine.pending -= 1
            consumer.queued -= 1
            tracker.finish(position)
        consumer.figures.timed += size - left
        consumer.figures.handled += size - left - (error is not None)
        if consumer.tracker is not tracker:
            engine.pending -= 1  # taken over or reopened while the handler ran: not ours to record
            break
        consumer.mark_progress()
        if error is not None and item is not None:
            consumer.in_flight -= 1
            worker.after_failure(lane, consumer, item, error)
            return
        if consumer.followed and item is not None:
            consumer.mark_attempted(item[0])  # another lane began to wait for it during this very delivery
        following = _next_of(consumer) if left and not failing and perf_counter() < until else None
        worker.put_back(lane)
        if following is None:
            break
        lane, items = following, following.items
    consumer.in_flight -= 1
    worker.raise_if_ending(error)


def _next_of(consumer: Consumer) -> Lane | None:
    """Take the next ready lane if the slice may go on with it: with many keys, most lanes hold one event.

    Returns None if the reasons for the fast path have changed, or the next lane belongs to another
    subscription.
    """
    engine = consumer.engine
    if not engine.ready or engine.halting or engine.quarantine.active:
        return None
    if (
        not consumer.is_fast
        or consumer.state != ACTIVE
        or consumer.replay is not None
        or consumer.redelivering
    ):
        return None
    lane = engine.ready[0]
    if isinstance(lane, Arrivals) or lane.consumer is not consumer or lane.shared:
        return None
    engine.ready.popleft()
    if engine.ready and engine.resting:
        engine.wake()
    lane.state = RUNNING
    return lane
