"""The watermark: how far a subscription has come when events finish in any order. Promises 29 and 30 (in
part).
"""

from __future__ import annotations

import asyncio
import random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from pabal import RetryPolicy
from pabal.delivery.watermark import WatermarkTracker
from tests.bus.samples import Moved, NoteTaken
from tests.bus.support import ONE_ATTEMPT, Backend, Recorder, numbers, statistics_of

WINDOW = 1000
RNGS = st.integers(0, 2**32).map(random.Random)
"""Permutations by seed: generating each of their thousand steps would take most of the time."""


@settings(max_examples=60, deadline=None)
@given(RNGS, st.integers(0, 10**9), st.integers(1, 5))
def test_in_any_permutation_the_watermark_is_the_lowest_unfinished_position_minus_one(
    rng: random.Random, after: int, gap: int
) -> None:
    """Promise 29: at every step of a permutation of a window of 1,000, with gaps between the positions."""
    positions = [after + 1 + index * gap for index in range(WINDOW)]
    tracker = WatermarkTracker(after=after)
    for position in positions:
        tracker.add(position)
    order = positions[:]
    rng.shuffle(order)
    finished: set[int] = set()
    lowest = iter(positions)
    expected = next(lowest) - 1
    for position in order:
        assert tracker.watermark == expected
        tracker.finish(position)
        finished.add(position)
        assert len(tracker) == WINDOW - len(finished)
        while expected + 1 in finished:
            expected = next(lowest, positions[-1] + 1) - 1
    assert tracker.watermark == positions[-1]


@settings(max_examples=60, deadline=None)
@given(RNGS, st.integers(1, 60))
def test_a_snapshot_at_any_step_resumes_to_exactly_the_unfinished_positions(
    rng: random.Random, most: int
) -> None:
    """Promise 29, across restarts: positions are added and finished at random; a save lists up to ``most``.

    Nothing unfinished may be forgotten; finished positions may come again only if there was too little room.
    """
    tracker = WatermarkTracker(after=0)
    unfinished: list[int] = []
    position = highest = 0
    for _ in range(400):
        if unfinished and rng.random() < 0.5:
            finished = unfinished.pop(rng.randrange(len(unfinished)))
            tracker.finish(finished)
            highest = max(highest, finished)
        else:
            position += rng.randint(1, 3)
            tracker.add(position)
            unfinished.append(position)
        expected = min(unfinished) - 1 if unfinished else position
        watermark, frontier, exceptions = tracker.snapshot(most)
        assert watermark == tracker.watermark == expected
        assert watermark <= frontier <= tracker.seen
        assert len(exceptions) <= most
        assert list(exceptions) == sorted(p for p in unfinished if p <= frontier)
        resumed = WatermarkTracker.resume(frontier, exceptions)
        assert resumed.watermark == watermark
        if len(unfinished) <= most:
            assert frontier >= highest, "what is finished would come again"
            delivered_again = {p for p in unfinished if p > frontier} | set(exceptions)
            assert delivered_again == set(unfinished), "lost"


def test_one_unfinished_position_does_not_keep_finished_ones_in_memory() -> None:
    """One event that waits for an hour must not keep a record of every later one that has finished."""
    tracker = WatermarkTracker(after=0)
    tracker.add(1)
    for position in range(2, 100_000):
        tracker.add(position)
        tracker.finish(position)
    assert tracker.watermark == 0
    assert len(tracker) == 1
    assert len(tracker._order) < 5000
    tracker.finish(1)
    assert tracker.watermark == 99_999
    assert len(tracker) == 0


async def test_the_watermark_of_a_bus_follows_the_lowest_unfinished_event(stored: Backend) -> None:
    """Promise 29. A thousand handlers end in random order; at every step the watermark says up to where
    all are done.
    """
    count = 1000
    bus = await stored.start_bus(worker_count=count)
    gates = {n: asyncio.Event() for n in range(1, count + 1)}
    entered: Recorder[int] = Recorder()
    ended: Recorder[int] = Recorder()

    async def handle(event: NoteTaken) -> None:
        entered.add(event.n)
        await gates[event.n].wait()
        ended.add(event.n)

    bus.subscribe(NoteTaken, handle, name="book")
    await bus.publish_batch([NoteTaken(n) for n in range(1, count + 1)])
    await entered.reach(count)
    order = list(gates)
    random.Random(11).shuffle(order)
    unfinished = set(order)
    for step, n in enumerate(order, start=1):
        assert statistics_of(bus, "book")["watermark"] == min(unfinished) - 1
        gates[n].set()
        await ended.reach(step)
        await asyncio.sleep(0)
        unfinished.remove(n)
    await bus.drain(60)
    assert statistics_of(bus, "book")["watermark"] == count


