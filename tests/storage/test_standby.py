"""One bus handles a subscription; the others stand by until it stops, dies or freezes."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pabal import InMemoryEventBus, SqliteEventStorage
from pabal.bus.statistics import Health
from pabal.delivery import leases
from pabal.observability.prometheus import PrometheusExporter
from pabal.operations import operations_of
from pabal.storage.sqlite import cursors
from pabal.storage.sqlite.journal import dead_journals
from pabal.testing import VirtualClock
from tests.storage.events import Recorder, Tick, ticks
from tests.storage.holder_process import holder_process

needs_sigstop = pytest.mark.skipif(sys.platform == "win32", reason="no signal freezes a process there")


async def wait_until(bus: InMemoryEventBus, condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        await bus._engine.background.wait_until(condition)


@pytest.fixture(autouse=True)
def quick_standby(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "_STANDBY_PAUSE", 0.05)


async def test_a_second_bus_on_a_storage_stands_by_and_takes_over(
    storage: SqliteEventStorage,
) -> None:
    """If two buses handled one subscription at the same time, every event would be handled twice."""
    first, second = Recorder(), Recorder()
    one, two = InMemoryEventBus(storage), InMemoryEventBus(storage)
    one.subscribe(Tick, first, name="held", start="beginning")
    two.subscribe(Tick, second, name="held", start="beginning")
    await one.start()
    await two.start()
    await two.publish(Tick("A", 1))
    await first.reaches(1)
    assert "another" in str(two.health().reasons)
    await one.stop()
    await two.publish(Tick("A", 2))
    await second.reaches(1)
    await two.drain(timeout=60)
    await two.stop()
    assert (first.numbers, second.numbers) == ([1], [2])


async def test_a_bus_on_standby_reports_an_unknown_lag_instead_of_zero(storage: SqliteEventStorage) -> None:
    """A process that does not know the lag would report to a monitor that everything is handled."""
    one, two = InMemoryEventBus(storage), InMemoryEventBus(storage)
    exporter = PrometheusExporter()
    exporter.watch(two)
    handled = Recorder()
    one.subscribe(Tick, Recorder(), name="held", start="beginning")
    two.subscribe(Tick, handled, name="held", start="beginning")
    assert two.get_statistics()["subscriptions"]["held"]["lag"] is None
    await one.start()
    await two.start()
    figures = two.get_statistics()["subscriptions"]["held"]
    assert (figures["state"], figures["lag"]) == ("standby", None)
    assert "pabal_subscription_lag{" not in exporter.text()
    await one.subscriptions.pause("held")
    await two.publish(Tick("A", 1))
    (view,) = await operations_of(two).subscriptions()
    assert (view.state, view.lag) == ("standby", 1)
    await one.subscriptions.resume("held")
    await one.stop()
    await wait_until(two, lambda: two.get_statistics()["subscriptions"]["held"]["lag"] == 0)
    assert 'pabal_subscription_lag{bus="default",subscription="held"} 0.0' in exporter.text()
    await two.stop()
    assert two.get_statistics()["subscriptions"]["held"]["lag"] is None


async def test_a_bus_on_standby_is_healthy_and_gives_the_reason(storage: SqliteEventStorage) -> None:
    """All but one of several web workers on a file would be degraded for ever, and nothing could be done."""
    one, two = InMemoryEventBus(storage), InMemoryEventBus(storage)
    one.subscribe(Tick, Recorder(), name="held")
    two.subscribe(Tick, Recorder(), name="held")
    await one.start()
    await two.start()
    assert one.health() == Health("ok")
    assert two.health() == Health("ok", ("subscription 'held' is handled by another process",))
    await two.stop()
    await one.stop()


async def test_a_standby_process_takes_over_when_the_holder_stops(path: Path) -> None:
    """Stopping releases the subscription at once, without waiting for the lease to expire."""
    here = Recorder()
    async with SqliteEventStorage(path) as storage, holder_process(path) as other:
        await other.send("publish 1")
        await other.wait_for_line("handled 1")
        async with InMemoryEventBus(storage) as bus:
            bus.subscribe(Tick, here, name="held", start="beginning")
            await bus.publish(Tick("A", 2))
            await other.wait_for_line("handled 2")
            await other.send("stop")
            await other.process.wait()
            await bus.publish(Tick("A", 3))
            await here.reaches(1)
            await bus.drain(timeout=60)
        assert here.numbers == [3]


async def test_a_killed_holder_is_replaced_before_its_lease_expires(path: Path) -> None:
    """The unlocked journal shows that the holder is dead, so its lease of ten seconds is not waited for."""
    here = Recorder()
    async with SqliteEventStorage(path) as storage, holder_process(path) as other:
        async with InMemoryEventBus(storage) as bus:
            bus.subscribe(Tick, here, name="held", start="beginning")
            await bus.publish(Tick("A", 1))
            await other.wait_for_line("handled 1")
            other.process.kill()
            await other.process.wait()
            began = asyncio.get_running_loop().time()
            await bus.publish(Tick("A", 2))
            await wait_until(bus, lambda: 2 in here.numbers)
            assert asyncio.get_running_loop().time() - began < cursors.LEASE_SECONDS / 2
        assert [name for name, *_ in dead_journals(path, "")] == []


@needs_sigstop
async def test_a_frozen_holder_is_replaced_after_its_lease_and_stands_by_when_it_resumes(
    path: Path,
) -> None:
    """Promise 36: it still believes to hold the subscription; saving would undo the new holder's progress."""
    here = Recorder()
    # The other process has a short lease, which it does not renew; here the lease has its usual length.
    async with SqliteEventStorage(path) as storage, holder_process(path, lease=1.5) as other:
        # If it were frozen while writing, it would keep the file locked, which SQLite cannot resolve.
        await other.send("publish 1")
        await other.wait_for_line("drained")
        os.kill(other.process.pid, signal.SIGSTOP)
        async with InMemoryEventBus(storage) as bus:
            bus.subscribe(Tick, here, name="held", start="beginning")
            await bus.publish(Tick("A", 2))
            await wait_until(bus, lambda: 2 in here.numbers)
            await bus.drain(timeout=60)
            (before,) = await storage.list_subscriptions()
            os.kill(other.process.pid, signal.SIGCONT)
            # It continues, notices the loss, and stands by; new events go to the new holder only.
            await other.send("publish 3")
            await other.wait_for_line("drained")
            await wait_until(bus, lambda: 3 in here.numbers)
            await bus.drain(timeout=60)
            (after,) = await storage.list_subscriptions()
        assert after.epoch == before.epoch
        assert after.watermark == 3


