"""The direct path of a delivery: from a subscription's arrivals straight to the handler."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Any

from pabal.delivery.arrivals import Arrivals, EventArrivals, LogArrivals
from pabal.delivery.consumer import ACTIVE
from pabal.delivery.context import current_event
from pabal.delivery.fast_path import LONG
from pabal.delivery.lane import RUNNING, Item, Lane
from pabal.domain.event import DomainEvent

if TYPE_CHECKING:
    from pabal.delivery.worker import Worker


async def deliver_direct(worker: Worker, arrivals: EventArrivals) -> None:
    """Make a slice of deliveries with nothing but the handler call between taking and counting them.

    Every name lookup and call in the loop costs time for each event; see the performance notes before adding
    one.
    """
    consumer = arrivals.consumer
    engine, handler, set_current = consumer.engine, consumer.handler, current_event.set
    arrivals.begin_slice(worker, consumer.slice)
    event: DomainEvent | None = None
    error: BaseException | None = None
    try:
        for event in arrivals.remaining:
            set_current(event)
            await handler(event)
            engine.pending -= 1
    except BaseException as caught:
        error = caught
        arrivals.recall()
    arrivals.end_slice(failed=error is not None)
    if error is not None and event is not None:
        engine.numbered += 1
        _after_failure(worker, arrivals, (engine.numbered, event), error)
    elif arrivals.lane is not None:
        worker.put_back(arrivals.lane)


async def deliver_direct_stored(worker: Worker, arrivals: LogArrivals) -> None:
    """Make a slice of deliveries like ``deliver_direct``, and record attempts and progress."""
    consumer = arrivals.consumer
    engine, handler, set_current = consumer.engine, consumer.handler, current_event.set
    tracker, journal, number, slot = consumer.tracker, consumer.journal, consumer.number, worker.slot
    assert tracker is not None
    dirty, until = engine.settlement.dirty, perf_counter() + LONG
    arrivals.begin_slice(worker, consumer.slice)
    item: Item | None = None
    error: BaseException | None = None
    try:
        for item in arrivals.remaining:
            position, event = item
            if journal is not None:
                journal.begin(slot, number, position, position, 1)
            set_current(event)
            await handler(event)
            if journal is not None:
                journal.end(slot)
            engine.pending -= 1
            if consumer.tracker is not tracker:
                break
            consumer.queued -= 1
            tracker.finish(position)
            if consumer not in dirty:
                consumer.mark_progress()  # the next handler may wait for long
            if perf_counter() > until:
                arrivals.recall()  # the slice ends; handlers that were quick before may be slow now
    except BaseException as caught:
        error = caught
        if journal is not None:
            journal.end(slot)
        arrivals.recall()
    arrivals.end_slice(failed=error is not None)
    if consumer.tracker is not tracker:
        # Taken over or reopened while the handler ran: not ours to record.
        engine.pending -= error is not None
        worker.raise_if_ending(error)
        return
    consumer.mark_progress()
    if error is not None and item is not None:
        _after_failure(worker, arrivals, item, error)
        return
    if consumer.followed and item is not None:
        consumer.mark_attempted(item[0])  # another lane began to wait for it during this very delivery
    if arrivals.lane is not None:
        worker.put_back(arrivals.lane)


def _after_failure(worker: Worker, arrivals: Arrivals[Any], item: Item, error: BaseException) -> None:
    """Give the failed delivery a lane, then handle its failure as usual."""
    consumer = arrivals.consumer
    lane: Lane | None = arrivals.lane
    if lane is None:
        try:
            lane = arrivals.lane_of(item[1])
        except Exception as wrong:
            worker.raise_if_ending(error)
            consumer.engine.pending -= 1
            if consumer.state == ACTIVE:  # else it ended while the handler ran, as in ``Worker``: no retry
                consumer.queued -= consumer.tracker is not None
                consumer.engine.failures.reject(consumer, *item, None, wrong)
            return
        if not lane.shared:
            lane.state = RUNNING
    worker.after_failure(lane, consumer, item, error)
