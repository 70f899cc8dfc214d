"""One attempt at a delivery or a batch: ``where`` filter, context, time limit, handler."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from pabal.delivery.consumer import Consumer
from pabal.delivery.context import BatchMark, DeliveryContext, current_event
from pabal.delivery.handler import plain_result
from pabal.delivery.lane import Item, Lane
from pabal.domain.event import DomainEvent, body_of, copy_if_mutable

if TYPE_CHECKING:
    from pabal.delivery.worker import Worker


async def make_attempt(
    worker: Worker, consumer: Consumer, lane: Lane, items: list[Item], attempt: int
) -> None:
    """Call the handler with the events that pass ``where``. Raises what it raises, or TimeoutError."""
    subscription = consumer.subscription
    position, event = items[-1]
    batch = subscription.batch is not None
    current_event.set(BatchMark() if batch else event)
    wanted = items
    if subscription.where is not None:
        wanted = [item for item in items if plain_result("where", subscription.where(body_of(item[1])))]
        consumer.figures.filtered += len(items) - len(wanted)
        if not wanted:
            return
    argument: Any = (
        [_handler_argument(consumer, one) for _, one in wanted]
        if batch
        else _handler_argument(consumer, event)
    )
    if consumer.calls_directly and subscription.timeout is None:
        await consumer.handler(argument)
    else:
        context = consumer.context_of(position, event, attempt, lane.key)
        if subscription.timeout is None:
            await consumer.call(argument, context)
        else:
            await _call_with_timeout(worker, consumer, argument, context, subscription.timeout)
    consumer.figures.handled += len(wanted)


def _handler_argument(consumer: Consumer, event: DomainEvent) -> Any:
    """Return the handler's argument, copied if needed: a change to it reaches no other handler or attempt."""
    return body_of(copy_if_mutable(event) if consumer.copies_events else event)


async def _call_with_timeout(
    worker: Worker, consumer: Consumer, argument: Any, context: DeliveryContext, timeout: float
) -> None:
    """Call the handler with a time limit; the watchdog cancels the worker's task when it is exceeded."""
    worker.expired = False
    worker.engine.watchdog.watch(worker, timeout)
    try:
        await consumer.call(argument, context)
    except asyncio.CancelledError as error:
        if worker.expired and not worker.engine.cancelling:
            raise TimeoutError(f"no result within {timeout} s") from error
        raise
    finally:
        worker.deadline = None
        if worker.expired:
            worker.task.uncancel()
