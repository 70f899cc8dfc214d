"""The time series of a bus's activity, in both storages."""

from __future__ import annotations

from typing import Any

import pytest

from pabal.ports.samples import Sample

AT = 1_000_000_000


def sample(at: int, source: str, handled: int, seconds: float | None) -> Sample:
    return Sample(at, source, 10.0, handled, 0, handled, seconds, seconds, {})


async def test_a_step_of_a_series_combines_the_samples_within_it(any_storage: Any) -> None:
    """A few slow seconds of an idle bus would look like the median of five busy minutes."""
    for one in (
        sample(AT - 1, "a", 7, 9.0),
        sample(AT, "a", 10, 0.1),
        sample(AT + 1, "b", 90, 0.5),
        sample(AT + 2, "c", 0, None),
        sample(AT + 10_000_000, "a", 0, None),
        sample(AT + 20_000_000, "a", 5, 0.25),
    ):
        await any_storage.record_sample(one)
    series = await any_storage.read_series([1000, 1010, 1020, 1030])
    assert series.at == (1010, 1020, 1030)
    assert series.handled == (pytest.approx(10.0), 0.0, 0.5)
    assert series.p50 == (pytest.approx(0.46), pytest.approx(0.46), 0.25)
    assert series.p99 == (0.5, 0.5, 0.25)
    assert series.lag == (90, 0, 5)
    assert series.retrying == series.dead_letters == (0, 0, 0)
