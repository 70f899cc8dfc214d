"""A full bus: publishers wait, are refused, or the oldest delivery is dropped and counted. Promise 19."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import pytest

from pabal import QueueFullError, Receipt, RetryPolicy
from pabal.errors import BusNotRunningError
from pabal.ports.telemetry import EventDropped
from tests.bus.samples import Moved, Noted
from tests.bus.support import ONCE, Backend, Seen, calls_counted, figures, reports_of, turns


async def _outcome(publishing: Awaitable[Receipt]) -> Receipt | Exception:
    [result] = await asyncio.gather(publishing, return_exceptions=True)
    assert isinstance(result, (Receipt, Exception))
    return result


class Gate:
    """Be a handler that lets nothing through until it is opened."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.entered: Seen[int] = Seen()
        self.handled: Seen[int] = Seen()

    async def handle(self, event: Any) -> None:
        self.entered.add(event.n)
        await self.open.wait()
        self.handled.add(event.n)


async def test_wait_lets_publishers_wait_and_loses_nothing(memory: Backend) -> None:
    """Promise 19. The queue stays within its size, and every publisher gets through in the end."""
    bus = await memory.running(worker_count=1, max_queue_size=10)
    gate = Gate()
    bus.subscribe(Moved, gate)
    publishers = [asyncio.create_task(bus.publish(Moved("rook", n))) for n in range(100)]
    await gate.entered.reach(1)
    await turns()
    assert sum(publisher.done() for publisher in publishers) == 10
    assert bus.get_statistics()["queue_size"] == 10
    assert bus.health().status == "degraded"
    assert "queue is full" in bus.health().reasons[0]
    gate.open.set()
    await asyncio.gather(*publishers)
    await bus.drain(60)
    assert gate.handled == list(range(100))
    assert bus.health().status == "ok"


async def test_raise_refuses_what_does_not_fit_and_keeps_what_did(memory: Backend) -> None:
    """Promise 19. The publisher is told, with the figures, and can decide."""
    bus = await memory.running(worker_count=1, max_queue_size=10, backpressure="raise")
    gate = Gate()
    bus.subscribe(Moved, gate)
    results = [await _outcome(bus.publish(Moved("rook", n))) for n in range(25)]
    refused = [result for result in results if isinstance(result, QueueFullError)]
    assert [(error.queue_size, error.max_queue_size) for error in refused] == [(10, 10)] * 15
    with pytest.raises(QueueFullError, match="publish slower"):
        await bus.publish_batch([Moved("rook", 99)])
    gate.open.set()
    await bus.drain(60)
    assert gate.handled == list(range(10))
    await bus.publish(Moved("rook", 100))
    await bus.drain(60)
    assert gate.handled[10] == 100


async def test_drop_oldest_drops_from_the_front_counts_and_reports(memory: Backend) -> None:
    """Promise 19. What is dropped is what has waited longest, never what is being handled; nothing goes
    silently.
    """
    bus = await memory.running(worker_count=1, max_queue_size=10, backpressure="drop_oldest")
    dropped = reports_of(bus, EventDropped)
    gate = Gate()
    bus.subscribe(Moved, gate, name="gate")
    await bus.publish(Moved("rook", 0))
    await gate.entered.reach(1)
    events = [Moved("rook", n) for n in range(1, 30)]
    for event in events:
        await bus.publish(event)
    assert bus.get_statistics()["queue_size"] == 10
    gate.open.set()
    await bus.drain(60)
    assert gate.handled == [0, *range(21, 30)]
    assert bus.get_statistics()["events_dropped"] == 20
    assert figures(bus, "gate")["dropped"] == 20
    assert [report.event_id for report in dropped] == [event.event_id for event in events[:20]]
    assert {report.subscription for report in dropped} == {"gate"}


async def test_drop_oldest_looks_for_the_oldest_across_keys_and_subscriptions(memory: Backend) -> None:
    """Age decides, not which key or handler happens to be looked at first."""
    bus = await memory.running(worker_count=2, max_queue_size=6, backpressure="drop_oldest")
    one, two = Gate(), Gate()
    bus.subscribe(Moved, one, name="one")
    bus.subscribe(Noted, two, name="two")
    await bus.publish(Moved("rook", 0))
    await bus.publish(Noted(0))
    await one.entered.reach(1)
    await two.entered.reach(1)
    for n in range(1, 7):
        await bus.publish(Moved("rook", n) if n % 2 else Noted(n))
    one.open.set()
    two.open.set()
    await bus.drain(60)
    assert sorted(one.handled) == [0, 3, 5]
    assert sorted(two.handled) == [0, 4, 6]


