"""While the storage fails some calls, the engine waits, reports it, and loses nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence

import pytest
from tests.bus.samples import Moved
from tests.bus.support import ONE_ATTEMPT, Recorder, reports_of, statistics_of

from pabal import InMemoryEventBus, InMemoryEventStorage, RetryPolicy
from pabal.errors import BusNotRunningError, StorageError, StorageUnavailableError
from pabal.ports.storage import Capabilities, Cursor, Progress, Start
from pabal.ports.telemetry import StorageTrouble, SubscriptionResumed
from pabal.testing import VirtualClock

FULL_DISK = StorageUnavailableError(path="events.db", reason="the disk is full")


class FailingStorage(InMemoryEventStorage):
    """A storage that raises in the calls named in ``failures``, and loses the leases in ``lost``."""

    capabilities = Capabilities(persistent=False, shared=True)

    def __init__(self) -> None:
        super().__init__()
        self.failures: dict[str, Exception] = {}
        self.lost: list[str] = []
        self.calls: Recorder[str] = Recorder()

    def _check(self, call: str) -> None:
        self.calls.add(call)
        if call in self.failures:
            raise self.failures[call]

    async def save_progress(self, changes: Sequence[Progress]) -> list[str]:
        self._check("save")
        return await super().save_progress(changes)

    async def renew_leases(self) -> list[str]:
        self._check("renew")
        lost, self.lost = self.lost, []
        return lost

    def open_subscription(
        self, name: str, start: Start, *, epoch: int | None = None
    ) -> Awaitable[Cursor | None]:
        opening: asyncio.Future[Cursor | None] = asyncio.get_running_loop().create_future()
        try:
            self._check("open")
        except StorageError as error:
            opening.set_exception(error)
            return opening
        return super().open_subscription(name, start, epoch=epoch)

    def tries(self, call: str) -> int:
        """Return how often a call was made."""
        return sum(one == call for one in self.calls)


async def test_progress_that_cannot_be_saved_is_kept_and_saved_later() -> None:
    """After a full disk, handled events would be delivered again, and dead letters and retries forgotten."""
    storage, clock = FailingStorage(), VirtualClock()
    seen: Recorder[int] = Recorder()

    async def handle(event: Moved) -> None:
        seen.add(event.n)
        if event.n == 1:
            raise ValueError("never")
        if event.n == 2:
            raise ConnectionError("not yet")

    patient = RetryPolicy(max_attempts=5, base_delay=100.0, jitter=0.0, never=(ValueError,))
    bus = InMemoryEventBus(storage, clock=clock)
    trouble = reports_of(bus, StorageTrouble)
    bus.subscribe(Moved, handle, name="mover", retry=patient)
    await bus.start()
    storage.failures["save"] = FULL_DISK
    for n in range(4):
        await bus.publish(Moved(f"p{n}", n))
    await seen.reach(4)
    await trouble.reach(1)
    await bus.publish(Moved("p4", 4))  # handling continues meanwhile, and adds to the unsaved progress
    await seen.reach(5)

    assert bus.health().status == "failing"
    assert "the disk is full" in bus.health().reasons[0]
    tries = storage.tries("save")
    await clock.advance(1.0)
    assert storage.tries("save") > tries
    assert storage.tries("save") < tries + 10, "it waits longer after each failure"

    storage.failures.clear()
    await clock.advance(6.0)
    await bus.drain(timeout=None, retries=False)
    assert bus.health().status == "degraded", "there is a dead letter, but no storage trouble any more"
    await bus.stop()

    redelivered: Recorder[int] = Recorder()

    async def handle_again(event: Moved) -> None:
        redelivered.add(event.n)

    bus = InMemoryEventBus(storage, clock=clock)
    bus.subscribe(Moved, handle_again, name="mover", retry=patient)
    async with bus:
        assert [letter.event.n for letter in await bus.dead_letters.list()] == [1]
        await clock.advance(100.0)
        await bus.drain(timeout=None)
    assert redelivered == [2]


async def test_an_unexpected_storage_error_is_logged_and_saving_continues(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One unforeseen exception would silently leave every later watermark unsaved."""
    storage, clock = FailingStorage(), VirtualClock()
    bus = InMemoryEventBus(storage, clock=clock)

    async def handle(event: Moved) -> None: ...

    bus.subscribe(Moved, handle, name="mover")
    await bus.start()
    trouble = reports_of(bus, StorageTrouble)
    storage.failures["save"] = ZeroDivisionError("a bug")
    await bus.publish(Moved("a", 1))
    await trouble.reach(1)
    assert "a bug in pabal" in caplog.text
    storage.failures.clear()
    await clock.advance(1.0)
    await bus.drain(timeout=None)
    assert statistics_of(bus, "mover")["watermark"] == 1
    await bus.stop()


