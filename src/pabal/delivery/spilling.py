"""Leave on disk what one busy key has in memory, where it takes the room of others."""

from __future__ import annotations

from pabal.delivery.buffers import BUFFER_LOW
from pabal.delivery.consumer import Consumer

SPILL_KEEP = 64
SPILL_MOST = 1_000_000


def has_room(consumer: Consumer, most: int) -> bool:
    """Tell whether a consumer holds less than ``most``, after leaving on disk what can be of it.

    Every commit asks this for one that is full, so its lanes are looked at once for what it holds.
    """
    assert consumer.tracker is not None
    held = (consumer.tracker.seen, consumer.queued, consumer.spilled, len(consumer.outside))
    if held != consumer.crowded:
        consumer.crowded = None if _make_room(consumer) else held
    return consumer.queued < most


def _make_room(consumer: Consumer) -> bool:
    """Leave the tail of the longest lane on disk; False where that would help no other key."""
    lanes = [lane for lane in consumer.all_lanes() if len(lane.items) > SPILL_KEEP and not lane.shared]
    if not lanes or consumer.spilled >= SPILL_MOST:
        return False
    longest = max(lanes, key=lambda lane: len(lane.items))
    others = consumer.queued - len(longest.items)
    if consumer.subscription.batch is not None or others + BUFFER_LOW > consumer.queued:
        return False  # a single busy lane is no reason: the subscription simply lags
    gone = longest.spill(SPILL_KEEP)
    consumer.queued -= gone
    consumer.spilled += gone
    consumer.engine.pending -= gone
    return True
