"""A subscription has one holder, among buses and among processes that release it, die or freeze."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from pabal import InMemoryEventBus, SqliteEventStorage
from pabal.bus.statistics import Health
from pabal.delivery import leases
from pabal.errors import SubscriptionInUseError
from pabal.observability.prometheus import PrometheusExporter
from pabal.operations import operations_of
from pabal.ports.storage import Progress
from pabal.storage.sqlite import cursors
from pabal.storage.sqlite.journal import dead_journals, journal_path
from pabal.storage.sqlite.transaction import Transaction
from tests.storage.events import Recorder, Tick, ticks


class Holder:
    """A process that runs ``tests.storage.holder``."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def says(self, expected: str) -> None:
        """Read lines until the process prints this one."""
        assert self.process.stdout is not None
        async with asyncio.timeout(30):
            while (line := (await self.process.stdout.readline()).decode()) != "":
                if line.strip() == expected:
                    return
        raise AssertionError(f"the other process ended without saying {expected!r}")

    async def order(self, text: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(text.encode() + b"\n")
        await self.process.stdin.drain()


@asynccontextmanager
async def holder(path: Path, lease: float = 10.0) -> AsyncIterator[Holder]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tests.storage.holder", str(path), str(lease)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    other = Holder(process)
    try:
        await other.says("started")
        yield other
    finally:
        if process.returncode is None:
            if sys.platform != "win32":
                os.kill(process.pid, signal.SIGCONT)
            process.kill()
        await process.communicate()


async def reaches(bus: InMemoryEventBus, condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        await bus._engine.background.wait_until(condition)


freezes = pytest.mark.skipif(sys.platform == "win32", reason="no signal freezes a process there")


@pytest.fixture(autouse=True)
def quick_standby(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "_STANDBY_PAUSE", 0.05)


async def test_of_two_buses_on_one_storage_one_stands_by_and_takes_over(
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


async def test_a_bus_that_stands_by_does_not_say_that_there_is_no_lag(storage: SqliteEventStorage) -> None:
    """A process that does not know the lag would tell a monitor that everything is done."""
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
    await reaches(two, lambda: two.get_statistics()["subscriptions"]["held"]["lag"] == 0)
    assert 'pabal_subscription_lag{bus="default",subscription="held"} 0.0' in exporter.text()
    await two.stop()
    assert two.get_statistics()["subscriptions"]["held"]["lag"] is None


async def test_a_bus_that_stands_by_is_ok_and_says_so(storage: SqliteEventStorage) -> None:
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


async def test_buses_that_open_a_subscription_at_once_do_not_both_get_it(
    storage: SqliteEventStorage,
) -> None:
    """If this were decided outside of the writer thread, both would find the subscription free."""
    cursors = await asyncio.gather(*(storage.open_subscription("held", "now") for _ in range(5)))
    assert sum(cursor is not None for cursor in cursors) == 1


async def test_a_subscription_that_is_opened_beside_a_known_event_is_not_refused(
    storage: SqliteEventStorage,
) -> None:
    """The stored event makes the group run again; then the opening found its own first run as the holder."""
    known = Tick("A", 1)
    await storage.store_event(known)
    openings = [storage.open_subscription("held", "now") for _ in range(2)]
    assert await storage.store_event(known) == 1
    cursor, other = await asyncio.gather(*openings)
    assert other is None
    assert cursor is not None
    await storage.release_subscription("held", cursor.epoch)
    assert await storage.open_subscription("held", "now") is not None


async def test_a_lease_that_is_taken_anew_while_it_is_to_be_renewed_is_not_lost(
    storage: SqliteEventStorage,
) -> None:
    """The holder would stop handling it, and then wait for ever for itself to release it."""
    cursor = await storage.open_subscription("held", "now")
    assert cursor is not None
    others_write = threading.Event()
    writing = asyncio.ensure_future(storage.transact(lambda tx: others_write.wait(20)))
    await asyncio.sleep(0)
    releasing = asyncio.ensure_future(storage.release_subscription("held", cursor.epoch))
    await asyncio.sleep(0)
    opening = storage.open_subscription("held", "now")
    renewing = asyncio.ensure_future(storage.renew_leases())
    await asyncio.sleep(0)
    others_write.set()
    await asyncio.gather(writing, releasing)
    assert await opening is not None
    assert await renewing == []
    assert await storage.renew_leases() == []


@pytest.mark.parametrize("held", [False, True])
async def test_an_opening_beside_something_that_is_refused_gets_the_subscription(
    storage: SqliteEventStorage, held: bool
) -> None:
    """The group runs again as a job was refused; then the opening found its own first run as the holder."""
    earlier = await storage.open_subscription("held", "now") if held else None
    epoch = None if earlier is None else earlier.epoch
    has_begun, may_end = threading.Event(), threading.Event()

    def write(tx: Transaction) -> None:
        has_begun.set()
        may_end.wait(20)

    writing = asyncio.ensure_future(storage.transact(write))
    await asyncio.to_thread(has_begun.wait)  # so that the next two jobs share a commit
    opening = storage.open_subscription("held", "now", epoch=epoch)
    forgetting = asyncio.ensure_future(storage.forget_subscription("held"))
    await asyncio.sleep(0)
    may_end.set()
    await writing
    assert await opening is not None
    with pytest.raises(SubscriptionInUseError):
        await forgetting


async def test_nobody_can_forget_what_is_taken_anew_without_giving_it_up(path: Path) -> None:
    """Between a release and the next opening another process could delete it, and its work was lost."""
    async with SqliteEventStorage(path) as storage, SqliteEventStorage(path) as other:
        cursor = await storage.open_subscription("held", "beginning")
        await storage.store_event(Tick("a", 1))
        assert cursor is not None
        for epoch in range(2, 6):
            opening = storage.open_subscription("held", "now", epoch=cursor.epoch)
            with pytest.raises(SubscriptionInUseError):
                await other.forget_subscription("held")
            cursor = await opening
            assert cursor is not None
            assert (cursor.epoch, cursor.watermark) == (epoch, 0)
        assert await other.open_subscription("held", "now") is None


async def test_one_that_was_lost_is_not_taken_anew_from_another_process(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes would handle the same events. And once free, the subscription must be open to all."""
    async with SqliteEventStorage(path) as storage, SqliteEventStorage(path) as other:
        with monkeypatch.context() as patch:
            patch.setattr(cursors, "LEASE_SECONDS", -1.0)
            cursor = await storage.open_subscription("held", "now")
        assert cursor is not None
        taken = await other.open_subscription("held", "now")
        assert taken is not None
        assert await storage.open_subscription("held", "now", epoch=cursor.epoch) is None
        await other.release_subscription("held", taken.epoch)
        assert await storage.open_subscription("held", "now") is not None


async def test_taking_anew_that_is_cancelled_leaves_the_subscription_free(
    storage: SqliteEventStorage,
) -> None:
    """Nobody would release it, and it would stand still until the process ends."""
    cursor = await storage.open_subscription("held", "now")
    assert cursor is not None
    opening = asyncio.ensure_future(storage.open_subscription("held", "now", epoch=cursor.epoch))
    await asyncio.sleep(0)
    opening.cancel()
    await storage.transact(lambda tx: None)  # behind both, the taking and the giving back
    await storage.transact(lambda tx: None)
    assert await storage.open_subscription("held", "now") is not None


async def test_an_opening_that_is_cancelled_leaves_the_subscription_free(
    storage: SqliteEventStorage,
) -> None:
    """Nobody would release it, and it would stand still until the process ends."""
    opening = asyncio.ensure_future(storage.open_subscription("held", "now"))
    await asyncio.sleep(0)
    opening.cancel()
    await storage.transact(lambda tx: None)  # behind both, the taking and the giving back
    await storage.transact(lambda tx: None)
    assert await storage.open_subscription("held", "now") is not None


async def test_another_process_stands_by_and_takes_over_on_release(path: Path) -> None:
    """Stopping releases the subscription at once, without waiting for the lease to expire."""
    here = Recorder()
    async with SqliteEventStorage(path) as storage, holder(path) as other:
        await other.order("publish 1")
        await other.says("handled 1")
        async with InMemoryEventBus(storage) as bus:
            bus.subscribe(Tick, here, name="held", start="beginning")
            await bus.publish(Tick("A", 2))
            await other.says("handled 2")
            await other.order("stop")
            await other.process.wait()
            await bus.publish(Tick("A", 3))
            await here.reaches(1)
            await bus.drain(timeout=60)
        assert here.numbers == [3]


async def test_a_killed_holder_is_replaced_at_once(path: Path) -> None:
    """The unlocked journal shows that the holder is dead, so nobody waits for its lease of ten seconds."""
    here = Recorder()
    async with SqliteEventStorage(path) as storage, holder(path) as other:
        async with InMemoryEventBus(storage) as bus:
            bus.subscribe(Tick, here, name="held", start="beginning")
            await bus.publish(Tick("A", 1))
            await other.says("handled 1")
            other.process.kill()
            await other.process.wait()
            began = asyncio.get_running_loop().time()
            await bus.publish(Tick("A", 2))
            await reaches(bus, lambda: 2 in here.numbers)
            assert asyncio.get_running_loop().time() - began < cursors.LEASE_SECONDS / 2
        assert [name for name, *_ in dead_journals(path, "")] == []


@freezes
async def test_a_frozen_holder_is_replaced_after_its_lease_and_its_late_progress_refused(
    path: Path,
) -> None:
    """Promise 36: it still believes to hold the subscription; saving would undo the new holder's progress."""
    here = Recorder()
    # The other process has a short lease, which it does not renew; here the lease has its usual length.
    async with SqliteEventStorage(path) as storage, holder(path, lease=1.5) as other:
        # If it were frozen while writing, it would keep the file locked, which SQLite cannot resolve.
        await other.order("publish 1")
        await other.says("drained")
        os.kill(other.process.pid, signal.SIGSTOP)
        async with InMemoryEventBus(storage) as bus:
            bus.subscribe(Tick, here, name="held", start="beginning")
            await bus.publish(Tick("A", 2))
            await reaches(bus, lambda: 2 in here.numbers)
            await bus.drain(timeout=60)
            (before,) = await storage.list_subscriptions()
            os.kill(other.process.pid, signal.SIGCONT)
            # It continues, notices the loss, and stands by; new events go to the new holder only.
            await other.order("publish 3")
            await other.says("drained")
            await reaches(bus, lambda: 3 in here.numbers)
            await bus.drain(timeout=60)
            (after,) = await storage.list_subscriptions()
        assert after.epoch == before.epoch
        assert after.watermark == 3


@freezes
async def test_a_holder_frozen_in_its_handler_moves_nothing_back_when_it_goes_on(path: Path) -> None:
    """Promise 36: the event it finishes late lies far below the new holder's watermark."""
    here = Recorder()
    async with SqliteEventStorage(path) as storage, holder(path, lease=1.5) as other:
        await other.order("hold 1")
        await other.says("will hold")
        await storage.store_event(Tick("A", 1))
        await other.says("holding 1")
        os.kill(other.process.pid, signal.SIGSTOP)
        async with InMemoryEventBus(storage) as bus:
            bus.subscribe(Tick, here, name="held", start="beginning")
            await reaches(bus, lambda: here.numbers == [1])
            await bus.publish_batch(ticks(4, "A", 2))
            await bus.drain(timeout=60)
            (before,) = await storage.list_subscriptions()
            os.kill(other.process.pid, signal.SIGCONT)
            await other.order("go")
            await other.says("handled 1")
            await other.says("drained")
            (after,) = await storage.list_subscriptions()
        assert (before.watermark, before.frontier, before.unfinished) == (5, 5, 0)
        assert (after.epoch, after.watermark, after.frontier) == (before.epoch, 5, 5)
        assert here.numbers == [1, 2, 3, 4, 5]


async def test_progress_under_an_old_epoch_is_refused(storage: SqliteEventStorage) -> None:
    """A process that lost the subscription would move the cursor of the one that has it."""
    await storage.store_events(ticks(5))
    old = await storage.open_subscription("held", "beginning")
    assert old is not None
    await storage.release_subscription("held", old.epoch)
    new = await storage.open_subscription("held", "beginning")
    assert new is not None
    assert new.epoch == old.epoch + 1
    late = Progress("held", old.epoch, 5, 5)
    assert await storage.save_progress([late]) == ["held"]
    (record,) = await storage.list_subscriptions()
    assert (record.watermark, record.frontier) == (0, 0)
    # Refusing the old epoch does not make the storage forget the new one.
    await storage.release_subscription("held", old.epoch)
    assert await storage.open_subscription("held", "now") is None
    assert await storage.save_progress([Progress("held", new.epoch, 3, 3)]) == []


async def test_leases_that_were_taken_over_are_reported_at_renewal(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A holder that has nothing to save must learn of the loss, too."""
    monkeypatch.setattr(cursors, "LEASE_SECONDS", 0.0)
    async with SqliteEventStorage(path) as one, SqliteEventStorage(path) as two:
        assert await one.renew_leases() == []
        assert await one.open_subscription("held", "now") is not None
        assert await one.renew_leases() == []
        assert await two.open_subscription("held", "now") is not None
        assert await one.renew_leases() == ["held"]
        assert await one.renew_leases() == []


async def test_events_of_another_process_wake_this_one(path: Path) -> None:
    """A commit of another process calls no listeners here; the head is polled instead."""
    here = Recorder()
    async with SqliteEventStorage(path) as storage, InMemoryEventBus(storage) as bus:
        bus.subscribe(Tick, here, name="here")
        await bus.drain(60)  # its start is settled, so events from elsewhere come after it
        async with SqliteEventStorage(path) as elsewhere:
            for number in range(1, 4):
                await elsewhere.store_event(Tick("A", number))
                await here.reaches(number)
        assert here.numbers == [1, 2, 3]


async def test_a_foreign_commit_is_noticed_though_our_own_bookkeeping_saw_it_first(path: Path) -> None:
    """Saving progress reads the head, too; if the event counted as known then, it would wait for the next."""
    async with SqliteEventStorage(path) as storage, SqliteEventStorage(path) as elsewhere:
        storage.poll_head()
        await elsewhere.store_event(Tick("A", 1))
        await storage.transact(lambda tx: None)
        assert storage.poll_head() == 1
        assert storage.poll_head() is None
        await storage.store_event(Tick("A", 2))
        assert storage.poll_head() is None  # our own commit, announced as such


async def test_a_journal_gets_its_name_only_when_it_is_locked(path: Path) -> None:
    """If it were visible unlocked, a starting process would count as dead and lose its subscriptions."""
    seen: list[str] = []
    rename = Path.rename
    async with SqliteEventStorage(path) as watcher:

        def look_first(self: Path, target: Path) -> Path:
            seen.extend(owner for owner, *_ in dead_journals(path, ""))
            return rename(self, target)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Path, "rename", look_first)
            async with SqliteEventStorage(path):
                seen.extend(owner for owner, *_ in dead_journals(path, ""))
        assert seen == []
        assert await watcher.open_subscription("held", "now") is not None


async def test_attempts_under_way_are_counted_for_whoever_comes_next(path: Path) -> None:
    """Promise 6 depends on it: an unlocked journal tells in which attempts its process died."""
    async with SqliteEventStorage(path) as storage:
        await storage.store_events(ticks(5))
        cursor = await storage.open_subscription("held", "beginning")
        assert cursor is not None
        base = storage.journal.reserve(2)
        storage.journal.begin(base, cursor.number, 3, 3, 1)
        storage.journal.begin(base + 1, cursor.number, 4, 4, 2)
        storage.journal.end(base + 1)
        await storage.save_progress([Progress("held", cursor.epoch, 2, 4, (3,))])
        content = storage.journal.path.read_bytes()
    # As if the process had died: the subscription still has its owner, and the journal is unlocked.
    dead = journal_path(path, "d" * 32)
    dead.write_bytes(content)
    async with SqliteEventStorage(path) as storage:
        await storage._do(
            lambda tx: tx.execute("UPDATE subscriptions SET owner = ?, lease_until = 9e18", ("d" * 32,))
        )
        again = await storage.open_subscription("held", "now")
        assert again is not None
        assert again.unfinished == (3,)
        (retry,) = again.retries
        assert (retry.position, retry.attempts) == (3, 1)
        assert [failure.error_type for failure in retry.failures] == ["ProcessDied"]
        assert not dead.exists()
