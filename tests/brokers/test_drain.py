"""``drain`` and the partitions that other processes of the group handle."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from pabal.brokers.redis import RedisEventBus
from pabal.errors import NotRetryableError
from pabal.ports.telemetry import Report, SubscriptionHalted
from tests.brokers.events import Moved, Recorder, moves, until
from tests.brokers.server import Server
from tests.brokers.support import make_bus
from tests.brokers.test_subscription_reading import LATER


@asynccontextmanager
async def two_processes(
    server: Server, namespace: str, mine: Any, theirs: Any, **options: Any
) -> AsyncIterator[tuple[RedisEventBus, RedisEventBus]]:
    """Yield two buses, each with its own handler and one of two partitions."""
    one, two = (make_bus(server, namespace, partitions=2) for _ in range(2))
    one.subscribe(Moved, mine, name="sub", **options)
    two.subscribe(Moved, theirs, name="sub", **options)
    await one.start()
    await two.start()
    try:
        await until(lambda: len(one.partitions) == len(two.partitions) == 1)
        yield one, two
    finally:
        await one.stop()
        await two.stop()


async def test_drain_without_retries_waits_for_all_but_the_retries_of_another_process(
    shared_server: Server, namespace: str
) -> None:
    """Leaving ``async with bus`` would last until the retries of other processes, even for hours."""
    gate, handled = asyncio.Event(), []

    async def fail_first(event: Moved) -> None:
        if event.number < 8:
            raise ConnectionError("not now")
        handled.append(event.number)

    async def fail_first_or_wait(event: Moved) -> None:
        await fail_first(event)
        await gate.wait()

    async with two_processes(shared_server, namespace, fail_first, fail_first_or_wait, retry=LATER) as (
        one,
        _,
    ):
        # Each key has one event that fails, and one that waits behind it.
        await one.publish_batch(moves(8, 16))
        await one.drain(timeout=30, retries=False)
        assert not handled
        await one.publish_batch([Moved(f"other-{number}", number) for number in range(16, 24)])
        draining = asyncio.ensure_future(one.drain(timeout=30, retries=False))
        await asyncio.wait([draining], timeout=0.3)
        assert not draining.done()
        gate.set()
        await draining
        assert sorted(handled) == list(range(16, 24))


@pytest.mark.parametrize("retries", [True, False])
async def test_drain_does_not_wait_for_a_subscription_that_halted_in_another_process(
    shared_server: Server, namespace: str, retries: bool
) -> None:
    """Leaving ``async with bus`` would last until an operator resumes the subscription."""

    async def fail(event: Moved) -> None:
        raise ValueError("no")

    async with two_processes(
        shared_server, namespace, lambda event: None, fail, retry_count=0, on_exhausted="stop"
    ) as (one, two):
        await one.publish_batch(moves(8, 8))
        await until(lambda: two.health().status == "failing")
        await one.drain(timeout=30, retries=retries)
        await two.drain(timeout=30, retries=retries)


async def test_drain_waits_for_a_handler_of_a_halted_subscription_whose_partition_is_handed_over(
    shared_server: Server, namespace: str
) -> None:
    """The program would go on, and could close what the handler uses, while the handler still runs."""
    gates: dict[str, asyncio.Event] = {}
    doomed: set[str] = set()

    async def handle(event: Moved) -> None:
        if event.key in doomed:
            raise NotRetryableError("no")
        await gates[event.key].wait()

    async with (
        make_bus(shared_server, namespace, partitions=2, worker_count=4) as one,
        make_bus(shared_server, namespace, partitions=2) as two,
    ):
        receipts = [(f"k{number}", await one.publish(Moved(f"k{number}", number))) for number in range(16)]
        by_partition: dict[int, list[str]] = {0: [], 1: []}
        for key, receipt in receipts:
            assert receipt.position is not None
            by_partition[one._log.place_of(receipt.position)[0]].append(key)
        gates |= {key: asyncio.Event() for key, _ in receipts}
        doomed |= {keys[1] for keys in by_partition.values()}
        halted: list[Report] = []
        one.listen(lambda report: halted.append(report) if isinstance(report, SubscriptionHalted) else None)
        one.subscribe(Moved, handle, name="sub", on_exhausted="stop")
        await until(lambda: len(one.partitions) == 2)
        await one.publish_batch([Moved(key, 1) for keys in by_partition.values() for key in keys[:2]])
        await until(lambda: len(halted) == 2)
        two.subscribe(Moved, handle, name="sub", on_exhausted="stop")
        running = one._group_engine.running
        await until(lambda: any(part.ending is not None for part in running.values()))
        [given] = [number for number, part in running.items() if part.ending is not None]
        gates[by_partition[1 - given][0]].set()
        draining = asyncio.ensure_future(one.drain(timeout=30))
        await asyncio.wait([draining], timeout=0.3)
        assert not draining.done()
        gates[by_partition[given][0]].set()
        await draining


class Failing:
    """A handler that fails until it is mended, and then waits at a gate before an event is done."""

    def __init__(self) -> None:
        self.error: type[Exception] = NotRetryableError
        self.gate = asyncio.Event()
        self.fails: Callable[[Moved], bool] = lambda event: True
        self.waits: Callable[[Moved], bool] = lambda event: True
        self.at_gate = 0
        self.handled: list[int] = []

    async def handle(self, event: Moved) -> None:
        if self.fails(event):
            raise self.error("not now")
        if self.waits(event):
            self.at_gate += 1
            await self.gate.wait()
            self.at_gate -= 1
        self.handled.append(event.number)

    async def holds(self, draining: asyncio.Future[None]) -> None:
        """Check that ``drain`` waits for what is at the gate, and for nothing else."""
        await until(lambda: self.at_gate > 0)
        await asyncio.wait([draining], timeout=0.3)
        assert not draining.done()
        self.gate.set()
        await draining


@pytest.mark.parametrize("retries", [True, False])
async def test_drain_waits_for_a_retried_dead_letter_that_another_process_handles(
    shared_server: Server, namespace: str, retries: bool
) -> None:
    """After ``retry`` and ``drain``, a script would report success while dead letters still fail."""
    mine, theirs = Failing(), Failing()
    mine.gate.set()
    async with two_processes(shared_server, namespace, mine, theirs) as (one, _):
        await one.publish_batch(moves(8, 8))
        await one.drain(timeout=30)
        mine.fails = theirs.fails = lambda event: False
        assert await one.dead_letters.retry("all") == 8
        await theirs.holds(asyncio.ensure_future(one.drain(timeout=30, retries=retries)))
        assert sorted(mine.handled + theirs.handled) == list(range(8))
        assert not await one.dead_letters.list()


@pytest.mark.parametrize("retries", [True, False])
@pytest.mark.parametrize("action", ["retry", "discard"])
async def test_drain_waits_for_the_queue_behind_a_dead_letter_that_another_process_reads_back(
    shared_server: Server, namespace: str, action: str, retries: bool
) -> None:
    """The events behind a retried dead letter would still be under way after ``drain``."""
    mine, theirs = Failing(), Failing()
    mine.gate.set()
    theirs.waits = lambda event: event.number >= 8
    async with two_processes(shared_server, namespace, mine, theirs, on_exhausted="park_key") as (one, _):
        await one.publish_batch(moves(8, 24))
        await one.drain(timeout=30)  # it does not wait for what queues behind a dead letter
        mine.fails = theirs.fails = lambda event: False
        assert await getattr(one.dead_letters, action)("all") == 8
        await theirs.holds(asyncio.ensure_future(one.drain(timeout=30, retries=retries)))
        assert sorted(mine.handled + theirs.handled) == list(range(8 if action == "discard" else 0, 24))


async def test_drain_without_retries_does_not_wait_for_the_retries_of_what_another_process_delivers_again(
    shared_server: Server, namespace: str
) -> None:
    """Leaving ``async with bus`` would last until a retry that is due in an hour."""
    mine, theirs = Failing(), Failing()
    for one in (mine, theirs):
        one.gate.set()
        one.fails = lambda event: event.number < 8
    async with two_processes(
        shared_server, namespace, mine, theirs, on_exhausted="park_key", retry=LATER
    ) as (bus, _):
        await bus.publish_batch(moves(8, 24))
        await bus.drain(timeout=30)
        mine.error = theirs.error = ConnectionError
        assert await bus.dead_letters.retry("all") == 8
        await bus.drain(timeout=30, retries=False)  # all dead letters wait for another attempt
        assert {letter.state for letter in await bus.dead_letters.list()} == {"retrying"}
        mine.fails = theirs.fails = lambda event: 8 <= event.number < 16
        await bus.dead_letters.discard("all")
        await bus.drain(timeout=30, retries=False)  # the first of each queue does
        assert mine.handled == theirs.handled == []


async def test_drain_waits_for_a_subscription_that_was_resumed_a_moment_ago(
    shared_server: Server, namespace: str
) -> None:
    """It would return at once, because this process has not noticed yet that the pause has ended."""
    mine, theirs = Failing(), Failing()
    mine.gate.set()
    mine.fails = theirs.fails = lambda event: False
    async with two_processes(shared_server, namespace, mine, theirs) as (one, two):
        await two.subscriptions.pause("sub")
        await until(lambda: one._coordinator is not None and "sub" in one._coordinator.controls.paused)
        await one.publish_batch(moves(8, 8))
        await one.drain(timeout=30)
        assert one._coordinator is not None
        one._coordinator.controls.refresh = never  # type: ignore[method-assign]
        assert await two.subscriptions.resume("sub")
        await theirs.holds(asyncio.ensure_future(one.drain(timeout=30)))


async def never(version: int) -> bool:
    return False


async def test_drain_waits_for_a_replay_in_another_process(shared_server: Server, namespace: str) -> None:
    """A script that repeats the events of a faulty release would end before they have been handled again."""
    mine, theirs = Failing(), Failing()
    mine.gate.set()
    theirs.gate.set()
    mine.fails = theirs.fails = lambda event: False
    async with two_processes(shared_server, namespace, mine, theirs) as (one, _):
        await one.publish_batch(moves(8, 8))
        await one.drain(timeout=30)
        theirs.gate.clear()
        await one.subscriptions.replay("sub")
        await theirs.holds(asyncio.ensure_future(one.drain(timeout=30)))
        assert sorted(mine.handled + theirs.handled) == sorted([*range(8)] * 2)


@pytest.mark.parametrize("again", ["reset", "replay"])
async def test_drain_waits_for_a_request_that_another_process_has_not_noticed_yet(
    shared_server: Server, namespace: str, again: str
) -> None:
    """It would return before the first of the events to be repeated is delivered."""
    both = Recorder()
    async with two_processes(shared_server, namespace, both, both) as (one, two):
        await one.publish_batch(moves(8, 8))
        await one.drain(timeout=30)
        assert two._coordinator is not None
        controls = two._coordinator.controls
        notice, controls.refresh = controls.refresh, never  # type: ignore[method-assign]
        await getattr(one.subscriptions, again)("sub", "beginning" if again == "reset" else 1)
        draining = asyncio.ensure_future(one.drain(timeout=30))
        await asyncio.wait([draining], timeout=0.3)
        assert not draining.done()
        controls.refresh = notice  # type: ignore[method-assign]
        await draining
        assert sorted(both.numbers) == sorted([*range(8)] * 2)


async def test_drain_without_retries_does_not_wait_for_the_retries_of_another_process_s_replay(
    shared_server: Server, namespace: str
) -> None:
    """Leaving ``async with bus`` would last until a retry that is due in an hour."""
    mine, theirs = Failing(), Failing()
    mine.gate.set()
    theirs.gate.set()
    mine.fails = theirs.fails = lambda event: False
    async with two_processes(shared_server, namespace, mine, theirs, retry=LATER) as (one, _):
        await one.publish_batch(moves(8, 8))
        await one.drain(timeout=30)
        first = len(mine.handled)
        theirs.error, theirs.fails = ConnectionError, lambda event: True
        await one.subscriptions.replay("sub")
        await one.drain(timeout=30, retries=False)
        assert len(mine.handled) == 2 * first
        assert sum(record.retries for record in await one.subscriptions.list()) == 8 - first
        await one.subscriptions.replay("sub")  # it waits for the end of the first one, and so do new events
        await one.publish_batch(moves(8, 8))
        await one.drain(timeout=30, retries=False)
        assert len(theirs.handled) == 8 - first
