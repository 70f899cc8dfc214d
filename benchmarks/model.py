"""The data of a measurement, and the statistics in the report."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping

import msgspec

Metrics = Mapping[str, float]
"""One run's figures by metric, for example ``{"events/s": 910_000.0}``; the unit is part of the name."""

PABAL = "pabal"


class Series(msgspec.Struct, frozen=True):
    """Every sample of one rival in one case of a scenario, for one metric.

    ``samples`` is empty if nothing could be measured; ``note`` then says why. A missing figure is never shown
    as zero.
    """

    case: str
    rival: str
    metric: str
    samples: tuple[float, ...]
    version: str = ""
    durability: str = "memory"
    events: int = 0
    note: str = ""

    @property
    def measured(self) -> bool:
        """Return whether there is a figure."""
        return bool(self.samples)

    @property
    def median(self) -> float:
        """Return the median of the samples. Raises StatisticsError if there are none."""
        return statistics.median(self.samples)

    @property
    def low(self) -> float:
        """Return the smallest sample."""
        return min(self.samples)

    @property
    def high(self) -> float:
        """Return the largest sample."""
        return max(self.samples)


class Ratio(msgspec.Struct, frozen=True):
    """A comparison of two series: the median and the range of the quotients round by round."""

    median: float
    low: float
    high: float


def ratio(series: Series, reference: Series) -> Ratio | None:
    """Divide round by round, so that disturbances of a whole round cancel out; None without samples.

    The n-th samples of both series are from the same round. If one has fewer, the rest is left out.
    """
    pairs = list(zip(series.samples, reference.samples, strict=False))
    ratios = [mine / theirs for mine, theirs in pairs if theirs > 0]
    if not ratios:
        return None
    return Ratio(statistics.median(ratios), min(ratios), max(ratios))


def percentile(ordered: list[float], share: float) -> float:
    """Return the smallest value that is not below ``share`` of the values in an ascending list."""
    if not ordered:
        raise ValueError("no values")
    rank = -(-len(ordered) * round(share * 10_000) // 10_000)
    return ordered[max(0, rank - 1)]


class Table(msgspec.Struct, frozen=True):
    """Describe one table of a scenario's figures."""

    title: str
    metrics: tuple[str, ...]
    """The columns; the first is shown in the chart and divided by the reference."""
    reference: str
    """The rival whose figure is 1.00 in every case; '' for a table without quotients."""
    chart: str = ""
    """The chart's file name without extension; '' for none."""
    lower_is_better: bool = False


class Outcome(msgspec.Struct, frozen=True):
    """Everything that one scenario measured."""

    scenario: str
    title: str
    text: str
    tables: tuple[Table, ...]
    series: tuple[Series, ...]
    quick: bool = False

    def find(self, case: str, rival: str, metric: str) -> Series | None:
        """Return one series, or None."""
        for series in self.series:
            if (series.case, series.rival, series.metric) == (case, rival, metric):
                return series
        return None


class Entry(msgspec.Struct, frozen=True):
    """What the harness calls once per round: one rival in one case."""

    case: str
    rival: str
    metrics: tuple[str, ...]
    measure: Callable[[], Metrics]
    version: str = ""
    durability: str = "memory"
    events: int = 0
    note: str = ""
    missing: str = ""
    """Why it cannot be measured here; '' if it can."""


def cases_of(series: Iterable[Series]) -> list[str]:
    """Return the cases in the order in which they first occur."""
    return list(dict.fromkeys(one.case for one in series))
