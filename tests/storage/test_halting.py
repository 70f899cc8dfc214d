"""Every process on a file sees that a subscription has halted, and any of them can resume it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from pabal import InMemoryEventBus, InMemoryEventStorage, RetryPolicy, SqliteEventStorage
from pabal.errors import StorageUnavailableError
from pabal.factory import open_operations
from pabal.ports.storage import Control, EventStorage
from pabal.ports.telemetry import Report, StorageTrouble, SubscriptionHalted, SubscriptionResumed
from pabal.storage.sqlite import cursors
from tests.brokers.events import until
from tests.brokers.support import run_cli
from tests.storage.events import Tick
from tests.storage.holder_process import holder_process


class FailingHandler:
    """A handler that fails for one number, until a test sets ``poison`` to None."""

    def __init__(self) -> None:
        self.poison: int | None = 2
        self.numbers: list[int] = []
        self.reports: list[Report] = []

    def bus(self, storage: EventStorage) -> InMemoryEventBus:
        bus = InMemoryEventBus(storage)
        bus.subscribe(Tick, self.handle, name="sub", retry=RetryPolicy(max_attempts=1), on_exhausted="stop")
        bus.listen(self.reports.append)
        return bus

    async def handle(self, event: Tick) -> None:
        if event.number == self.poison:
            raise ValueError("poison")
        self.numbers.append(event.number)

    def count_reports(self, kind: type[Report]) -> int:
        """Return how many reports of a kind there were."""
        return sum(isinstance(report, kind) for report in self.reports)


async def halt_reason(storage: EventStorage, wanted: bool = True) -> str:
    """Wait until the subscription has halted and return why; with ``wanted=False``, until it is active."""
    async with asyncio.timeout(30):
        while True:
            [record] = await storage.list_subscriptions()
            if bool(record.halted) == wanted:
                return record.halted
            await asyncio.sleep(0.005)


@asynccontextmanager
async def halted_bus(path: Path, handler: FailingHandler) -> AsyncIterator[SqliteEventStorage]:
    """Run a bus whose subscription has halted; yield a second storage on its file, as if elsewhere."""
    async with (
        SqliteEventStorage(path) as storage,
        SqliteEventStorage(path) as second,
        handler.bus(storage) as bus,
    ):
        await bus.publish_batch([Tick("A", number) for number in range(4)])
        await halt_reason(second)
        yield second


async def test_the_command_line_shows_why_a_subscription_halted_and_resumes_it(path: Path) -> None:
    """Only the process that halted it knew, so to an operator the subscription looked active."""
    async with holder_process(path) as other:
        await other.send("poison 2")
        await other.send("publish 1")
        await other.wait_for_line("handled 1")
        await other.send("publish 2")
        await other.wait_for_line("report SubscriptionHalted")
        async with SqliteEventStorage(path) as storage:
            assert "ValueError: poison" in await halt_reason(storage)
        code, output = await asyncio.to_thread(run_cli, "status", str(path))
        assert code != 0
        assert "subscription 'held' halted at event" in output
        assert "at position 2" in output
        await other.send("poison -1")
        await other.send("publish 3")
        resume = ("subscriptions", "resume", str(path), "held")
        assert await asyncio.to_thread(run_cli, *resume) == (0, "1 done\n")
        await other.wait_for_line("handled 2")
        await other.wait_for_line("handled 3")
        code, output = await asyncio.to_thread(run_cli, *resume)
        assert (code, "'held' is neither paused nor halted" in output) == (1, True), output


async def test_a_bus_on_standby_shows_a_halt_and_can_resume_it(path: Path) -> None:
    """A dashboard in a web process would show it as standby, while it is halted in the worker process."""
    handler = FailingHandler()
    async with (
        halted_bus(path, handler) as second,
        FailingHandler().bus(second) as other,
        open_operations(str(path)) as operations,
    ):
        [view] = await operations.subscriptions()
        assert (view.state, "poison" in view.reason) == ("halted", True)
        handler.poison = None
        assert await other.resume("sub")
        await until(lambda: handler.numbers == [0, 1, 2, 3])
        assert not await other.resume("sub")
        assert await halt_reason(second, wanted=False) == ""
        assert handler.count_reports(SubscriptionHalted) == 1
        assert handler.count_reports(SubscriptionResumed) == 1


async def test_a_subscription_that_halts_again_can_be_resumed_again(path: Path) -> None:
    """Resuming before the cause is fixed must not use up the only attempt."""
    handler = FailingHandler()
    async with halted_bus(path, handler) as second:
        assert await second.resume_subscription("sub")
        await until(lambda: handler.count_reports(SubscriptionHalted) == 2)
        handler.poison = None
        await halt_reason(second)
        assert await second.resume_subscription("sub")
        await until(lambda: handler.numbers == [0, 1, 2, 3])


async def test_a_halt_is_recorded_once_the_file_can_be_written(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the disk is full at that moment, no other process would ever see that it has halted."""
    handler = FailingHandler()
    async with SqliteEventStorage(path) as storage, handler.bus(storage) as bus:
        note_halt = storage.note_halt

        async def full(name: str, epoch: int, reason: str) -> bool:
            monkeypatch.setattr(storage, "note_halt", note_halt)
            raise StorageUnavailableError(path=str(path), reason="database or disk is full")

        monkeypatch.setattr(storage, "note_halt", full)
        await bus.publish(Tick("A", 2))
        await halt_reason(storage)
        assert handler.count_reports(StorageTrouble) == 1


