"""A lane: the deliveries of one subscription and one key, in publish order."""

from __future__ import annotations

from array import array
from collections import deque
from typing import TYPE_CHECKING, Any

from pabal.domain.event import DomainEvent

if TYPE_CHECKING:
    from pabal.delivery.consumer import Consumer

IDLE = 0
"""Empty; nobody looks at it."""
READY = 1
"""In the queue of lanes that wait for a worker."""
RUNNING = 2
"""A worker has it."""
WAITING = 3
"""Its first delivery failed and is not due again yet."""
GATED = 4
"""Its first delivery waits for the first attempt of a lower priority number."""
LOADING = 5
"""Its next deliveries are being read back from the log."""

Item = tuple[int, DomainEvent]


class Lane:
    """Hold deliveries that are made one at a time, first in first out.

    A *shared* lane is for deliveries without a key: several workers may take from it at once.
    """

    __slots__ = ("consumer", "isolate", "items", "key", "shared", "spilled", "state")

    def __init__(self, consumer: Consumer, key: Any, *, shared: bool = False) -> None:
        self.consumer = consumer
        self.key = key
        self.items: deque[Item] = deque()
        self.state = IDLE
        self.shared = shared
        self.isolate = 0
        """How many deliveries at the front are to be made singly, after their batch was given up."""
        self.spilled: array[int] | None = None
        """Positions that come after ``items`` and are left on disk until there is room."""

    def spill(self, keep: int) -> int:
        """Leave everything behind the first ``keep`` of more items on disk; return how many went."""
        gone = len(self.items) - keep
        tail = [self.items.pop()[0] for _ in range(gone)]
        tail.reverse()
        self.spilled = array("q", tail) + (self.spilled or array("q"))
        return gone