async def test_events_finished_above_the_watermark_are_not_redelivered_after_a_restart(
    stored: Backend,
) -> None:
    """Unfinished positions are saved too, so only those are delivered again."""
    bus = await stored.start_bus(worker_count=4)
    entered = asyncio.Event()
    seen: Recorder[int] = Recorder()

    async def handle(event: Moved) -> None:
        if event.n == 0:
            entered.set()
            await asyncio.Event().wait()
        seen.add(event.n)

    bus.subscribe(Moved, handle, name="book")
    await bus.publish_batch([Moved("stuck" if n in (0, 50) else f"piece-{n % 5}", n) for n in range(100)])
    await entered.wait()
    await seen.reach(98)
    await bus.stop(timeout=0.05)
    bus = await stored.reopen(bus)
    redelivered: Recorder[int] = Recorder()

    async def note(event: Moved) -> None:
        redelivered.add(event.n)

    bus.subscribe(Moved, note, name="book")
    await bus.start()
    await bus.drain(60)
    assert redelivered == [0, 50]


async def test_parked_and_filtered_events_advance_the_watermark(stored: Backend) -> None:
    """Promise 30. Neither may hold back the subscription for ever."""
    bus = await stored.start_bus()

    async def handle(event: Moved) -> None:
        if event.n % 10 == 0:
            raise ValueError("poison")

    bus.subscribe(Moved, handle, name="book", where=lambda event: event.n % 2 == 0, retry=ONE_ATTEMPT)
    await bus.publish_batch([Moved(f"piece-{n % 3}", n) for n in range(100)])
    await bus.drain(60)
    assert statistics_of(bus, "book")["watermark"] == 100
    assert statistics_of(bus, "book")["parked"] == 10
    assert bus.storage is not None
    [record] = await bus.storage.list_subscriptions()
    assert record.watermark == 100


async def test_a_subscription_that_matches_few_events_saves_its_watermark_regularly(stored: Backend) -> None:
    """Promise 30. Its watermark moves past other events, so a restart reads at most one interval again."""
    bus = await stored.start_bus()
    seen: Recorder[Any] = Recorder()

    async def note(event: NoteTaken) -> None:
        seen.add(event)

    bus.subscribe(NoteTaken, note, name="rare")
    for _ in range(3):
        await bus.publish_batch([Moved(f"piece-{n % 9}", n) for n in range(999)])
        await bus.publish(NoteTaken(1))
    await bus.publish_batch([Moved("rook", n) for n in range(999)])
    await bus.drain(60)
    assert len(seen) == 3
    assert bus.storage is not None
    [record] = await bus.storage.list_subscriptions()
    assert record.watermark >= 3000
    assert statistics_of(bus, "rare")["lag"] == 0
    bus = await stored.reopen(bus)
    bus.subscribe(NoteTaken, note, name="rare")
    await bus.start()
    [record] = await bus.storage.list_subscriptions()  # type: ignore[union-attr]
    assert record.watermark == 3999
    await bus.drain(60)
    assert len(seen) == 3


async def test_a_waiting_retry_holds_back_the_watermark_but_no_other_events(stored: Backend) -> None:
    """Promise 29. The unfinished event holds the watermark; later ones continue above it."""
    bus = await stored.start_bus()
    failed = asyncio.Event()
    seen: Recorder[Moved] = Recorder()

    async def handle(event: Moved) -> None:
        if event.n == 4:
            failed.set()
            raise ValueError("in an hour")
        seen.add(event)

    bus.subscribe(Moved, handle, name="book", retry=RetryPolicy(base_delay=3600, max_delay=3600))
    await bus.publish_batch([Moved(f"piece-{n}", n) for n in range(10)])
    await failed.wait()
    await bus.drain(10, retries=False)
    assert sorted(numbers(seen)) == [0, 1, 2, 3, 5, 6, 7, 8, 9]
    assert statistics_of(bus, "book")["watermark"] == 4
