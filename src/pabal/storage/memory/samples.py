"""The newest samples of a bus's activity, and the time series computed from them and the log."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from pabal.ports.samples import Sample, Series, filled

if TYPE_CHECKING:
    from pabal.delivery.dead_letters import MemoryDeadLetters
    from pabal.domain.envelope import StoredRecord
    from pabal.storage.memory.subscriptions import MemorySubscriptions

KEPT = 2048
"""Number of samples kept: more than five hours of one bus."""
_SECOND = 1_000_000


class MemorySamples:
    """Implement ``SampleStore``; a part of ``InMemoryEventStorage``, which owns the rows."""

    if TYPE_CHECKING:
        _rows: list[StoredRecord]
        _letters: MemoryDeadLetters
        _subscriptions: MemorySubscriptions
        _samples: deque[tuple[Sample, int, int]]

    async def record_sample(self, sample: Sample) -> None:
        """Store a sample, together with the current number of retries and dead letters."""
        self._samples.append((sample, self._subscriptions.count_retries(), len(self._letters)))

    async def latest_samples(self, since: int) -> list[Sample]:
        """Return the newest sample of each source, unless older than ``since`` (microseconds since 1970)."""
        newest = {sample.source: sample for sample, _, _ in self._samples if sample.at >= since}
        return [newest[source] for source in sorted(newest)]

    async def read_series(self, edges: Sequence[int]) -> Series:
        """Return the series between ascending, equally spaced times (seconds since 1970)."""
        step = edges[1] - edges[0]
        positions = [bisect_left(self._rows, at * _SECOND, key=lambda row: row.recorded_at) for at in edges]
        steps: list[list[tuple[Sample, int, int]]] = [[] for _ in edges[1:]]
        for entry in self._samples:
            place = (entry[0].at - edges[0] * _SECOND) // (step * _SECOND)
            if 0 <= place < len(steps):
                steps[place].append(entry)
        return Series(
            at=tuple(edges[1:]),
            published=tuple((after - before) / step for before, after in pairwise(positions)),
            handled=filled([_rate([sample for sample, _, _ in entries]) for entries in steps], step),
            lag=filled([_most(sample.lag for sample, _, _ in entries) for entries in steps], step),
            p50=filled([_median([sample for sample, _, _ in entries]) for entries in steps], step),
            p99=filled([_most(sample.p99 for sample, _, _ in entries) for entries in steps], step),
            retrying=filled([_most(retrying for _, retrying, _ in entries) for entries in steps], step),
            dead_letters=filled([_most(letters for _, _, letters in entries) for entries in steps], step),
        )


def _rate(samples: Sequence[Sample]) -> float | None:
    seconds = sum(sample.seconds for sample in samples)
    if not seconds:
        return None
    sources = len({sample.source for sample in samples})
    return sum(sample.handled for sample in samples) / seconds * sources


def _median(samples: Sequence[Sample]) -> float | None:
    """Return the mean of the samples' medians, each weighted by how many deliveries it covers."""
    timed = [(sample.p50, sample.handled) for sample in samples if sample.p50 is not None]
    handled = sum(count for _, count in timed)
    return sum(p50 * count for p50, count in timed) / handled if handled else None


def _most(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)