async def test_a_bus_stops_although_its_progress_cannot_be_saved_and_drain_raises() -> None:
    """Promise 8. ``stop`` would wait for a full disk for ever; ``drain`` would claim that all is saved."""
    storage, clock = FailingStorage(), VirtualClock()
    bus = InMemoryEventBus(storage, clock=clock)
    seen: Recorder[int] = Recorder()

    async def handle(event: Moved) -> None:
        seen.add(event.n)

    bus.subscribe(Moved, handle, name="mover")
    await bus.start()
    storage.failures["save"] = FULL_DISK
    await bus.publish(Moved("a", 1))
    await seen.reach(1)
    draining = asyncio.create_task(bus.drain())
    await clock.settle()
    await bus.stop()
    with pytest.raises(BusNotRunningError):
        await draining
    storage.failures.clear()
    await bus.start()
    await bus.drain(timeout=None)
    assert seen == [1, 1], "what was not saved is delivered again"
    await bus.stop()


async def test_a_subscription_that_ended_is_released_although_it_cannot_be_saved() -> None:
    """The bus would stand by for itself after its next start, and ``drain`` return with nothing handled."""
    storage, clock = FailingStorage(), VirtualClock()
    seen: Recorder[int] = Recorder()

    async def handle(event: Moved) -> None:
        seen.add(event.n)

    bus = InMemoryEventBus(storage, clock=clock)
    subscription = bus.subscribe(Moved, handle, name="board")
    await bus.start()
    storage.failures["save"] = FULL_DISK
    await bus.publish(Moved("rook", 1))
    await seen.reach(1)
    bus.unsubscribe(subscription)
    bus.subscribe(Moved, handle, name="board")
    await bus.stop(timeout=0)
    storage.failures.clear()
    async with bus:
        await bus.drain(timeout=60)
        assert statistics_of(bus, "board")["state"] == "active"
    assert seen == [1, 1]  # what could not be saved is delivered again


async def test_a_failed_lease_renewal_is_retried_and_a_lost_lease_is_acquired_again() -> None:
    """After brief trouble, leases would no longer be renewed; a lost subscription would never return."""
    storage, clock = FailingStorage(), VirtualClock()
    bus = InMemoryEventBus(storage, clock=clock)
    seen: Recorder[int] = Recorder()

    async def handle(event: Moved) -> None:
        seen.add(event.n)

    bus.subscribe(Moved, handle, name="mover", retry=ONE_ATTEMPT)
    trouble, resumed = reports_of(bus, StorageTrouble), reports_of(bus, SubscriptionResumed)
    await bus.start()
    await bus.publish(Moved("a", 1))
    await bus.drain(timeout=None)
    storage.failures["renew"] = FULL_DISK
    await clock.advance(3.0)
    assert len(trouble) == 1
    storage.failures.clear()
    storage.lost = ["mover", "unknown"]
    epoch = bus._engine.consumers["mover"].epoch
    await storage.release_subscription("mover", epoch)  # as the other process does when it ends
    storage.failures["open"] = FULL_DISK
    await clock.advance(3.0)
    assert statistics_of(bus, "mover")["state"] == "standby"
    storage.lost = ["mover"]  # from a renewal in progress; it is already released
    await clock.advance(3.0)
    assert statistics_of(bus, "mover")["state"] == "standby"
    storage.failures.clear()
    await bus.publish(Moved("a", 2))
    await clock.advance(0.5)
    await resumed.reach(1)
    await bus.drain(timeout=None)
    assert seen == [1, 2]
    await bus.stop()


async def test_opening_a_subscription_is_retried_until_it_succeeds() -> None:
    """One that was added while the disk was full would stay silent for ever."""
    storage, clock = FailingStorage(), VirtualClock()
    bus = InMemoryEventBus(storage, clock=clock)
    seen: Recorder[int] = Recorder()

    async def handle(event: Moved) -> None:
        seen.add(event.n)

    trouble, resumed = reports_of(bus, StorageTrouble), reports_of(bus, SubscriptionResumed)
    await bus.start()
    storage.failures["open"] = FULL_DISK
    bus.subscribe(Moved, handle, name="late", start="beginning")
    await trouble.reach(1)
    await bus.publish(Moved("a", 1))
    assert bus.health().status == "degraded"
    [reason] = bus.health().reasons
    assert reason.startswith("subscription 'late' cannot be opened: ")
    storage.failures.clear()
    await clock.advance(0.5)
    await resumed.reach(1)
    await bus.drain(timeout=None)
    assert seen == [1]
    assert bus.health().status == "ok"
    await bus.stop()


async def test_periodic_work_ends_as_soon_as_a_bus_begins_to_stop() -> None:
    """Leases renewed or samples taken after the bus has released everything would take it back."""
    storage, clock = FailingStorage(), VirtualClock()
    bus = InMemoryEventBus(storage, clock=clock)
    entered, leave = asyncio.Event(), asyncio.Event()

    async def handle(event: Moved) -> None:
        entered.set()
        await leave.wait()

    bus.subscribe(Moved, handle, name="mover")
    await bus.start()
    await bus.publish(Moved("a", 1))
    await entered.wait()
    stopping = asyncio.create_task(bus.stop(timeout=600.0))
    await clock.settle()
    renewed, sampled = storage.tries("renew"), len(storage._samples)
    await clock.advance(60.0)
    assert (storage.tries("renew"), len(storage._samples)) == (renewed, sampled)
    leave.set()
    await stopping
    assert len(storage._samples) == sampled + 1, "the last seconds are recorded at the end"
