"""How long attempts take, as a histogram in steps of 6 %: small, exact enough, and cheap to add to."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil, frexp, ldexp

_RECENT = 30.0
"""The least number of seconds that recent figures cover."""


class Histogram:
    """Count durations in eight steps for each power of two.

    >>> histogram = Histogram()
    >>> for milliseconds in (1, 2, 3, 4, 100):
    ...     histogram.add(milliseconds / 1000)
    >>> low, high = quantiles(histogram.counts, 0.5, 0.99)
    >>> 0.0028 < low < 0.0032, 0.094 < high < 0.106
    (True, True)
    """

    __slots__ = ("_before", "_mark", "_marked_at", "counts")

    def __init__(self) -> None:
        self.counts: dict[int, int] = {}
        self._before: dict[int, int] = {}
        self._mark: dict[int, int] = {}
        self._marked_at = 0.0

    def add(self, seconds: float, times: int = 1) -> None:
        """Count a duration, ``times`` times."""
        if seconds > 0.0:
            mantissa, exponent = frexp(seconds)
            step = (exponent << 3) + int(mantissa * 16)
            counts = self.counts
            counts[step] = counts.get(step, 0) + times

    def recent(self, now: float) -> dict[int, int]:
        """Return the counts of the last 30 to 60 seconds; ``now`` is a monotonic time in seconds.

        The window only moves when this is called, so the first answer covers everything so far.
        """
        if now - self._marked_at >= _RECENT:
            self._before, self._mark, self._marked_at = self._mark, dict(self.counts), now
        return since(self.counts, self._before)


def since(counts: Mapping[int, int], before: Mapping[int, int]) -> dict[int, int]:
    """Return the counts added since ``before`` was copied."""
    return {step: more for step, count in counts.items() if (more := count - before.get(step, 0))}


def quantiles(counts: Mapping[int, int], *shares: float) -> list[float | None]:
    """Return the quantile in seconds for each share (ascending, as 0.5, 0.99), or None without counts."""
    total = sum(counts.values())
    if not total:
        return [None] * len(shares)
    ordered = sorted(counts.items())
    found: list[float | None] = []
    index, seen = 0, ordered[0][1]
    for share in shares:
        while seen < ceil(share * total):
            index += 1
            seen += ordered[index][1]
        found.append(_middle(ordered[index][0]))
    return found


def _middle(step: int) -> float:
    """Return the middle of a step, in seconds."""
    exponent = (step - 8) >> 3
    return ldexp((step - (exponent << 3) + 0.5) / 16, exponent)