@needs_sigstop
async def test_a_holder_frozen_in_its_handler_does_not_move_the_watermark_back(path: Path) -> None:
    """Promise 36: the event it finishes late lies far below the new holder's watermark."""
    here = Recorder()
    async with SqliteEventStorage(path) as storage, holder_process(path, lease=1.5) as other:
        await other.send("hold 1")
        await other.wait_for_line("will hold")
        await storage.store_event(Tick("A", 1))
        await other.wait_for_line("holding 1")
        os.kill(other.process.pid, signal.SIGSTOP)
        async with InMemoryEventBus(storage) as bus:
            bus.subscribe(Tick, here, name="held", start="beginning")
            await wait_until(bus, lambda: here.numbers == [1])
            await bus.publish_batch(ticks(4, "A", 2))
            await bus.drain(timeout=60)
            (before,) = await storage.list_subscriptions()
            os.kill(other.process.pid, signal.SIGCONT)
            await other.send("go")
            await other.wait_for_line("handled 1")
            await other.wait_for_line("drained")
            (after,) = await storage.list_subscriptions()
        assert (before.watermark, before.frontier, before.unfinished) == (5, 5, 0)
        assert (after.epoch, after.watermark, after.frontier) == (before.epoch, 5, 5)
        assert here.numbers == [1, 2, 3, 4, 5]


async def test_a_bus_on_standby_whose_storage_is_closed_logs_no_failed_task(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """An application that closes its storage before its bus would find an error that looks like a bug."""
    clock = VirtualClock()
    async with SqliteEventStorage(path) as storage, InMemoryEventBus(storage) as holder:
        holder.subscribe(Tick, Recorder(), name="held")
        await holder.drain(timeout=60)
        other = SqliteEventStorage(path)
        bus = InMemoryEventBus(other, clock=clock)
        bus.subscribe(Tick, Recorder(), name="held")
        await bus.start()
        assert "another" in str(bus.health().reasons)
        await other.aclose()
        await clock.advance(1.0)
        await bus.stop()
    assert "a background task of the bus failed" not in caplog.text
