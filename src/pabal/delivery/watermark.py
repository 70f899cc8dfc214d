"""The watermark: how far a subscription has come, although its events finish in any order."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from pabal.delivery.buffers import SAVED_OFTEN


class WatermarkTracker:
    """Track dispatched positions and the watermark, the position up to which all are finished.

    Positions are added in ascending order and finished in any order; both take amortised O(1).

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
        """The unfinished positions, ascending; finished ones among them stay until they are swept out."""
        self._above: set[int] = set()
        """Finished positions that are still in ``_order``."""
        self._top = after
        """The highest finished position."""
        self.seen = after
        """Every position up to here was dispatched or needed no dispatch."""

    @classmethod
    def resume(cls, frontier: int, unfinished: Iterable[int]) -> WatermarkTracker:
        """Continue from a saved snapshot."""
        tracker = cls(after=frontier)
        tracker._order.extend(unfinished)
        return tracker

    def __len__(self) -> int:
        """Return the number of unfinished positions."""
        return len(self._order) - len(self._above)

    def add(self, position: int) -> None:
        """Record that a position was dispatched; it must be higher than all before."""
        self._order.append(position)
        self.seen = position

    def finish(self, position: int) -> None:
        """Record that a dispatched position is finished."""
        if position > self._top:
            self._top = position
        order, above = self._order, self._above
        if order[0] != position:
            above.add(position)
            # Sweeping when half of the queue is finished keeps memory proportional to the unfinished
            # positions; the
            # finishes since the last sweep pay for its cost.
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
        """Return (watermark, frontier, unfinished): up to the frontier, all but ``unfinished`` is finished.

        The frontier is the highest finished position, so deliveries above it, which merely wait, need not be
        listed. If more than ``most`` positions below it are unfinished, the frontier is lowered until
        ``most`` remain; whatever was finished above it is then delivered again.
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
