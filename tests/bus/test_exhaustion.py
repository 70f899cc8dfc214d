"""``on_exhausted``: park the event, park its key, or stop the subscription. Promise 26."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from pabal import BaseEventBus
from pabal.errors import SubscriptionError, SubscriptionNotFoundError
from pabal.ports.telemetry import SubscriptionHalted, SubscriptionResumed
from tests.bus.samples import Moved, NoteTaken
from tests.bus.support import (
    ONE_ATTEMPT,
    Backend,
    Recorder,
    by_piece,
    numbers,
    reports_of,
    spin_loop,
    statistics_of,
    watermark,
)


class Fragile:
    """A handler that fails for certain numbers until it is fixed, and records the events that succeeded."""

    def __init__(self, *poison: int) -> None:
        self.handled: Recorder[Any] = Recorder()
        self.attempts: Counter[int] = Counter()
        self.poison = set(poison)

    async def handle(self, event: Any) -> None:
        self.attempts[event.n] += 1
        await asyncio.sleep(0)
        if event.n in self.poison:
            raise ValueError(f"{event.n} is poisonous")
        self.handled.add(event)


async def publish_keys(bus: BaseEventBus) -> None:
    """Publish 1 … 10 of key A, and 101 … 110 of key B between them."""
    for n in range(1, 11):
        await bus.publish_batch([Moved("A", n), Moved("B", 100 + n)])


async def test_park_parks_one_event_and_delivers_its_successors(backend: Backend) -> None:
    """Promise 26. An event that cannot be handled must stop neither its key nor its subscription."""
    bus = await backend.start_bus()
    fragile = Fragile(3)
    bus.subscribe(Moved, fragile, name="book", retry=ONE_ATTEMPT)
    await publish_keys(bus)
    await bus.drain(60)
    assert by_piece(fragile.handled) == {
        "A": [1, 2, 4, 5, 6, 7, 8, 9, 10],
        "B": list(range(101, 111)),
    }
    assert [letter.event.n for letter in await bus.dead_letters.list()] == [3]
    assert watermark(bus, "book") == (20 if backend.stored else None), "a parked event is finished"


async def test_stop_halts_the_subscription_and_health_reports_failing(backend: Backend) -> None:
    """Promise 26. The bad event is neither parked nor skipped, and the watermark stays below it."""
    bus = await backend.start_bus(worker_count=1)
    halted = reports_of(bus, SubscriptionHalted)
    fragile, other = Fragile(3), Fragile()
    bus.subscribe(
        Moved, fragile, name="book", retry=ONE_ATTEMPT, on_exhausted="stop", ordering=lambda event: "all"
    )
    bus.subscribe(Moved, other, name="other")
    await publish_keys(bus)
    await bus.drain(60)
    assert numbers(fragile.handled) == [1, 101, 2, 102]
    assert len(other.handled) == 20
    assert await bus.dead_letters.list() == []
    health = bus.health()
    assert (health.status, bool(health)) == ("failing", False)
    assert "'book'" in health.reasons[0]
    assert "3 is poisonous" in health.reasons[0] or "failed 1 of 1" in health.reasons[0]
    assert [report.subscription for report in halted] == ["book"]
    assert statistics_of(bus, "book")["state"] == "halted"
    assert watermark(bus, "book") == (4 if backend.stored else None)


async def test_a_halted_subscription_handles_no_new_events(backend: Backend) -> None:
    """Events published meanwhile must not be handled early, block drain(), or fill the queue."""
    bus = await backend.start_bus(max_queue_size=10)
    fragile = Fragile(1)
    bus.subscribe(Moved, fragile, name="book", retry=ONE_ATTEMPT, on_exhausted="stop")
    await bus.publish(Moved("A", 1))
    await bus.drain(60)
    for n in range(2, 50):
        await bus.publish(Moved("A", n))
    await bus.drain(60)
    assert fragile.handled == []
    assert bus.get_statistics()["queue_size"] == 0
    assert watermark(bus, "book") == (0 if backend.stored else None)


async def test_resume_continues_from_the_watermark(stored: Backend) -> None:
    """Promise 26. Once the cause is fixed, nothing may be missing or handled twice."""
    bus = await stored.start_bus(worker_count=1)
    fragile = Fragile(3)
    bus.subscribe(Moved, fragile, name="book", retry=ONE_ATTEMPT, on_exhausted="stop")
    await publish_keys(bus)
    await bus.drain(60)
    with pytest.raises(SubscriptionNotFoundError, match="book"):
        await bus.resume("other name")
    fragile.poison.clear()
    assert await bus.resume("book")
    await bus.publish(Moved("A", 11))
    await bus.drain(60)
    assert by_piece(fragile.handled) == {"A": list(range(1, 12)), "B": list(range(101, 111))}
    assert bus.health().status == "ok"
    assert not await bus.resume("book"), "it is not halted any more"


async def test_resuming_a_halted_subscription_is_reported(backend: Backend) -> None:
    """An operator alerted by the halt would never learn that it is over."""
    bus = await backend.start_bus(worker_count=1)
    resumed = reports_of(bus, SubscriptionResumed)
    fragile = Fragile(1)
    bus.subscribe(Moved, fragile, name="book", retry=ONE_ATTEMPT, on_exhausted="stop")
    await bus.publish(Moved("A", 1))
    await bus.drain(60)
    assert not resumed
    fragile.poison.clear()
    assert await bus.resume("book")
    await resumed.reach(1)  # it comes a moment later if another reader of the request was faster
    assert [report.subscription for report in resumed] == ["book"]


async def test_resume_without_a_log_continues_with_the_next_event(memory: Backend) -> None:
    """Nothing can be read back, but new events must flow again, also for the key that failed."""
    bus = await memory.start_bus()
    fragile = Fragile(3)
    bus.subscribe(Moved, fragile, name="book", retry=ONE_ATTEMPT, on_exhausted="stop")
    await bus.publish(Moved("A", 3))
    await bus.drain(60)
    await bus.publish(Moved("A", 4))
    assert await bus.resume("book")
    await bus.publish_batch([Moved("A", 5), Moved("B", 6)])
    await bus.drain(60)
    assert sorted(numbers(fragile.handled)) == [5, 6]
    assert bus.health().status == "ok"


async def test_a_resumed_subscription_halts_again_while_the_cause_persists(backend: Backend) -> None:
    """A subscription halts as often as needed, each time at the same event."""
    bus = await backend.start_bus(worker_count=1)
    fragile = Fragile(1)
    bus.subscribe(Moved, fragile, name="book", retry=ONE_ATTEMPT, on_exhausted="stop")
    for round_ in range(1, 4):
        if round_ == 1 or not backend.stored:
            await bus.publish(Moved("A", 1))
        await bus.drain(60)
        assert statistics_of(bus, "book")["state"] == "halted"
        assert fragile.attempts[1] == round_
        assert await bus.resume("book")
    await bus.drain(60)


async def test_a_halted_subscription_continues_after_a_restart(stored: Backend) -> None:
    """A halt is a state of the process: after a restart, the subscription would wait for a resume."""
    bus = await stored.start_bus(worker_count=1)
    fragile = Fragile(3)
    bus.subscribe(Moved, fragile, name="book", retry=ONE_ATTEMPT, on_exhausted="stop")
    await publish_keys(bus)
    await bus.drain(60)
    bus = await stored.reopen(bus)
    fixed = Fragile()
    bus.subscribe(Moved, fixed, name="book")
    async with bus:
        pass
    together = by_piece([*fragile.handled, *fixed.handled])
    assert together == {"A": list(range(1, 11)), "B": list(range(101, 111))}


async def test_resume_does_not_run_a_key_again_while_its_handler_is_still_running(
    backend: Backend,
) -> None:
    """Halting leaves handlers running; delivering their events again meanwhile would break order per key."""
    bus = await backend.start_bus(worker_count=2)
    entered: Recorder[int] = Recorder()
    release = asyncio.Event()
    inside = 0
    peak = 0

    async def handle(event: Moved) -> None:
        nonlocal inside, peak
        entered.add(event.n)
        if event.piece == "bad":
            await slow_entered.wait()
            raise ValueError("halt")
        inside += 1
        peak = max(peak, inside)
        slow_entered.set()
        await release.wait()
        inside -= 1

    slow_entered = asyncio.Event()
    bus.subscribe(
        Moved,
        handle,
        name="book",
        retry=ONE_ATTEMPT,
        on_exhausted="stop",
        where=lambda event: event.piece not in fixed,
    )
    fixed: set[str] = set()
    halted = reports_of(bus, SubscriptionHalted)
    await bus.publish_batch([Moved("slow", 1), Moved("bad", 2)])
    await halted.reach(1)
    fixed.add("bad")
    resuming = asyncio.create_task(bus.resume("book"))
    await asyncio.wait([resuming], timeout=0.3)
    await bus.publish(Moved("slow", 3))
    await spin_loop(200)
    assert peak == 1, "concurrent on one key"
    release.set()
    assert await resuming
    await bus.drain(60)
    assert peak == 1


async def test_park_key_queues_the_key_behind_its_dead_letter_and_delivers_other_keys(
    backend: Backend,
) -> None:
    """Later events of the key may depend on the failed one, so they wait; no others do."""
    bus = await backend.start_bus()
    fragile = Fragile(3)
    bus.subscribe(Moved, fragile, name="book", retry=ONE_ATTEMPT, on_exhausted="park_key")
    await publish_keys(bus)
    await bus.drain(60)
    assert by_piece(fragile.handled) == {"A": [1, 2], "B": list(range(101, 111))}
    [letter] = await bus.dead_letters.list()
    assert (letter.event.n, letter.queued, letter.key) == (3, 7, "piece/A")
    assert statistics_of(bus, "book")["blocked_keys"] == 1
    assert bus.health().status == "degraded"


async def test_retrying_the_dead_letter_delivers_its_key_in_order(backend: Backend) -> None:
    """The queue is delivered in publish order, and events published meanwhile come after it."""
    bus = await backend.start_bus()
    fragile = Fragile(3)
    bus.subscribe(Moved, fragile, name="book", retry=ONE_ATTEMPT, on_exhausted="park_key")
    await publish_keys(bus)
    await bus.drain(60)
    fragile.poison.clear()
    [letter] = await bus.dead_letters.list()
    assert await bus.dead_letters.retry(letter.id) == 1
    for n in range(11, 16):
        await bus.publish(Moved("A", n))
        await asyncio.sleep(0)
    await bus.drain(60)
    assert by_piece(fragile.handled)["A"] == list(range(1, 16))
    assert await bus.dead_letters.list() == []
    assert statistics_of(bus, "book")["blocked_keys"] == 0
    assert bus.health().status == "ok"


async def test_a_second_poison_event_in_the_queue_parks_the_key_again(backend: Backend) -> None:
    """The rest of the queue must stay behind the second bad event, in order."""
    bus = await backend.start_bus()
    fragile = Fragile(3, 6)
    bus.subscribe(Moved, fragile, name="book", retry=ONE_ATTEMPT, on_exhausted="park_key")
    await publish_keys(bus)
    await bus.drain(60)
    fragile.poison.discard(3)
    assert await bus.dead_letters.retry("all") == 1
    await bus.drain(60)
    assert by_piece(fragile.handled)["A"] == [1, 2, 3, 4, 5]
    [letter] = await bus.dead_letters.list()
    assert (letter.event.n, letter.queued) == (6, 4)
    fragile.poison.clear()
    await bus.dead_letters.retry(letter.id)
    await bus.drain(60)
    assert by_piece(fragile.handled)["A"] == list(range(1, 11))


async def test_a_failed_retry_keeps_the_key_parked(backend: Backend) -> None:
    """No event behind the parked one may slip through while it is retried."""
    bus = await backend.start_bus()
    fragile = Fragile(3)
    bus.subscribe(Moved, fragile, name="book", retry=ONE_ATTEMPT, on_exhausted="park_key")
    await publish_keys(bus)
    await bus.drain(60)
    [letter] = await bus.dead_letters.list()
    for _ in range(2):
        await bus.dead_letters.retry(letter.id)
        await bus.drain(60)
    assert by_piece(fragile.handled)["A"] == [1, 2]
    [again] = await bus.dead_letters.list()
    assert (again.id, again.queued, fragile.attempts[3]) == (letter.id, 7, 3)


async def test_discarding_the_dead_letter_delivers_the_rest_of_its_key(backend: Backend) -> None:
    """Discarding the event must not leave later events of its key behind for ever."""
    bus = await backend.start_bus()
    fragile = Fragile(3)
    bus.subscribe(Moved, fragile, name="book", retry=ONE_ATTEMPT, on_exhausted="park_key")
    await publish_keys(bus)
    await bus.drain(60)
    assert await bus.clear_failed_events() == 1
    await bus.publish(Moved("A", 11))
    await bus.drain(60)
    assert by_piece(fragile.handled)["A"] == [1, 2, *range(4, 12)]


async def test_a_parked_key_stays_parked_after_a_restart(stored: Backend) -> None:
    """The queue behind a parked event is stored; a restart must neither deliver nor lose it."""
    bus = await stored.start_bus()
    fragile = Fragile(3)
    bus.subscribe(Moved, fragile, name="book", retry=ONE_ATTEMPT, on_exhausted="park_key")
    await publish_keys(bus)
    await bus.drain(60)
    bus = await stored.reopen(bus)
    fixed = Fragile()
    bus.subscribe(Moved, fixed, name="book", retry=ONE_ATTEMPT, on_exhausted="park_key")
    await bus.start()
    await bus.publish(Moved("A", 11))
    await bus.drain(60)
    assert fixed.handled == []
    [letter] = await bus.dead_letters.list()
    assert letter.queued == 8
    await bus.dead_letters.retry(letter.id)
    await bus.drain(60)
    assert by_piece(fixed.handled) == {"A": list(range(3, 12))}


@pytest.mark.parametrize("policy", ["park", "park_key"])
async def test_an_event_without_a_key_is_parked_alone_whatever_the_policy(
    backend: Backend, policy: Any
) -> None:
    """Without a key there is nothing to park, so no event may queue behind it."""
    bus = await backend.start_bus()
    fragile = Fragile(3)
    bus.subscribe(NoteTaken, fragile, retry=ONE_ATTEMPT, on_exhausted=policy)
    await bus.publish_batch([NoteTaken(n) for n in range(10)])
    await bus.drain(60)
    assert sorted(numbers(fragile.handled)) == [0, 1, 2, 4, 5, 6, 7, 8, 9]
    [letter] = await bus.dead_letters.list()
    assert (letter.event.n, letter.queued) == (3, 0)


async def test_retry_of_a_dead_letter_raises_until_its_halted_subscription_is_resumed(
    stored: Backend,
) -> None:
    """Promise 26. Retrying it at once would make a halted subscription handle events."""
    bus = await stored.start_bus()
    fragile = Fragile(1, 2)
    bus.subscribe(Moved, fragile, name="book", retry=ONE_ATTEMPT)
    await bus.publish(Moved("A", 1))
    await bus.drain(60)
    bus = await stored.reopen(bus)
    bus.subscribe(Moved, fragile, name="book", retry=ONE_ATTEMPT, on_exhausted="stop")
    await bus.start()
    await bus.publish(Moved("A", 2))
    await bus.drain(60)
    fragile.poison.clear()
    [letter] = await bus.dead_letters.list()
    with pytest.raises(SubscriptionError, match=r"halted; call bus\.resume"):
        await bus.dead_letters.retry(letter.id)
    assert await bus.resume("book")
    assert await bus.dead_letters.retry(letter.id) == 1
    await bus.drain(60)
    assert sorted(numbers(fragile.handled)) == [1, 2]