async def test_a_dropped_retry_lets_its_key_go_on(memory: Backend) -> None:
    """What waits for a retry may be the oldest; dropping it must free its key and its count."""
    bus = await memory.running(max_queue_size=2, backpressure="drop_oldest")
    seen: Seen[int] = Seen()
    calls: Seen[int] = Seen()

    async def handle(event: Moved) -> None:
        calls.add(event.n)
        if event.n == 0:
            raise ValueError("later")
        seen.add(event.n)

    bus.subscribe(Moved, handle, retry=RetryPolicy(base_delay=0.05, max_delay=0.05))
    await bus.publish(Moved("rook", 0))
    await calls.reach(1)
    await bus.publish(Moved("rook", 1))
    await bus.publish(Moved("rook", 2))
    await bus.drain(60)
    assert seen == [1, 2]
    assert bus.get_statistics()["events_dropped"] == 1
    assert bus.get_statistics()["retry_queue_size"] == 0


@pytest.mark.parametrize("policy", ["wait", "raise", "drop_oldest"])
async def test_events_that_nobody_wants_need_no_room(memory: Backend, policy: Any) -> None:
    """A full queue of one kind must not refuse what takes no place in it."""
    bus = await memory.running(max_queue_size=1, backpressure=policy)
    gate = Gate()
    bus.subscribe(Moved, gate)
    await bus.publish(Moved("rook", 1))
    for n in range(5):
        await bus.publish(Noted(n))
    assert bus.get_statistics()["events_dropped"] == 0
    gate.open.set()
    await bus.drain(60)
    assert gate.handled == [1]


@pytest.mark.parametrize("size", [1, 2, 5])
async def test_publishing_inside_a_handler_of_a_full_bus_is_no_deadlock(backend: Backend, size: int) -> None:
    """If handlers waited for room, nobody would be left to make any."""
    bus = await backend.running(worker_count=2, max_queue_size=size)
    seen: Seen[int] = Seen()

    async def on_moved(event: Moved) -> None:
        await bus.publish(Noted(event.n))
        await bus.publish_batch([Noted(100 + event.n), Noted(200 + event.n)])
        await asyncio.gather(*(bus.publish(Noted(300 + event.n)) for _ in range(3)))

    async def on_noted(event: Noted) -> None:
        await asyncio.sleep(0)
        seen.add(event.n)

    bus.subscribe(Moved, on_moved, retry=ONCE)
    bus.subscribe(Noted, on_noted)
    for n in range(20):
        await bus.publish(Moved(f"piece-{n % 3}", n))
    await bus.drain(20)
    assert len(seen) == 20 * 6


async def test_a_batch_handler_that_publishes_into_a_full_bus_is_no_deadlock(memory: Backend) -> None:
    """Batches take another way through the worker, which must be known as a handler too."""
    bus = await memory.running(worker_count=1, max_queue_size=1)
    seen: Seen[int] = Seen()

    async def on_moved(events: list[Moved]) -> None:
        await asyncio.gather(*(bus.publish(Noted(event.n)) for event in events))

    async def on_noted(event: Noted) -> None:
        seen.add(event.n)

    bus.subscribe(Moved, on_moved, batch=5)
    bus.subscribe(Noted, on_noted)
    await bus.publish_batch([Moved("rook", n) for n in range(10)])
    await bus.drain(20)
    assert sorted(seen) == list(range(10))


async def test_a_task_that_outlives_its_handler_waits_like_any_publisher(memory: Backend) -> None:
    """Only a handler that is being waited for must not wait; a background task that never does would fill
    the memory.
    """
    bus = await memory.running(worker_count=1, max_queue_size=3)
    gate = Gate()
    tasks: list[asyncio.Task[None]] = []
    may_publish = asyncio.Event()

    async def background() -> None:
        await may_publish.wait()
        for n in range(20):
            await bus.publish(Noted(n))

    async def on_moved(event: Moved) -> None:
        tasks.append(asyncio.create_task(background()))

    bus.subscribe(Moved, on_moved)
    bus.subscribe(Noted, gate)
    await bus.publish(Moved("rook"))
    await bus.drain(60)
    may_publish.set()
    await gate.entered.reach(1)
    await turns()
    assert not tasks[0].done()
    assert bus.get_statistics()["queue_size"] <= 4
    gate.open.set()
    await tasks[0]
    await bus.drain(60)
    assert gate.handled == list(range(20))