async def test_a_resume_that_arrives_while_the_halt_is_being_recorded_takes_effect(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file would say that it is active, but it would stay halted until the next restart."""
    handler = FailingHandler()
    async with SqliteEventStorage(path) as storage, SqliteEventStorage(path) as second:
        note_halt, reading = storage.note_halt, storage.read_controls
        reads: list[None] = []

        async def read(names: Sequence[str]) -> list[Control]:
            controls = await reading(names)
            reads.append(None)
            return controls

        async def note_and_resume(name: str, epoch: int, reason: str) -> bool:
            noted = await note_halt(name, epoch, reason)
            handler.poison = None
            before = len(reads)
            assert await second.resume_subscription(name)
            await until(lambda: len(reads) > before)
            return noted

        monkeypatch.setattr(storage, "read_controls", read)
        monkeypatch.setattr(storage, "note_halt", note_and_resume)
        async with handler.bus(storage) as bus:
            await bus.publish_batch([Tick("A", number) for number in range(4)])
            await until(lambda: handler.numbers == [0, 1, 2, 3])


async def test_one_resume_call_resumes_only_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A subscription that halts again before the call returns must not be resumed a second time by it."""
    handler = FailingHandler()
    async with SqliteEventStorage(path) as storage, handler.bus(storage) as bus:
        await bus.publish(Tick("A", 2))
        await halt_reason(storage)
        resuming = storage.resume_subscription

        async def until_it_has_halted_again(name: str) -> bool:
            resumed = await resuming(name)
            await until(lambda: handler.count_reports(SubscriptionHalted) == 2)
            return resumed

        monkeypatch.setattr(storage, "resume_subscription", until_it_has_halted_again)
        assert await bus.resume("sub")
        await bus.drain(timeout=30)
        assert handler.count_reports(SubscriptionHalted) == 2


async def test_one_resume_ends_a_halt_and_a_pause(path: Path) -> None:
    """Otherwise a halted subscription that was paused as well would have to be resumed twice."""
    handler = FailingHandler()
    async with halted_bus(path, handler) as second:
        assert await second.pause_subscription("sub")
        handler.poison = None
        assert await second.resume_subscription("sub")
        await until(lambda: handler.numbers == [0, 1, 2, 3])


@pytest.mark.parametrize("ends", ["stop", "lease"])
async def test_a_halt_ends_when_its_holder_releases_or_loses_the_lease(
    path: Path, ends: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next holder continues, but the file would show the subscription as halted for ever."""
    monkeypatch.setattr(cursors, "LEASE_SECONDS", 0.0 if ends == "lease" else 10.0)
    async with SqliteEventStorage(path) as storage:
        cursor = await storage.open_subscription("sub", "now")
        assert cursor is not None
        assert await storage.note_halt("sub", cursor.epoch, "halted at 1")
        if ends == "stop":
            await storage.release_subscription("sub", cursor.epoch)
        [record] = await storage.list_subscriptions()
        assert (record.owner, record.halted) == (None, "")
        assert not await storage.resume_subscription("sub")


async def test_a_forgotten_subscription_leaves_no_halt_behind(path: Path) -> None:
    """A new subscription under the same name would count as halted before it has begun."""
    async with SqliteEventStorage(path) as storage:
        cursor = await storage.open_subscription("sub", "now")
        assert cursor is not None
        await storage.note_halt("sub", cursor.epoch, "halted at 1")
        await storage.release_subscription("sub", cursor.epoch)
        assert await storage.forget_subscription("sub")
        anew = await storage.open_subscription("sub", "now")
        assert anew is not None
        assert anew.epoch == cursor.epoch
        [record] = await storage.list_subscriptions()
        assert record.halted == ""


async def test_a_bus_resumes_a_halted_subscription_of_another_bus_in_memory() -> None:
    """An application's tests with a storage in memory would behave differently from one with a file."""
    handler = FailingHandler()
    storage = InMemoryEventStorage()
    async with handler.bus(storage) as bus, InMemoryEventBus(storage) as other:
        await bus.publish_batch([Tick("A", number) for number in range(4)])
        await halt_reason(storage)
        handler.poison = None
        assert await other.resume("sub")
        await until(lambda: handler.numbers == [0, 1, 2, 3])


async def test_the_korean_command_line_shows_the_halt_reason_in_korean(path: Path) -> None:
    """The one sentence that matters in an emergency would be in the other language."""
    async with holder_process(path) as other, SqliteEventStorage(path) as storage:
        await other.send("poison 1")
        await other.send("publish 1")
        await halt_reason(storage)
        _, output = await asyncio.to_thread(run_cli, "status", str(path), lang="ko")
        assert "마지막 오류는 ValueError: poison" in output
        assert "halted" not in output, output
