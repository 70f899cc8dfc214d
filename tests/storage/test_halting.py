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
from tests.storage.test_leases import holder


class Poisoned:
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

    def told(self, kind: type[Report]) -> int:
        """Return how many reports of a kind there were."""
        return sum(isinstance(report, kind) for report in self.reports)


async def reason(storage: EventStorage, wanted: bool = True) -> str:
    """Wait until the subscription has halted and return why; with ``wanted=False``, until it goes on."""
    async with asyncio.timeout(30):
        while True:
            [record] = await storage.list_subscriptions()
            if bool(record.halted) == wanted:
                return record.halted
            await asyncio.sleep(0.005)


@asynccontextmanager
async def halted(path: Path, sick: Poisoned) -> AsyncIterator[SqliteEventStorage]:
    """Run a bus whose subscription has halted; yield a second storage on its file, as if elsewhere."""
    async with (
        SqliteEventStorage(path) as storage,
        SqliteEventStorage(path) as second,
        sick.bus(storage) as bus,
    ):
        await bus.publish_batch([Tick("A", number) for number in range(4)])
        await reason(second)
        yield second


async def test_the_shell_says_why_it_has_halted_and_lets_it_go_on(path: Path) -> None:
    """Only the process in which it had halted knew, so to an operator the subscription looked active."""
    async with holder(path) as other:
        await other.order("poison 2")
        await other.order("publish 1")
        await other.says("handled 1")
        await other.order("publish 2")
        await other.says("report SubscriptionHalted")
        async with SqliteEventStorage(path) as storage:
            assert "ValueError: poison" in await reason(storage)
        code, said = await asyncio.to_thread(run_cli, "status", str(path))
        assert code != 0
        assert "subscription 'held' halted at event" in said
        assert "at position 2" in said
        await other.order("poison -1")
        await other.order("publish 3")
        resume = ("subscriptions", "resume", str(path), "held")
        assert await asyncio.to_thread(run_cli, *resume) == (0, "1 done\n")
        await other.says("handled 2")
        await other.says("handled 3")
        code, said = await asyncio.to_thread(run_cli, *resume)
        assert (code, "'held' is neither paused nor halted" in said) == (1, True), said


async def test_another_bus_lets_it_go_on_and_sees_it_halted_until_then(path: Path) -> None:
    """A dashboard in a web process would show it as standby, while it stands still in the worker process."""
    sick = Poisoned()
    async with (
        halted(path, sick) as second,
        Poisoned().bus(second) as other,
        open_operations(str(path)) as operations,
    ):
        [view] = await operations.subscriptions()
        assert (view.state, "poison" in view.reason) == ("halted", True)
        sick.poison = None
        assert await other.resume("sub")
        await until(lambda: sick.numbers == [0, 1, 2, 3])
        assert not await other.resume("sub")
        assert await reason(second, wanted=False) == ""
        assert (sick.told(SubscriptionHalted), sick.told(SubscriptionResumed)) == (1, 1)


async def test_what_halts_again_can_be_let_go_on_again(path: Path) -> None:
    """Resuming before the cause is fixed must not use up the only attempt."""
    sick = Poisoned()
    async with halted(path, sick) as second:
        assert await second.resume_subscription("sub")
        await until(lambda: sick.told(SubscriptionHalted) == 2)
        sick.poison = None
        await reason(second)
        assert await second.resume_subscription("sub")
        await until(lambda: sick.numbers == [0, 1, 2, 3])


async def test_a_halt_is_written_down_once_the_file_can_be_written(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the disk is full at that moment, nobody would ever learn that the subscription stands still."""
    sick = Poisoned()
    async with SqliteEventStorage(path) as storage, sick.bus(storage) as bus:
        noting = storage.note_halt

        async def full(name: str, epoch: int, reason: str) -> bool:
            monkeypatch.setattr(storage, "note_halt", noting)
            raise StorageUnavailableError(path=str(path), reason="database or disk is full")

        monkeypatch.setattr(storage, "note_halt", full)
        await bus.publish(Tick("A", 2))
        await reason(storage)
        assert sick.told(StorageTrouble) == 1


async def test_a_resume_that_comes_before_the_halt_is_known_here_is_obeyed(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file would say that it is active, but it would stand still until the next restart."""
    sick = Poisoned()
    async with SqliteEventStorage(path) as storage, SqliteEventStorage(path) as second:
        noting, reading = storage.note_halt, storage.read_controls
        looks: list[None] = []

        async def read(names: Sequence[str]) -> list[Control]:
            controls = await reading(names)
            looks.append(None)
            return controls

        async def slow(name: str, epoch: int, reason: str) -> bool:
            noted = await noting(name, epoch, reason)
            sick.poison = None
            before = len(looks)
            assert await second.resume_subscription(name)
            await until(lambda: len(looks) > before)
            return noted

        monkeypatch.setattr(storage, "read_controls", read)
        monkeypatch.setattr(storage, "note_halt", slow)
        async with sick.bus(storage) as bus:
            await bus.publish_batch([Tick("A", number) for number in range(4)])
            await until(lambda: sick.numbers == [0, 1, 2, 3])


async def test_one_resume_is_one_try(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A subscription that halts again before the call returns must not be resumed a second time by it."""
    sick = Poisoned()
    async with SqliteEventStorage(path) as storage, sick.bus(storage) as bus:
        await bus.publish(Tick("A", 2))
        await reason(storage)
        resuming = storage.resume_subscription

        async def until_it_has_halted_again(name: str) -> bool:
            resumed = await resuming(name)
            await until(lambda: sick.told(SubscriptionHalted) == 2)
            return resumed

        monkeypatch.setattr(storage, "resume_subscription", until_it_has_halted_again)
        assert await bus.resume("sub")
        await bus.drain(timeout=30)
        assert sick.told(SubscriptionHalted) == 2


async def test_one_resume_ends_a_halt_and_a_pause(path: Path) -> None:
    """Otherwise a halted subscription that was paused as well would have to be resumed twice."""
    sick = Poisoned()
    async with halted(path, sick) as second:
        assert await second.pause_subscription("sub")
        sick.poison = None
        assert await second.resume_subscription("sub")
        await until(lambda: sick.numbers == [0, 1, 2, 3])


@pytest.mark.parametrize("ends", ["stop", "lease"])
async def test_a_halt_ends_with_who_holds_the_subscription(
    path: Path, ends: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next holder continues, but the file would say for ever that the subscription has halted."""
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


async def test_buses_that_share_a_log_in_memory_let_each_other_go_on() -> None:
    """An application's tests with a storage in memory would behave differently from one with a file."""
    sick = Poisoned()
    storage = InMemoryEventStorage()
    async with sick.bus(storage) as bus, InMemoryEventBus(storage) as other:
        await bus.publish_batch([Tick("A", number) for number in range(4)])
        await reason(storage)
        sick.poison = None
        assert await other.resume("sub")
        await until(lambda: sick.numbers == [0, 1, 2, 3])


async def test_in_korean_the_reason_is_korean(path: Path) -> None:
    """The one sentence that matters in an emergency would be in the other language."""
    async with holder(path) as other, SqliteEventStorage(path) as storage:
        await other.order("poison 1")
        await other.order("publish 1")
        await reason(storage)
        _, said = await asyncio.to_thread(run_cli, "status", str(path), lang="ko")
        assert "마지막 오류는 ValueError: poison" in said
        assert "halted" not in said, said