async def test_a_publisher_cancelled_as_it_is_let_in_passes_its_place_on(memory: Backend) -> None:
    """A wake-up that goes to somebody who is leaving must not be the last one."""
    bus = await memory.running(max_queue_size=1)
    loop = asyncio.get_running_loop()
    release = asyncio.Event()
    publishers: list[asyncio.Task[Any]] = []

    async def handle(event: Moved) -> None:
        if event.n == 0:
            await release.wait()
            loop.call_soon(publishers[0].cancel)

    bus.subscribe(Moved, handle)
    await bus.publish(Moved("rook", 0))
    publishers += [asyncio.create_task(bus.publish(Moved("rook", n))) for n in (1, 2, 3)]
    await turns()
    release.set()
    await asyncio.wait_for(asyncio.gather(*publishers[1:]), 10)
    await bus.drain(60)


async def test_room_made_by_unsubscribing_lets_publishers_in(memory: Backend) -> None:
    """No handler ends when a subscription goes, so nothing else would wake those who wait."""
    bus = await memory.running(max_queue_size=1)
    calls: Seen[int] = Seen()

    async def fail(event: Moved) -> None:
        calls.add(event.n)
        raise ValueError("in an hour")

    async def note(event: Noted) -> None: ...

    subscription = bus.subscribe(Moved, fail, retry=RetryPolicy(base_delay=3600, max_delay=3600))
    bus.subscribe(Noted, note)
    await bus.publish(Moved("rook"))
    await calls.reach(1)
    publisher = asyncio.create_task(bus.publish(Noted(1)))
    await turns()
    assert not publisher.done()
    bus.unsubscribe(subscription)
    await asyncio.wait_for(publisher, 10)
    await bus.drain(60)


async def test_a_lagging_subscription_does_not_hold_publishers_of_a_stored_bus(stored: Backend) -> None:
    """With a log the queue is on disk: what does not fit in memory waits there, not in the publisher."""
    bus = await stored.running(max_queue_size=10)
    gate = Gate()
    bus.subscribe(Moved, gate)
    for n in range(100):
        await bus.publish_batch([Moved(f"piece-{m % 5}", m) for m in range(n * 100, n * 100 + 100)])
    assert bus.get_statistics()["queue_size"] <= 5000, "memory must stay bounded"
    gate.open.set()
    await bus.drain(30)
    assert sorted(gate.handled) == list(range(10_000))


async def test_a_full_intake_of_a_stored_bus_raises_where_that_is_the_policy(tmp_path: Path) -> None:
    """Promise 19. What can pile up on a stored bus is what waits for its commit; in memory nothing waits."""
    backend = Backend("sqlite", tmp_path)
    bus = await backend.running(max_queue_size=5, backpressure="raise")
    results = await asyncio.gather(
        *(bus.publish(Moved("rook", n)) for n in range(20)), return_exceptions=True
    )
    refused = [result for result in results if isinstance(result, QueueFullError)]
    assert len(refused) == 15
    assert bus.storage is not None
    assert await bus.storage.head() == 5
    await backend.close()


async def test_where_nothing_is_left_to_drop_a_new_event_is_taken_all_the_same(memory: Backend) -> None:
    """Promise 19. What is being handled is never dropped, and dropping the new one would be silent."""
    bus = await memory.running(worker_count=2, max_queue_size=1, backpressure="drop_oldest")
    gate = Gate()
    bus.subscribe(Moved, gate, name="gate")
    await bus.publish(Moved("rook", 0))
    await gate.entered.reach(1)
    await bus.publish(Moved("bishop", 1))
    await gate.entered.reach(2)
    gate.open.set()
    await bus.drain(60)
    assert sorted(gate.handled) == [0, 1]
    assert figures(bus, "gate")["dropped"] == 0


async def test_a_dropped_delivery_holds_up_no_one_of_a_higher_number(memory: Backend) -> None:
    """Promise 16. Who waits for the first attempt of a lower number would wait for one that is dropped."""
    bus = await memory.running(max_queue_size=4, backpressure="drop_oldest")
    first, second = Gate(), Gate()
    second.open.set()
    bus.subscribe(Moved, first, name="first", priority=1)
    bus.subscribe(Moved, second, name="second", priority=2)
    await bus.publish(Moved("rook", 1))
    await first.entered.reach(1)
    await bus.publish(Moved("rook", 2))
    await bus.publish(Moved("bishop", 3))  # for which the 1 of the second and the 2 of the first give way
    first.open.set()
    await bus.drain(60)
    assert first.handled == [1, 3] or first.handled == [3, 1]
    assert sorted(second.handled) == [2, 3]
    assert figures(bus, "first")["dropped"] == figures(bus, "second")["dropped"] == 1


