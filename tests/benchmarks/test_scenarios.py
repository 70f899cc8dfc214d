"""Each in-memory rival does all its work before its clock stops; the others are not run here."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from benchmarks import child, logs
from benchmarks.events import make_events
from benchmarks.harness import IncompleteError, Settings, installed
from benchmarks.rivals import durable, in_memory
from benchmarks.rivals.in_memory import MORE_RIVALS, RIVALS, Rival, Work
from benchmarks.rivals.latency import RIVALS as PACED
from benchmarks.rivals.latency import Rival as PacedRival
from benchmarks.scenarios import recovery, sourcing
from benchmarks.scenarios.in_memory import entry_of
from benchmarks.scenarios.latency import latencies

HERE = [rival for rival in (*RIVALS, *MORE_RIVALS) if rival.distribution in (None, "pabal")]
PACED_HERE = [rival for rival in PACED if rival.distribution in (None, "pabal")]


@pytest.mark.parametrize("handlers", [1, 3])
@pytest.mark.parametrize("rival", HERE, ids=lambda rival: rival.name)
async def test_every_rival_delivers_every_event_to_every_handler(rival: Rival, handlers: int) -> None:
    """A rival whose clock stops early would look fast; each counts its handlers' calls to prevent that."""
    seconds = await rival.measure(Work(make_events(20_000, 10), handlers))

    assert seconds > 0


async def test_a_shorter_last_batch_reaches_the_handler() -> None:
    """If a last, shorter batch were dropped, publish_batch would look faster than it is."""
    assert await in_memory.pabal_batches(300)(Work(make_events(1_000, 10), 1)) > 0


@pytest.mark.parametrize("rival", PACED_HERE, ids=lambda rival: rival.name)
async def test_latency_is_measured_from_when_an_event_was_due(rival: PacedRival) -> None:
    """An unattainable rate must show as latency: an open loop does not wait for a slow receiver."""
    figures = await latencies(rival, make_events(2_000, 10), rate=1_000_000_000)

    assert 0 < figures["p50 ms"] <= figures["p99 ms"] <= figures["max ms"]
    # The last event was due after two microseconds, so its latency is the time to handle all of them.
    assert figures["max ms"] / 1000 == pytest.approx(2_000 / figures["events/s reached"], rel=0.01)


def test_a_rival_whose_package_is_not_installed_is_reported_missing() -> None:
    """Without its package a rival cannot be measured, and must be reported as such."""
    rival = Rival("nobody", in_memory.await_in_a_loop, "a-distribution-that-does-not-exist")

    assert installed("a-distribution-that-does-not-exist") is None
    assert entry_of(rival, "case", make_events(10, 1), 1, "asyncio").missing == "not installed"


async def test_the_durable_result_includes_saving_the_watermark(tmp_path: Path) -> None:
    """If the clock stopped at the last handler, the commit of the progress would be missing."""
    figures = await durable.pabal_end_to_end(
        tmp_path / "log.db", make_events(200, 10), publishers=10, batch=1, durability="full"
    )

    assert figures["events/s until closed"] <= figures["events/s"]


@pytest.mark.parametrize("batch", [1, 64])
@pytest.mark.parametrize("both_indexes", [True, False])
def test_the_raw_sqlite_floor_stores_all_rows_and_the_watermark(
    tmp_path: Path, batch: int, both_indexes: bool
) -> None:
    """A floor that stores less, or keeps no watermark, is not a floor."""
    events = make_events(200, 10)
    rows = durable.rows_of(events, recorded_at=1)

    durable.raw_sqlite(tmp_path / "raw.db", rows, batch=batch, durability="full", both_indexes=both_indexes)

    with sqlite3.connect(tmp_path / "raw.db") as connection:
        stored = connection.execute("SELECT * FROM events ORDER BY position").fetchall()
        watermark = connection.execute("SELECT watermark FROM subscriptions").fetchone()
    connection.close()
    assert stored == rows
    assert watermark == (200,)


async def test_the_raw_sqlite_floor_inserts_the_same_rows_as_pabal(tmp_path: Path) -> None:
    """If the floor's rows were smaller than pabal's, the comparison would be unfair."""
    events = make_events(50, 10)

    await durable.pabal_end_to_end(tmp_path / "log.db", events, publishers=1, batch=50, durability="full")

    connection = sqlite3.connect(tmp_path / "log.db")
    stored = connection.execute("SELECT * FROM events ORDER BY position").fetchall()
    connection.close()
    assert stored == durable.rows_of(events, recorded_at=stored[0][-1])


def test_settings_select_the_rivals_to_measure() -> None:
    """For tuning, measuring one rival would take minutes for all of them instead of seconds."""
    assert Settings(rivals=("pabal",)).wants("pabal")
    assert not Settings(rivals=("pabal",)).wants("pyee")
    assert Settings().wants("pyee")


async def test_the_memory_growth_of_a_restart_is_measured(tmp_path: Path) -> None:
    """If a log of a million events were read into memory at start, its time alone would not show that."""
    log = tmp_path / "log.db"
    await logs.fill(log, 2_500, keys=10)
    figures = await recovery.restart(log, 0)
    assert figures[recovery.STARTED] <= figures[recovery.DONE]
    assert recovery.GROWTH in child.call("benchmarks.scenarios.recovery:grow", path=str(log))


async def test_event_sourcing_is_measured_until_the_last_event(tmp_path: Path) -> None:
    """A clock that stops before everything is stored, loaded or projected would measure too little."""
    log = tmp_path / "log.db"
    await sourcing.fill(log, 2_500)

    assert (await sourcing.pabal_save(tmp_path / "save.db", 300))[sourcing.COMMANDS] > 0
    assert (await sourcing.pabal_load(tmp_path / "load.db", 2))[sourcing.LOADS] > 0
    assert (await sourcing.pabal_rebuild(log, 2_500))[sourcing.EVENTS] > 0
    with pytest.raises(IncompleteError, match=r"2,?501"):
        await sourcing.pabal_rebuild(log, 2_501)
