"""Scenarios on a failing simulated disk: ``python -m tests.crash.faulty <scenario> <database>``."""

from __future__ import annotations

import asyncio
import errno
import sqlite3
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from pabal import InMemoryEventBus, SqliteEventStorage
from pabal.errors import StorageUnavailableError
from pabal.ports.telemetry import Report, StorageTrouble
from pabal.storage.sqlite import appender
from tests.crash.disk.faults import OPEN, READ, SYNC, TRUNCATE, WRITE, Faults
from tests.crash.events import Step
from tests.pragmas import set_pragma

FAULTS = {
    "full disk": (errno.ENOSPC, WRITE | TRUNCATE, False),
    "full disk in the middle of a page": (errno.ENOSPC, WRITE | TRUNCATE, True),
    "error while writing": (errno.EIO, WRITE | TRUNCATE, False),
    "error while syncing": (errno.EIO, SYNC, False),
    "read-only disk": (errno.EROFS, WRITE | TRUNCATE | OPEN, False),
}


def visible(path: Path) -> list[int]:
    """Return the numbers of the events that another process would see."""
    connection = sqlite3.connect(path)
    try:
        return [n for (n,) in connection.execute("SELECT payload ->> 'number' FROM events ORDER BY position")]
    finally:
        connection.close()


async def publishing(path: Path, faults: Faults) -> None:
    """Each failure, at each of a commit's first writes: a typed error, nothing visible, then success."""
    published = 0
    async with SqliteEventStorage(path) as storage:
        for error, calls, partial in FAULTS.values():
            failed_commits = 0
            for skip in range(12):
                batch = [Step("a", published + n, "x" * 3000) for n in range(5)]
                with faults.failing(error, calls, skip=skip, partial=partial):
                    results = await asyncio.gather(
                        storage.store_events(batch), *map(storage.store_event, batch), return_exceptions=True
                    )
                failed = [result for result in results if isinstance(result, BaseException)]
                if failed:
                    failed_commits += 1
                    assert faults.hits, failed
                    assert {type(one) for one in failed} == {StorageUnavailableError}, failed
                    assert len(failed) == 6, "part of a group was reported as stored"
                    assert visible(path) == list(range(published)), "a part of the failed batch is visible"
                # Publish the same events again: they are stored once, after the earlier ones.
                positions = await storage.store_events(batch)
                assert positions == list(range(published + 1, published + 6))
                published += 5
                assert visible(path) == list(range(published))
            # A commit writes several times, and syncs once.
            assert failed_commits >= (1 if calls == SYNC else 3), f"only {failed_commits} commits failed"
        stream = await storage.get_events_by_aggregate("a", "walk")
        assert [event.number for event in stream] == list(range(published))
        assert await storage.check() == []


async def handling(path: Path, faults: Faults) -> None:
    """A bus on a full disk: publishers get errors, progress is saved later, and the bus recovers."""
    reports: list[Report] = []
    handled: list[int] = []
    trouble = asyncio.Event()

    async def handle(event: Step) -> None:
        handled.append(event.number)

    def listen(report: Report) -> None:
        reports.append(report)
        if isinstance(report, StorageTrouble):
            trouble.set()

    async with SqliteEventStorage(path) as storage:
        async with InMemoryEventBus(storage) as bus:
            bus.listen(listen)
            bus.subscribe(Step, handle, name="steps")
            await bus.publish_batch([Step("a", n) for n in range(20)])
            await bus.drain()
            # The event is stored, but the progress of its handler cannot be saved.
            gate = asyncio.Event()

            async def hold(event: Step) -> None:
                await gate.wait()

            bus.subscribe(Step, hold, name="held", ordering=None)
            await bus.publish(Step("a", 20))
            with faults.failing(errno.ENOSPC, WRITE | TRUNCATE):
                gate.set()
                await asyncio.wait_for(trouble.wait(), 20)
                assert bus.health().status != "ok"
                for number in range(3):
                    try:
                        await bus.publish(Step("lost", number))
                    except StorageUnavailableError:
                        continue
                    raise AssertionError("published on a full disk")
            await bus.publish(Step("a", 21))
            await bus.drain(timeout=20)
            assert handled == list(range(22)), handled
            assert bus.health().status == "ok", bus.health()
        (record, *_) = [r for r in await storage.list_subscriptions() if r.name == "steps"]
        assert (record.watermark, record.unfinished, record.retries) == (22, 0, 0)