async def test_a_stop_passes_over_publishers_that_have_given_up(memory: Backend) -> None:
    """Counted as let in, they would take away room from the next start's publishers for ever."""
    bus = await memory.running(worker_count=1, max_queue_size=1)
    gate = Gate()
    bus.subscribe(Moved, gate, name="gate")
    await bus.publish(Moved("rook", 0))
    await gate.entered.reach(1)
    impatient = asyncio.ensure_future(bus.publish(Moved("rook", 1)))
    waiting = asyncio.ensure_future(bus.publish(Moved("rook", 2)))
    await turns()
    impatient.cancel()
    await turns()
    await bus.stop(timeout=0)
    assert isinstance(await _outcome(waiting), BusNotRunningError)
    assert impatient.cancelled()
    gate.open.set()
    await bus.start()
    async with asyncio.timeout(60):
        for n in range(3, 6):
            await bus.publish(Moved("rook", n))
    await bus.drain(60)
    assert gate.handled == [3, 4, 5]


async def test_drop_oldest_drops_what_waits_for_a_retry_too(memory: Backend) -> None:
    """Events without a key wait for their retry outside of any lane; spared, they would fill the memory."""
    bus = await memory.running(max_queue_size=10, backpressure="drop_oldest")
    calls: Seen[int] = Seen()

    async def fail(event: Noted) -> None:
        calls.add(event.n)
        raise ValueError("later")

    bus.subscribe(Noted, fail, name="failing", retry=RetryPolicy(base_delay=3600, max_delay=3600))
    for n in range(50):
        await bus.publish(Noted(n))
        await calls.reach(n + 1)
    assert bus.get_statistics()["queue_size"] == 10
    assert figures(bus, "failing")["dropped"] == 40


async def test_dropping_costs_the_same_however_many_keys_wait(memory: Backend) -> None:
    """Looking through all lanes for each event makes a full bus slower the larger it is allowed to be."""
    costs: list[int] = []
    for size in (256, 2048):
        bus = await memory.running(worker_count=1, max_queue_size=size, backpressure="drop_oldest")
        gate = Gate()
        bus.subscribe(Moved, gate, name="gate")
        for n in range(size):
            await bus.publish(Moved(f"piece {n}", n))
        with calls_counted() as counted:
            for n in range(200):
                await bus.publish(Moved(f"late {n}", n))
        costs.append(counted.calls)
        assert bus.get_statistics()["events_dropped"] == 200
        gate.open.set()
        await bus.drain(60)
    assert costs[1] < 2 * costs[0]


async def test_a_dead_letter_whose_retry_is_dropped_can_be_retried_again(memory: Backend) -> None:
    """It would be under way for ever: neither delivered, nor to be retried."""
    bus = await memory.running(worker_count=1, max_queue_size=2, backpressure="drop_oldest")
    gate = Gate()
    failing = True

    async def fail(event: Noted) -> None:
        if failing:
            raise ValueError("parked")

    bus.subscribe(Noted, fail, retry=ONCE)
    bus.subscribe(Moved, gate)
    await bus.publish(Noted(1))
    await bus.drain(60)
    [letter] = await bus.dead_letters.list()
    await bus.publish(Moved("rook", 1))
    await gate.entered.reach(1)
    failing = False
    assert await bus.dead_letters.retry(letter.id) == 1
    for n in range(3):
        await bus.publish(Moved(f"piece {n}", n))
    [letter] = await bus.dead_letters.list()
    assert letter.state == "parked"
    gate.open.set()
    await bus.drain(60)
    assert await bus.dead_letters.retry(letter.id) == 1
    await bus.drain(60)
    assert await bus.dead_letters.list() == []


async def test_publishers_that_give_up_leave_nothing_behind(memory: Backend) -> None:
    """With a handler that hangs, a publisher that tries again and again would fill the memory."""
    bus = await memory.running(max_queue_size=1)
    gate = Gate()
    bus.subscribe(Moved, gate)
    await bus.publish(Moved("rook", 1))
    for _ in range(5):
        publishing = asyncio.create_task(bus.publish(Moved("rook", 2)))
        await turns(3)
        publishing.cancel()
        await asyncio.wait([publishing])
    assert len(bus._engine.admission.waiters) == 0
    gate.open.set()
    await bus.drain(60)
