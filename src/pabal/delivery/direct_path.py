"""The direct path of a delivery: from a subscription's arrivals straight to the handler."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pabal.delivery.arrivals import Arrivals
from pabal.delivery.context import current_event
from pabal.delivery.lane import RUNNING, Lane
from pabal.domain.event import DomainEvent

if TYPE_CHECKING:
    from pabal.delivery.worker import Worker


async def deliver_direct(worker: Worker, arrivals: Arrivals) -> None:
    """Make a slice of deliveries with nothing but the handler call between taking and counting them.

    Every name lookup and call in the loop costs time for each event; see the performance notes before adding
    one.
    """
    consumer = arrivals.consumer
    engine, handler, set_current = consumer.engine, consumer.handler, current_event.set
    arrivals.begin_slice(worker, consumer.slice)
    event: DomainEvent | None = None
    error: BaseException | None = None
    consumer.in_flight += 1
    try:
        for event in arrivals.remaining:
            set_current(event)
            await handler(event)
            engine.pending -= 1
    except BaseException as caught:
        error = caught
        arrivals.recall()
    consumer.in_flight -= 1
    consumer.figures.timed += arrivals.size
    consumer.figures.handled += arrivals.size - (error is not None)
    arrivals.worker = None
    if error is not None and event is not None:
        _after_failure(worker, arrivals, event, error)
    elif arrivals.lane is not None:
        worker.put_back(arrivals.lane)


def _after_failure(worker: Worker, arrivals: Arrivals, event: DomainEvent, error: BaseException) -> None:
    """Give the failed delivery a number and a lane, then handle its failure as usual."""
    engine = arrivals.consumer.engine
    engine.numbered += 1
    lane: Lane | None = arrivals.lane
    if lane is None:
        try:
            lane = arrivals.lane_of(event)
        except Exception as wrong:
            engine.pending -= 1
            engine.failures.reject(arrivals.consumer, engine.numbered, event, None, wrong)
            return
        if not lane.shared:
            lane.state = RUNNING
    worker.after_failure(lane, arrivals.consumer, (engine.numbered, event), error)
