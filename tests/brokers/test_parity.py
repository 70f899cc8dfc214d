"""A bus on a server reports and behaves like any other bus, without delay."""

from __future__ import annotations

import asyncio

import pytest

from pabal import NotRetryableError
from pabal.brokers.redis import RedisEventBus
from pabal.brokers.redis.partition import PartitionStorage
from pabal.delivery import redelivery
from pabal.delivery.failure import Failures
from pabal.errors import BusNotRunningError
from pabal.ports.telemetry import AttemptFailed
from tests.brokers.events import Moved, moves, until
from tests.brokers.server import Server
from tests.brokers.support import make_bus


async def test_dead_letters_are_counted_as_soon_as_they_are_parked(
    shared_server: Server, namespace: str
) -> None:
    """Statistics and health would show them late, so a check after ``drain()`` would see none."""
    is_broken = True

    async def handle(event: Moved) -> None:
        if is_broken:
            raise ValueError("no")

    async with make_bus(shared_server, namespace, handle) as bus:
        await bus.publish_batch(moves(5, 20))
        await bus.drain(timeout=30)
        assert bus.get_statistics()["failed_events_count"] == 20
        assert bus.health().status == "degraded"
        is_broken = False
        assert await bus.dead_letters.retry("all") == 20
        await bus.drain(timeout=30)
        assert (bus.get_statistics()["failed_events_count"], bus.health().status) == (0, "ok")


async def test_dead_letters_of_other_processes_are_counted_after_the_next_round(
    shared_server: Server, namespace: str
) -> None:
    """A process would count only its own dead letters, or still count those another has discarded."""

    async def fail(event: Moved) -> None:
        raise ValueError("no")

    def count(bus: RedisEventBus) -> int:
        return int(bus.get_statistics()["failed_events_count"])

    async with (
        make_bus(shared_server, namespace, fail) as one,
        make_bus(shared_server, namespace, fail) as other,
    ):
        await until(lambda: bool(one.partitions and other.partitions))
        await one.publish_batch(moves(40, 40))
        await one.drain(timeout=30)
        await until(lambda: count(one) == count(other) == 40)
        assert await one.clear_failed_events() == 40
        await until(lambda: count(one) == count(other) == 0)


