"""The samples that a bus takes of itself, and how durations are counted."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.storage.events import Tick

from pabal import InMemoryEventBus, InMemoryEventStorage, SqliteEventStorage
from pabal.delivery.histogram import Histogram, quantiles, since
from pabal.ports.samples import Sample, filled
from pabal.testing import VirtualClock

_HOUR = 3600 * 1_000_000
_DAY = 24 * _HOUR


@given(st.lists(st.floats(1e-7, 1e4), min_size=1), st.floats(0.01, 1.0))
def test_a_quantile_is_within_a_sixteenth_of_the_exact_one(durations: list[float], share: float) -> None:
    """The p99 on the dashboard would differ from that of the handlers."""
    histogram = Histogram()
    for seconds in durations:
        histogram.add(seconds)
    (found,) = quantiles(histogram.counts, share)
    exact = sorted(durations)[math.ceil(share * len(durations)) - 1]
    assert found is not None
    assert abs(found - exact) <= exact / 16


def test_recent_durations_drop_those_older_than_a_minute() -> None:
    """A slow minute in the morning would stay on the dashboard all day."""
    histogram = Histogram()
    histogram.add(1.0, 5)
    assert sum(histogram.recent(0.0).values()) == 5
    assert sum(histogram.recent(100.0).values()) == 5
    histogram.add(0.001, 3)
    assert sum(histogram.recent(140.0).values()) == 3
    assert histogram.recent(180.0) == {}
    assert quantiles({}, 0.5, 0.99) == [None, None]
    assert since({1: 2, 3: 4}, {1: 2}) == {3: 4}


async def test_a_busy_bus_records_samples_often_and_an_idle_one_rarely() -> None:
    """The charts would have no history, or an idle bus would write to the disk all night."""
    clock = VirtualClock()
    storage = InMemoryEventStorage()
    recorded: list[Sample] = []
    record = storage.record_sample

    async def record_and_keep(sample: Sample) -> None:
        recorded.append(sample)
        await record(sample)

    storage.record_sample = record_and_keep  # type: ignore[method-assign]
    async with InMemoryEventBus(event_storage=storage, clock=clock) as bus:

        async def handle(event: Tick) -> None: ...

        bus.subscribe(Tick, handle, name="ticks")
        await bus.publish(Tick("A", 1))
        await bus.drain()
        await clock.advance(10)
        assert [sample.handled for sample in recorded] == [1]
        assert recorded[0].subscriptions["ticks"].p99 is not None
        for _ in range(60):
            await clock.advance(10)
        assert 9 <= len(recorded[1:]) <= 11
        assert {sample.handled for sample in recorded[1:]} == {0}
        await bus.publish(Tick("A", 2))
        await bus.drain()
    assert recorded[-1].handled == 1, "the last seconds are recorded at the end"


async def test_samples_count_failed_attempts_from_the_first_one_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page that shows when failures began would miss those of the first seconds, or count some twice."""
    recorded: list[Sample] = []
    storage, clock = InMemoryEventStorage(), VirtualClock()

    async def record(sample: Sample) -> None:
        recorded.append(sample)

    monkeypatch.setattr(storage, "record_sample", record)
    async with InMemoryEventBus(storage, clock=clock) as bus:

        async def fail(event: Tick) -> None:
            raise ValueError("no")

        bus.subscribe(Tick, fail, name="ticks", retry_count=0)
        for failures in (2, 3):
            for _ in range(failures):
                await bus.publish(Tick("A", 1))
            await bus.drain()
            await clock.advance(60)
            assert sum(sample.failed for sample in recorded) == failures
            recorded.clear()


def sample(at: int, source: str = "a", handled: int = 20) -> Sample:
    return Sample(at, source, 10.0, handled, 0, 7, 0.001, 0.002, {})


async def test_samples_are_thinned_after_a_day_and_deleted_after_a_week(tmp_path: Path) -> None:
    """The log would grow for ever from samples alone."""
    async with SqliteEventStorage(tmp_path / "log.db", durability="normal") as storage:
        start = 1_700_000_100 * 1_000_000
        for step in range(60):  # ten minutes
            await storage.record_sample(sample(start + step * 10_000_000))
        count = "SELECT count(*) FROM samples"
        assert await storage.transact(lambda tx: tx.execute(count).fetchone()[0]) == 60
        for minute in range(0, 15, 2):
            await storage.record_sample(sample(start + _DAY + minute * 60_000_000))
        old = f"{count} WHERE at < {start + _HOUR}"
        assert await storage.transact(lambda tx: tx.execute(old).fetchone()[0]) == 2
        await storage.record_sample(sample(start + 8 * _DAY))
        assert await storage.transact(lambda tx: tx.execute(old).fetchone()[0]) == 0


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_a_series_adds_up_the_samples_of_several_processes(tmp_path: Path, kind: str) -> None:
    """With two processes on one file, the page would show half of the work."""
    made = InMemoryEventStorage() if kind == "memory" else SqliteEventStorage(tmp_path / "log.db")
    async with made as storage:
        start = 1_700_000_000
        for source in ("a", "b"):
            for seconds in (5, 15, 25):
                await storage.record_sample(sample((start + seconds) * 1_000_000, source))
            await storage.record_sample(sample((start - 3600) * 1_000_000, source, handled=900))
        series = await storage.read_series(range(start - 30, start + 151, 30))
        assert series.at == (start, start + 30, start + 60, start + 90, start + 120, start + 150)
        assert series.handled == (None, 4.0, 4.0, 4.0, None, None)
        assert series.lag[1] == 7
        assert series.p99[1] == 0.002
        assert series.published == (0.0,) * 6
        newest = await storage.latest_samples((start + 20) * 1_000_000)
        assert [(one.source, one.at) for one in newest] == [
            ("a", (start + 25) * 1_000_000),
            ("b", (start + 25) * 1_000_000),
        ]


def test_short_gaps_in_a_series_are_filled_and_long_ones_are_not() -> None:
    """An idle minute would break the line, or a day without the application would look like a healthy one."""
    assert filled([1, None, None, 4], 15) == (1, 1, 1, 4)
    assert filled([1, None, None, None], 60) == (1, 1, None, None)
    assert filled([None, None], 60) == (None, None)