async def checkpointing(path: Path, faults: Faults) -> None:
    """The write-ahead log can be written, but not the file: events are stored, and checkpointed later."""
    async with SqliteEventStorage(path) as storage:
        await set_pragma(storage, "wal_autocheckpoint = 10")
        with faults.failing(errno.ENOSPC, WRITE | TRUNCATE, suffix=path.name):
            for number in range(30):
                await storage.store_event(Step("a", number, "x" * 2000))
            assert faults.hits > 0
        for number in range(30, 60):
            await storage.store_event(Step("a", number, "x" * 2000))
        assert visible(path) == list(range(60))
        assert await storage.check() == []


async def indexing(path: Path, faults: Faults) -> None:
    """If a slice of the stream index cannot be written, it is written later."""
    appender._INDEX_EVERY = 10
    async with SqliteEventStorage(path) as storage:
        await storage.store_event(Step("b", 0))  # the first commit syncs more than once
        for number in range(60):
            # Writing the events succeeds; writing the index slice after them fails.
            with faults.failing(errno.EIO, SYNC, suffix="-wal", skip=1):
                await storage.append("walk", "a", [Step("a", number)], expected_version=number)
                await storage.transact(lambda tx: None)  # the writer has finished with the slice
        assert [e.number for e in await storage.get_events_by_aggregate("a", "walk")] == list(range(60))
        assert await storage.check() == []


async def reading(path: Path, faults: Faults) -> None:
    """An error while reading raises a typed error, and reading works again afterwards."""
    async with SqliteEventStorage(path) as storage:
        await storage.store_events([Step("a", n, "x" * 2000) for n in range(200)])
    async with SqliteEventStorage(path) as storage:
        with faults.failing(errno.EIO, READ):
            try:
                _ = [envelope async for envelope in storage.read()]
            except StorageUnavailableError:
                pass
            else:
                raise AssertionError("read from a disk that cannot be read")
        assert len([envelope async for envelope in storage.read()]) == 200


async def lagging(path: Path, faults: Faults) -> None:
    """A subscription that reads a backlog meets an error, and continues when it is over."""
    handled: list[int] = []
    trouble, complete = asyncio.Event(), asyncio.Event()

    async def handle(event: Step) -> None:
        handled.append(event.number)
        if len(handled) == 500:
            complete.set()

    async with SqliteEventStorage(path) as storage:
        await storage.store_events([Step("a", n, "x" * 2000) for n in range(500)])
    async with SqliteEventStorage(path) as storage, InMemoryEventBus(storage) as bus:
        with faults.failing(errno.EIO, READ):
            bus.listen(lambda report: trouble.set() if isinstance(report, StorageTrouble) else None)
            bus.subscribe(Step, handle, name="behind", start="beginning")
            await asyncio.wait_for(trouble.wait(), 20)
        await asyncio.wait_for(complete.wait(), 20)
        await bus.drain(timeout=20)
        assert handled == list(range(500)), f"{len(handled)} handled, {bus.health()}"


async def opening(path: Path, faults: Faults) -> None:
    """Opening or creating a file on this disk raises a typed error, and leaves no other files."""
    for error, calls, _ in FAULTS.values():
        for skip in range(6):
            try:
                with faults.failing(error, calls, skip=skip):
                    SqliteEventStorage(path).close()
            except StorageUnavailableError:
                pass
    async with SqliteEventStorage(path) as storage:
        assert await storage.store_event(Step("a", 0)) == 1
    assert [p.name for p in path.parent.iterdir()] == [path.name]


SCENARIOS: dict[str, Callable[[Path, Faults], Awaitable[None]]] = {
    scenario.__name__: scenario
    for scenario in (publishing, handling, checkpointing, indexing, reading, lagging, opening)
}


async def main(name: str, path: str) -> None:
    await SCENARIOS[name](Path(path), Faults.of_this_process())


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
