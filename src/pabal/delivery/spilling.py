"""Leave the tail of a long lane on disk, if one busy key takes the room of other keys in memory."""

from __future__ import annotations

from pabal.delivery.buffers import BUFFER_LOW
from pabal.delivery.consumer import Consumer

SPILL_KEEP = 64
SPILL_MOST = 1_000_000


def has_room(consumer: Consumer, most: int) -> bool:
    """Return whether a consumer holds less than ``most``, after spilling what it can.

    Every commit asks this about a full consumer, so the lanes are not searched again until its figures
    change.
    """
    assert consumer.tracker is not None
    held = (consumer.tracker.seen, consumer.queued, consumer.spilled, len(consumer.redelivering))
    if held != consumer.crowded:
        consumer.crowded = None if _make_room(consumer) else held
    return consumer.queued < most


def _make_room(consumer: Consumer) -> bool:
    """Spill the tail of the longest lane; False if that would not help other keys."""
    lanes = [lane for lane in consumer.all_lanes() if len(lane.items) > SPILL_KEEP and not lane.shared]
    if not lanes or consumer.spilled >= SPILL_MOST:
        return False
    longest = max(lanes, key=lambda lane: len(lane.items))
    others = consumer.queued - len(longest.items)
    if consumer.subscription.batch is not None or others + BUFFER_LOW > consumer.queued:
        return False  # one busy lane alone is no reason to spill: the subscription simply lags
    gone = longest.spill(SPILL_KEEP)
    consumer.queued -= gone
    consumer.spilled += gone
    consumer.engine.pending -= gone
    return True
