"""Subscriptions that are ended, or whose bus stops, while they are being opened."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from pathlib import Path
from typing import ClassVar

import pytest
from tests.bus.samples import Moved
from tests.bus.support import Recorder, spin_loop
from tests.delivery.intercepted_storage import InterceptedStorage

from pabal import (
    DomainEvent,
    InMemoryEventBus,
    InMemoryEventStorage,
    NotRetryableError,
    SqliteEventStorage,
)
from pabal.errors import StorageUnavailableError
from pabal.ports.storage import Cursor, Progress, Start
from pabal.testing import VirtualClock


class Knocked(DomainEvent):
    event_type: ClassVar[str] = "openings-test.knocked"


class DelayedOpenings(InMemoryEventStorage):
    """A storage that opens a subscription at the call, but returns only at ``answer()``."""

    def __init__(self) -> None:
        super().__init__()
        self.answers: list[tuple[asyncio.Future[Cursor | None], Cursor | None]] = []
        self.later = False

    def open_subscription(
        self, name: str, start: Start, *, epoch: int | None = None
    ) -> Awaitable[Cursor | None]:
        if not self.later:
            return super().open_subscription(name, start, epoch=epoch)
        answer: asyncio.Future[Cursor | None] = asyncio.get_running_loop().create_future()
        self.answers.append((answer, self._subscriptions.take(name, start, epoch)))
        return answer

    def answer(self) -> None:
        self.later = False
        for future, cursor in self.answers:
            future.set_result(cursor)

    def is_free(self, name: str) -> bool:
        return not self._subscriptions.of(name).held


@pytest.mark.parametrize("taken", [False, True])
async def test_a_subscription_opened_at_the_moment_of_a_stop_is_released(taken: bool) -> None:
    """Nobody would use the subscription, and no bus could open it for the life of the storage."""
    storage, clock = DelayedOpenings(), VirtualClock()
    if taken:
        assert await storage.open_subscription("late", "now") is not None
    bus = InMemoryEventBus(storage, worker_count=1, clock=clock)
    entered, leave = asyncio.Event(), asyncio.Event()

    async def handle(event: Knocked) -> None:
        entered.set()
        await leave.wait()

    async def handle_late(event: Knocked) -> None: ...

    bus.subscribe(Knocked, handle, name="early")
    await bus.start()
    await bus.publish(Knocked())
    await entered.wait()
    storage.later = True
    bus.subscribe(Knocked, handle_late, name="late")
    stopping = asyncio.create_task(bus.stop())
    await clock.settle()
    # The answer comes in the same iteration of the loop in which the bus cancels calls that still wait.
    bus._engine.workers[0].task.add_done_callback(lambda _: storage.answer())
    leave.set()
    await stopping
    assert (storage.answers[0][1] is None) == taken
    assert storage.is_free("late") != taken, "what another holder has is not released"


@pytest.mark.parametrize("taken", [False, True])
async def test_a_subscription_unsubscribed_while_it_is_opened_is_released(taken: bool) -> None:
    """Opened for a subscription that has ended, it would be blocked until the process ends."""
    storage, clock, seen = DelayedOpenings(), VirtualClock(), Recorder[str]()
    if taken:
        assert await storage.open_subscription("late", "now") is not None

    async def handle(event: Knocked) -> None:
        seen.add(event.event_id)

    bus = InMemoryEventBus(storage, clock=clock)
    await bus.start()
    storage.later = True
    subscription = bus.subscribe(Knocked, handle, name="late")
    await clock.settle()
    assert bus.unsubscribe(subscription)
    storage.answer()
    await clock.settle()
    assert storage.is_free("late") != taken
    if not taken:
        bus.subscribe(Knocked, handle, name="late")
        await bus.publish(Knocked())
        await bus.drain(timeout=None)
        assert len(seen) == 1
    await bus.stop()


async def test_a_name_subscribed_and_unsubscribed_during_its_release_stays_free() -> None:
    """A subscription that waits for the name may have ended meanwhile; then it must not keep the name."""
    storage, clock = DelayedOpenings(), VirtualClock()
    bus = InMemoryEventBus(storage, clock=clock)
    entered, leave = asyncio.Event(), asyncio.Event()

    async def handle(event: Knocked) -> None:
        entered.set()
        await leave.wait()

    first = bus.subscribe(Knocked, handle, name="door")
    await bus.start()
    await bus.publish(Knocked())
    await entered.wait()
    bus.unsubscribe(first)  # it is released when its handler has ended
    second = bus.subscribe(Knocked, handle, name="door")
    await clock.settle()
    bus.unsubscribe(second)
    leave.set()
    await clock.settle()
    assert storage.is_free("door")
    await bus.stop()


async def test_an_unsubscribed_standby_subscription_is_never_opened() -> None:
    """It would be opened at some later time, for a handler that was unsubscribed."""
    storage, clock = DelayedOpenings(), VirtualClock()
    cursor = await storage.open_subscription("door", "now")
    assert cursor is not None
    bus = InMemoryEventBus(storage, clock=clock)

    async def handle(event: Knocked) -> None: ...

    subscription = bus.subscribe(Knocked, handle, name="door")
    await bus.start()
    assert bus.get_statistics()["subscriptions"]["door"]["state"] == "standby"
    bus.unsubscribe(subscription)
    await storage.release_subscription("door", cursor.epoch)
    await clock.advance(10.0)
    assert storage.is_free("door")
    await bus.stop()


async def test_an_unexpected_error_in_opening_is_logged_and_affects_no_other_subscription(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An unforeseen exception would vanish with its task, and the silence would have no visible cause."""
    storage, clock, seen = DelayedOpenings(), VirtualClock(), Recorder[str]()

    async def handle(event: Knocked) -> None:
        seen.add(event.event_id)

    bus = InMemoryEventBus(storage, clock=clock)
    bus.subscribe(Knocked, handle, name="healthy")
    await bus.start()
    storage.later = True
    bus.subscribe(Knocked, handle, name="failing")
    storage.answers[0][0].set_exception(ZeroDivisionError("a bug"))
    await clock.settle()
    assert "a background task of the bus failed" in caplog.text
    await bus.publish(Knocked())
    await seen.reach(1)
    await bus.stop()