async def test_health_reports_failing_when_a_worker_ends_by_an_internal_error(
    shared_server: Server, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A monitor that checks for ``failing`` would not notice that a process delivers less, or nothing."""

    def faulty(*arguments: object) -> None:
        raise AssertionError("a fault")

    async def fail(event: Moved) -> None:
        raise ValueError("no")

    monkeypatch.setattr(Failures, "failed", faulty)
    bus = make_bus(shared_server, namespace, fail)
    await bus.start()
    try:
        await bus.publish_batch(moves(1, 1))
        await until(lambda: bus.health().status == "failing")
        (reason,) = bus.health().reasons
        assert " workers have ended" in reason
    finally:
        await bus.stop(timeout=0.1)  # the delivery of the ended worker never finishes


@pytest.mark.parametrize("what", ["drain", "wait_for"])
async def test_stop_makes_waiting_calls_raise_bus_not_running_error(
    shared_server: Server, namespace: str, what: str
) -> None:
    """Applications expect BusNotRunningError, but would get an error about a log they never opened."""

    async def hang(event: Moved) -> None:
        await asyncio.Event().wait()

    async with make_bus(shared_server, namespace, hang) as bus:
        await bus.publish(Moved("a", 1))
        waiting = asyncio.create_task(bus.drain() if what == "drain" else bus.wait_for(Moved))
        await asyncio.sleep(0)
        await bus.stop(timeout=0)
        with pytest.raises(BusNotRunningError):
            await waiting


async def test_a_handler_cancelled_by_stop_may_finish_its_cleanup(
    shared_server: Server, namespace: str
) -> None:
    """If cancelled again while it cleans up, it would leave files and connections open."""
    begun, tidied, go_on = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def handle(event: Moved) -> None:
        if begun.is_set():
            return
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            await go_on.wait()
            tidied.set()

    bus = make_bus(shared_server, namespace, handle)
    await bus.start()
    await bus.publish(Moved("a", 1))
    await begun.wait()
    await bus.stop(timeout=0)
    starting = asyncio.create_task(bus.start())
    await asyncio.sleep(0)
    assert not starting.done()
    assert not tidied.is_set()
    go_on.set()
    await starting
    assert tidied.is_set()
    await bus.stop()


async def test_health_reports_a_name_without_a_subscriber_once(shared_server: Server, namespace: str) -> None:
    """Health would have a separate reason for each partition, each with another number."""
    async with make_bus(shared_server, namespace, ignore) as bus:
        await bus.publish(Moved("a", 0))
        await bus.drain(timeout=30)
    async with make_bus(shared_server, namespace) as publisher:
        await publisher.publish_batch(moves(20, 40))
    renamed = make_bus(shared_server, namespace)
    renamed.subscribe(Moved, ignore, name="renamed")
    async with renamed:
        await until(lambda: len(renamed.partitions) == 8)
        health = renamed.health()
    assert health.status == "degraded"
    assert health.reasons == ("40 events wait for 'sub', but nothing is subscribed under that name",)


async def ignore(event: Moved) -> None: ...


async def test_drain_waits_for_events_that_handlers_publish(
    shared_server: Server, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It could return in the middle of a chain, when the engine does not know of the next event yet."""
    # Make the bus learn of its own events later than it saves its progress.
    note_head = RedisEventBus._note_head

    def note_head_late(self: RedisEventBus, partition: int, head: int) -> None:
        asyncio.get_running_loop().call_later(0.05, note_head, self, partition, head)

    monkeypatch.setattr(RedisEventBus, "_note_head", note_head_late)
    monkeypatch.setattr(PartitionStorage, "appended", lambda self, first, events: None)
    bus = make_bus(shared_server, namespace)
    seen: list[int] = []

    async def pass_on(event: Moved) -> None:
        seen.append(event.number)
        if event.number < 8:
            await bus.publish(Moved(f"{event.number}", event.number + 1))

    bus.subscribe(Moved, pass_on, name="chain")
    async with bus:
        await bus.publish(Moved("first", 0))
        await bus.drain(timeout=30)
        assert seen == list(range(9))


async def test_discarding_dead_letters_makes_room_for_new_ones(
    shared_server: Server, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A subscription would halt for too many dead letters, although all were discarded."""
    monkeypatch.setattr(redelivery, "MOST_KEPT", 5)

    async def fail(event: Moved) -> None:
        raise NotRetryableError("never")

    async with make_bus(shared_server, namespace, fail, partitions=1) as bus:
        for _ in range(3):
            await bus.publish_batch(moves(1, 3))
            await bus.drain(timeout=30)
            assert await bus.clear_failed_events() == 3
            await until(lambda: bus._group_engine.engines()[0].parked == 0)
        assert bus.get_statistics()["subscriptions"]["sub"]["state"] == "active"
        assert bus.health().status == "ok"


async def test_the_same_seed_gives_the_same_delays_before_retries(
    shared_server: Server, namespace: str
) -> None:
    """A failure that depends on the timing of retries could not be repeated."""

    async def fail(event: Moved) -> None:
        raise ValueError("no")

    async def delays(seed: int, where: str) -> list[float | None]:
        found: list[float | None] = []
        bus = make_bus(shared_server, where, fail, partitions=1, seed=seed)
        bus.listen(lambda report: found.append(report.delay) if isinstance(report, AttemptFailed) else None)
        async with bus:
            await bus.publish(Moved("a", 1))
            await bus.drain(timeout=30)
        return found

    first, again, other = [await delays(seed, f"{namespace}-{run}") for run, seed in enumerate((7, 7, 8))]
    assert first == again != other
