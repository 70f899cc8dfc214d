"""Without a log, dead letters and the queues behind them outlive a subscription, a halt and a stop."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from pabal.domain.event import kind_of

if TYPE_CHECKING:
    from pabal.delivery.consumer import Consumer


def call_off(consumer: Consumer, positions: Collection[int]) -> None:
    """Forget the failed attempts at deliveries that end unfinished; let their dead letters be retried."""
    for position in positions:
        consumer.failing.pop(position, None)
    consumer.engine.dead_letters.cancel_retries(consumer.name, positions)  # there are none with a log


def call_off_waiting(consumer: Consumer) -> None:
    """Call off what waits in lanes that are about to be emptied, but not what a handler is running for.

    That one ends as any delivery does: if it succeeds, its dead letter is gone, although the subscription may
    have ended. With a log, the next opening decides about all of them.
    """
    failing = consumer.failing
    waiting = list(failing)
    if consumer.in_flight and consumer.tracker is None:
        in_lanes = (position for lane in consumer.all_lanes() for position, _ in lane.items)
        waiting = [position for position in (*consumer.delayed, *in_lanes) if position in failing]
    call_off(consumer, waiting)


def deliver_released(consumer: Consumer) -> None:
    """Deliver what is queued behind keys that no dead letter blocks any more.

    To be called when the subscription becomes active: a key may have been released while it was not.
    """
    for key in consumer.engine.dead_letters.queued_keys(consumer.name):
        if key not in consumer.blocked:
            deliver_queue(consumer, key)


def deliver_queue(consumer: Consumer, key: str) -> None:
    """Deliver what is queued behind a key, in order; what cannot be delivered now stays queued."""
    engine = consumer.engine
    while consumer.is_open(None) and not engine.halting:
        item = engine.dead_letters.take_queued(consumer.name, key)
        if item is None:
            return
        if consumer.wants(kind_of(item[1])):
            engine.accept(consumer, *item)