async def test_a_bus_whose_start_fails_for_lack_of_disk_space_can_start_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bus that failed halfway would keep the subscriptions it had opened, and could not start again."""
    seen: Recorder[str] = Recorder()

    async def handle(event: Knocked) -> None:
        seen.add(event.event_id)

    def fail(slots: int) -> int:
        raise StorageUnavailableError(path="log.db", reason="no space left")

    async with SqliteEventStorage(tmp_path / "log.db", durability="normal") as storage:
        bus = InMemoryEventBus(storage)
        bus.subscribe(Knocked, handle, name="door")
        with monkeypatch.context() as patch:
            patch.setattr(storage.journal, "reserve", fail)
            with pytest.raises(StorageUnavailableError):
                await bus.start()
        assert not bus.is_running
        async with bus:
            await bus.publish(Knocked())
        assert len(seen) == 1


class DelayedSave(InMemoryEventStorage):
    """A storage that delays the first save, like a server with too many requests."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = asyncio.Event()
        self.may_continue = asyncio.Event()

    async def save_progress(self, changes: Sequence[Progress]) -> list[str]:
        if not self.begun.is_set():
            self.begun.set()
            await self.may_continue.wait()
        return await super().save_progress(changes)


async def test_progress_being_saved_when_a_subscription_ends_is_saved_before_its_release() -> None:
    """Promise 27. After the release the save would be rejected, and a dead letter would be lost."""
    storage, taken = DelayedSave(), Recorder[Knocked]()

    async def reject(event: Knocked) -> None:
        raise NotRetryableError("nobody is at home")

    async def take(event: Knocked) -> None:
        taken.add(event)

    async with InMemoryEventBus(storage) as bus:
        ended = bus.subscribe(Knocked, reject, name="door")
        await bus.publish(Knocked())
        await storage.begun.wait()
        bus.unsubscribe(ended)
        bus.subscribe(Knocked, take, name="door")
        await spin_loop()
        storage.may_continue.set()
        await bus.publish(Knocked())
        await taken.reach(1)
        await bus.drain(60)
        assert bus.get_statistics()["subscriptions"]["door"]["state"] == "active"
        assert len(await bus.dead_letters.list()) == 1


async def test_a_rejected_save_does_not_end_a_subscription_reopened_since() -> None:
    """It would wait in standby for ever for a lease that it holds itself."""
    storage, taken = DelayedSave(), Recorder[Knocked]()

    async def take(event: Knocked) -> None:
        taken.add(event)

    async with InMemoryEventBus(storage) as bus:
        bus.subscribe(Knocked, take, name="door")
        await bus.publish(Knocked())
        await storage.begun.wait()
        consumer = bus._engine.consumers["door"]
        await bus._engine.feed.leases.reopen(consumer)  # type: ignore[union-attr]
        storage.may_continue.set()
        await bus.publish(Knocked())
        await bus.drain(60)
        assert bus.get_statistics()["subscriptions"]["door"]["state"] == "active"


def _subscribe_all(bus: InMemoryEventBus, *names: str) -> None:
    async def handle(event: Knocked) -> None: ...

    for name in names:
        bus.subscribe(Knocked, handle, name=name)


async def _starting_three() -> tuple[InMemoryEventBus, DelayedOpenings, asyncio.Task[None]]:
    """Return a bus whose start has called for three subscriptions to be opened and waits for them."""
    storage = DelayedOpenings()
    bus = InMemoryEventBus(storage)
    _subscribe_all(bus, "front", "back", "side")
    storage.later = True
    starting = asyncio.create_task(bus.start())
    await spin_loop(20)
    return bus, storage, starting


