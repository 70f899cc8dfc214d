"""A full bus that drops its oldest deliveries."""

from __future__ import annotations

from pabal import RetryPolicy
from pabal.ports.telemetry import EventDropped
from tests.bus.samples import Moved, NoteTaken
from tests.bus.support import ONE_ATTEMPT, Backend, Recorder, count_calls, reports_of, statistics_of
from tests.bus.test_backpressure import Gate


async def test_drop_oldest_drops_counts_and_reports_the_longest_waiting_deliveries(memory: Backend) -> None:
    """Promise 19. The delivery that waited longest is dropped, never a running one, never silently."""
    bus = await memory.start_bus(worker_count=1, max_queue_size=10, backpressure="drop_oldest")
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
    assert statistics_of(bus, "gate")["dropped"] == 20
    assert [report.event_id for report in dropped] == [event.event_id for event in events[:20]]
    assert {report.subscription for report in dropped} == {"gate"}


async def test_drop_oldest_picks_the_oldest_across_keys_and_subscriptions(memory: Backend) -> None:
    """Age decides, not which key or handler is examined first."""
    bus = await memory.start_bus(worker_count=2, max_queue_size=6, backpressure="drop_oldest")
    one, two = Gate(), Gate()
    bus.subscribe(Moved, one, name="one")
    bus.subscribe(NoteTaken, two, name="two")
    await bus.publish(Moved("rook", 0))
    await bus.publish(NoteTaken(0))
    await one.entered.reach(1)
    await two.entered.reach(1)
    for n in range(1, 7):
        await bus.publish(Moved("rook", n) if n % 2 else NoteTaken(n))
    one.open.set()
    two.open.set()
    await bus.drain(60)
    assert sorted(one.handled) == [0, 3, 5]
    assert sorted(two.handled) == [0, 4, 6]


async def test_dropping_a_retry_unblocks_its_key(memory: Backend) -> None:
    """The oldest delivery may wait for a retry; dropping it must release its key and its count."""
    bus = await memory.start_bus(max_queue_size=2, backpressure="drop_oldest")
    seen: Recorder[int] = Recorder()
    calls: Recorder[int] = Recorder()

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


async def test_drop_oldest_accepts_a_new_event_when_only_running_deliveries_remain(memory: Backend) -> None:
    """Promise 19. A running delivery is never dropped, and dropping the new one would be silent."""
    bus = await memory.start_bus(worker_count=2, max_queue_size=1, backpressure="drop_oldest")
    gate = Gate()
    bus.subscribe(Moved, gate, name="gate")
    await bus.publish(Moved("rook", 0))
    await gate.entered.reach(1)
    await bus.publish(Moved("bishop", 1))
    await gate.entered.reach(2)
    gate.open.set()
    await bus.drain(60)
    assert sorted(gate.handled) == [0, 1]
    assert statistics_of(bus, "gate")["dropped"] == 0


async def test_a_dropped_delivery_does_not_block_handlers_of_a_higher_priority_number(
    memory: Backend,
) -> None:
    """Promise 16. A higher number would wait for the first attempt of a delivery that was dropped."""
    bus = await memory.start_bus(max_queue_size=4, backpressure="drop_oldest")
    first, second = Gate(), Gate()
    second.open.set()
    bus.subscribe(Moved, first, name="first", priority=1)
    bus.subscribe(Moved, second, name="second", priority=2)
    await bus.publish(Moved("rook", 1))
    await first.entered.reach(1)
    await bus.publish(Moved("rook", 2))
    await bus.publish(Moved("bishop", 3))  # drops 1 for "second" and 2 for "first"
    first.open.set()
    await bus.drain(60)
    assert first.handled == [1, 3] or first.handled == [3, 1]
    assert sorted(second.handled) == [2, 3]
    assert statistics_of(bus, "first")["dropped"] == statistics_of(bus, "second")["dropped"] == 1


async def test_drop_oldest_drops_deliveries_that_wait_for_a_retry(memory: Backend) -> None:
    """Retries of events without a key wait outside any lane; if spared, they would fill the memory."""
    bus = await memory.start_bus(max_queue_size=10, backpressure="drop_oldest")
    calls: Recorder[int] = Recorder()

    async def fail(event: NoteTaken) -> None:
        calls.add(event.n)
        raise ValueError("later")

    bus.subscribe(NoteTaken, fail, name="failing", retry=RetryPolicy(base_delay=3600, max_delay=3600))
    for n in range(50):
        await bus.publish(NoteTaken(n))
        await calls.reach(n + 1)
    assert bus.get_statistics()["queue_size"] == 10
    assert statistics_of(bus, "failing")["dropped"] == 40


async def test_the_cost_of_a_drop_does_not_depend_on_the_number_of_keys(memory: Backend) -> None:
    """Searching all lanes for each event would make a full bus slower, the larger its queue."""
    costs: list[int] = []
    for size in (256, 2048):
        bus = await memory.start_bus(worker_count=1, max_queue_size=size, backpressure="drop_oldest")
        gate = Gate()
        bus.subscribe(Moved, gate, name="gate")
        for n in range(size):
            await bus.publish(Moved(f"piece {n}", n))
        with count_calls() as counted:
            for n in range(200):
                await bus.publish(Moved(f"late {n}", n))
        costs.append(counted.calls)
        assert bus.get_statistics()["events_dropped"] == 200
        gate.open.set()
        await bus.drain(60)
    assert costs[1] < 2 * costs[0]


async def test_a_dead_letter_whose_retry_is_dropped_can_be_retried_again(memory: Backend) -> None:
    """The dead letter would be in retry for ever: neither delivered nor available for another retry."""
    bus = await memory.start_bus(worker_count=1, max_queue_size=2, backpressure="drop_oldest")
    gate = Gate()
    failing = True

    async def fail(event: NoteTaken) -> None:
        if failing:
            raise ValueError("parked")

    bus.subscribe(NoteTaken, fail, retry=ONE_ATTEMPT)
    bus.subscribe(Moved, gate)
    await bus.publish(NoteTaken(1))
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
