"""A lane: deliveries with the same subscription and key, in publish order."""

from __future__ import annotations

from array import array
from collections import deque
from typing import TYPE_CHECKING, Any

from pabal.domain.event import DomainEvent

if TYPE_CHECKING:
    from pabal.delivery.consumer import Consumer

IDLE = 0
"""Empty, and not queued."""
READY = 1
"""Queued for the workers."""
RUNNING = 2
"""Taken by a worker."""
WAITING = 3
"""Its first delivery failed and its retry is not due yet."""
GATED = 4
"""Its first delivery waits for a lower priority number to attempt the event first."""
LOADING = 5
"""Its next deliveries are being read back from the log."""

Item = tuple[int, DomainEvent]


class Lane:
    """Hold deliveries that are made one at a time, first in first out.

    A *shared* lane holds deliveries without a key: several workers may take from it at once.
    """

    __slots__ = ("consumer", "isolate", "items", "key", "shared", "spilled", "state")

    def __init__(self, consumer: Consumer, key: Any, *, shared: bool = False) -> None:
        self.consumer = consumer
        self.key = key
        self.items: deque[Item] = deque()
        self.state = IDLE
        self.shared = shared
        self.isolate = 0
        """How many deliveries at the front are attempted one by one, because their batch was given up."""
        self.spilled: array[int] | None = None
        """Positions after those in ``items``, left on disk until there is room for them."""

    def spill(self, keep: int) -> int:
        """Leave everything after the first ``keep`` items on disk; return how many were removed."""
        gone = len(self.items) - keep
        tail = [self.items.pop()[0] for _ in range(gone)]
        tail.reverse()
        self.spilled = array("q", tail) + (self.spilled or array("q"))
        return gone