async def test_start_opens_its_subscriptions_concurrently() -> None:
    """Each would take its own commit: ten thousand once delayed the start of a service by 17 seconds."""
    bus, storage, starting = await _starting_three()
    assert len(storage.answers) == 3
    storage.answer()
    await starting
    assert {one["state"] for one in bus.get_statistics()["subscriptions"].values()} == {"active"}
    await bus.stop()


async def test_a_failed_start_releases_the_subscriptions_it_opened() -> None:
    """The others would stay held without a holder, and the next start would stand by for ever."""
    bus, storage, starting = await _starting_three()
    failed, cursor = storage.answers.pop(1)
    failed.set_exception(StorageUnavailableError(path="log.db", reason="no"))
    storage.answer()
    with pytest.raises(StorageUnavailableError):
        await starting
    assert cursor is not None
    await storage.release_subscription("back", cursor.epoch)
    assert all(storage.is_free(name) for name in ("front", "back", "side"))
    async with bus:
        assert {one["state"] for one in bus.get_statistics()["subscriptions"].values()} == {"active"}


async def test_a_pause_requested_while_other_subscriptions_are_opened_takes_effect() -> None:
    """A pause would be lost if it came after the answer but before the subscription's turn."""
    storage = DelayedOpenings()
    assert await storage.open_subscription("front", "now") is not None
    bus = InMemoryEventBus(storage)
    _subscribe_all(bus, "front", "back")
    storage.later = True
    starting = asyncio.create_task(bus.start())
    await spin_loop(20)
    await storage.pause_subscription("back")
    await spin_loop(20)
    storage.answer()
    await starting
    await spin_loop(20)
    states = {name: one["state"] for name, one in bus.get_statistics()["subscriptions"].items()}
    assert states == {"front": "standby", "back": "paused"}
    await bus.stop()


async def test_a_subscription_made_while_the_bus_starts_is_opened_once() -> None:
    """Opened by the start and by itself, it would stand by for itself, and the start would raise KeyError."""
    storage = InterceptedStorage()
    bus = InMemoryEventBus(storage)

    async def subscribe() -> None:
        _subscribe_all(bus, "back")

    _subscribe_all(bus, "front")
    storage.after_call["list_subscriptions"] = subscribe
    async with bus:
        states = {name: one["state"] for name, one in bus.get_statistics()["subscriptions"].items()}
        assert states == {"front": "active", "back": "active"}


async def test_a_dead_letter_discarded_during_an_opening_does_not_end_the_opening() -> None:
    """The opening would look for a key that is no longer blocked, and the start raise KeyError."""
    storage = InterceptedStorage()
    seen: Recorder[int] = Recorder()

    async def handle(event: Moved) -> None:
        if event.n == 0:
            raise NotRetryableError("no")
        seen.add(event.n)

    def make_bus() -> InMemoryEventBus:
        bus = InMemoryEventBus(storage)
        bus.subscribe(Moved, handle, name="board", on_exhausted="park_key")
        return bus

    async with make_bus() as bus:
        await bus.publish(Moved("rook", 0))
        await bus.drain(60)
    bus = make_bus()

    async def discard() -> None:
        assert await bus.dead_letters.discard("all") == 1
        consumer = bus._engine.consumers["board"]
        await bus._engine.background.wait_until(lambda: not consumer.blocked)

    storage.after_call["list_dead_letters"] = discard
    async with bus:
        await bus.publish(Moved("rook", 1))
        await bus.drain(60)
        assert seen == [1]


async def test_a_subscription_paused_and_resumed_while_it_is_opened_is_opened_once_at_a_time(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Two openings at once took each other for ended: a KeyError, and a name released without being held."""
    storage = InterceptedStorage()
    reading, answered = asyncio.Event(), asyncio.Event()
    seen: Recorder[int] = Recorder()

    async def handle(event: Moved) -> None:
        if event.n == 1 and not reading.is_set():
            raise ConnectionError("not yet")
        seen.add(event.n)

    async def wait() -> None:
        reading.set()
        await answered.wait()

    async with InMemoryEventBus(storage) as bus:
        subscription = bus.subscribe(Moved, handle, name="board")
        await bus.publish_batch([Moved("rook", 1), Moved("king", 2)])
        await bus.drain(60, retries=False)
        bus.unsubscribe(subscription)
        storage.after_call["read_positions"] = wait
        bus.subscribe(Moved, handle, name="board")
        await reading.wait()
        await bus.subscriptions.pause("board")
        resuming = asyncio.create_task(bus.subscriptions.resume("board"))
        await spin_loop()
        answered.set()
        await resuming
        await bus.drain(60)
    assert seen == [2, 1]
    assert "a background task of the bus failed" not in caplog.text
