"""How far a subscription has come, when events finish in any order."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from pabal.delivery.buffers import SAVED_OFTEN


class WatermarkTracker:
    """Keep the lowest unfinished position among those that were dispatched.

    Positions are added in ascending order and finished in any. Amortised O(1) for both.

    >>> tracker = WatermarkTracker(after=10)
    >>> for position in (11, 12, 13):
    ...     tracker.add(position)
    >>> tracker.finish(12); tracker.watermark
    10
    >>> tracker.finish(11); tracker.watermark
    12
    """

    __slots__ = ("_above", "_order", "_top", "seen")

    def __init__(self, after: int) -> None:
        self._order: deque[int] = deque()
        """Unfinished positions ascending, and among them finished ones that were not swept out yet."""
        self._above: set[int] = set()
        """The finished positions that are still in ``_order``."""
        self._top = after
        """The highest position finished."""
        self.seen = after
        """Every position up to here was dispatched, or needed no dispatch."""

    @classmethod
    def resume(cls, frontier: int, unfinished: Iterable[int]) -> WatermarkTracker:
        """Go on where a saved snapshot stopped."""
        tracker = cls(after=frontier)
        tracker._order.extend(unfinished)
        return tracker

    def __len__(self) -> int:
        """Return the number of unfinished positions."""
        return len(self._order) - len(self._above)

    def add(self, position: int) -> None:
        """Note a dispatched position, higher than all before."""
        self._order.append(position)
        self.seen = position

    def finish(self, position: int) -> None:
        """Note that a dispatched position is finished."""
        if position > self._top:
            self._top = position
        order, above = self._order, self._above
        if order[0] != position:
            above.add(position)
            # Sweeping once half of the queue is finished keeps memory at the unfinished ones, and the
            # cost of a sweep is paid for by the finishes since the last one.
            if len(above) > 1024 and len(above) * 2 > len(order):
                self._order = deque(p for p in order if p not in above)
                above.clear()
            return
        order.popleft()
        while above and order[0] in above:
            above.discard(order.popleft())

    def unfinished(self) -> list[int]:
        """Return the unfinished positions, ascending."""
        return [position for position in self._order if position not in self._above]

    @property
    def watermark(self) -> int:
        """Return the position up to which everything is finished."""
        return self._order[0] - 1 if self._order else self.seen

    def snapshot(self, most: int = SAVED_OFTEN) -> tuple[int, int, tuple[int, ...]]:
        """Return (watermark, frontier, unfinished): all up to frontier is finished but the unfinished.

        The frontier is the highest finished position, so work that merely waits takes no room. With more
        than ``most`` unfinished positions below it, the frontier is drawn back to leave ``most``: what was
        finished above it is delivered again.
        """
        if not self._order:
            return self.seen, self.seen, ()
        watermark = self._order[0] - 1
        if self._top <= watermark:
            return watermark, watermark, ()
        frontier = self._top
        unfinished: list[int] = []
        for position in self._order:
            if position > frontier:
                break
            if position not in self._above:
                if len(unfinished) == most:
                    frontier = position - 1
                    break
                unfinished.append(position)
        return watermark, frontier, tuple(unfinished)
