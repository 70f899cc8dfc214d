"""Order per key, and keys that do not wait for each other. Promises 11 to 14.

Sizes: the promise names 16 keys × 1,000 events × 10 workers over 100 seeds. By default all 100 seeds run with
16 × 40 events without a log, and a tenth of the seeds with 16 × 40 events for each log. This keeps the shape
(more keys than workers, more events per key than fit in a worker's first slices) and takes a few seconds.
``PABAL_FULL=1`` runs the promised counts, for the logs too.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter, defaultdict
from typing import Any

import pytest

from pabal import RetryPolicy
from tests.bus.samples import Moved, NoteTaken
from tests.bus.support import FULL, ONE_ATTEMPT, Backend, Recorder, by_piece, numbers

KEYS = 16
WORKERS = 10


def sizes(kind: str) -> tuple[range, int]:
    """Return the seeds, and the number of events per key."""
    if FULL:
        return range(100), 1000
    return range(100 if kind == "memory" else 10), 40


class OrderRecorder:
    """A handler that yields at random, and records the order of events and any two of a key at once."""

    def __init__(self, rng: random.Random, failing: float = 0.0) -> None:
        self._rng = rng
        self._failing = failing
        self._inside: Counter[str] = Counter()
        self.handled: dict[str, list[int]] = defaultdict(list)
        self.concurrent: list[str] = []
        self.failures = 0

    async def handle(self, event: Moved) -> None:
        key = event.piece
        self._inside[key] += 1
        if self._inside[key] > 1:
            self.concurrent.append(key)
        try:
            for _ in range(self._rng.choice((0, 0, 1, 2, 5))):
                await asyncio.sleep(0)
            if self._rng.random() < self._failing:
                self.failures += 1
                raise ConnectionError("now and then")
            self.handled[key].append(event.n)
        finally:
            self._inside[key] -= 1


async def check_all_seeds(backend: Backend, failing: float) -> int:
    """Publish interleaved keys for every seed, and check the order seen by each of two subscriptions."""
    failures = 0
    seeds, count = sizes(backend.kind)
    # Enough attempts that no event ends as a dead letter; no delays, because they would prove nothing more
    # here.
    policy = RetryPolicy(max_attempts=50, base_delay=0.0)
    bus = backend.make_bus(worker_count=WORKERS, max_queue_size=2000)
    await bus.start()
    for seed in seeds:
        rng = random.Random(seed)
        recorders = [OrderRecorder(rng, failing), OrderRecorder(rng, failing)]
        subscriptions = [
            bus.subscribe(Moved, recorder, name=f"watch-{seed}-{index}", retry=policy)
            for index, recorder in enumerate(recorders)
        ]
        order = [f"piece-{key}" for key in range(KEYS) for _ in range(count)]
        rng.shuffle(order)
        published: Counter[str] = Counter()
        events = []
        for key in order:
            events.append(Moved(key, published[key]))
            published[key] += 1
        while events:
            size = rng.randint(1, 40)
            await bus.publish_batch(events[:size])
            del events[:size]
            if rng.random() < 0.3:
                await asyncio.sleep(0)
        await bus.drain(60)
        expected = {f"piece-{key}": list(range(count)) for key in range(KEYS)}
        for recorder, subscription in zip(recorders, subscriptions, strict=True):
            assert recorder.handled == expected, f"seed {seed}: lost, duplicate or out of order"
            assert not recorder.concurrent, f"seed {seed}: concurrent on one key"
            failures += recorder.failures
            bus.unsubscribe(subscription)
    return failures


async def test_order_per_key_is_exact_for_every_subscription_over_all_seeds(backend: Backend) -> None:
    """Promise 11. Events of one key would be out of order, handled at the same time, lost or duplicated."""
    assert await check_all_seeds(backend, failing=0.0) == 0


async def test_order_per_key_stays_exact_when_one_in_twenty_attempts_fails(backend: Backend) -> None:
    """Promise 12. The next event of a key would overtake its retry."""
    assert await check_all_seeds(backend, failing=0.05) > 100


async def test_order_per_key_stays_exact_while_events_are_parked(backend: Backend) -> None:
    """Promise 12, when attempts run out. Workers continue behind a parked event on a path of its own."""
    policy = RetryPolicy(max_attempts=2, base_delay=0.0)
    for seed in range(10):
        bus = await backend.start_bus(worker_count=WORKERS)
        rng = random.Random(seed)
        recorder = OrderRecorder(rng, failing=0.4)
        bus.subscribe(Moved, recorder, name=f"watch-{seed}", retry=policy)
        for n in range(0, 40, 5):
            await bus.publish_batch([Moved(f"piece-{k}", m) for m in range(n, n + 5) for k in range(KEYS)])
            await asyncio.sleep(0)
        await bus.drain(20)
        parked = [
            letter.event for letter in await bus.dead_letters.list(limit=1000, subscription=f"watch-{seed}")
        ]
        assert len(parked) > 50
        assert not recorder.concurrent, f"seed {seed}: concurrent on one key"
        for key, handled in recorder.handled.items():
            assert handled == sorted(set(handled)), f"seed {seed}: out of order or duplicate"
            parked_numbers = [event.n for event in parked if event.piece == key]
            assert sorted(handled + parked_numbers) == list(range(40)), f"seed {seed}: lost"
        await bus.stop()


async def test_a_successor_waits_for_the_retry_of_its_key_and_other_keys_do_not(backend: Backend) -> None:
    """If a retry held a worker or the whole subscription, B would come after A; if it held nothing, 2 before
    1.
    """
    bus = await backend.start_bus(worker_count=1)
    seen: Recorder[Moved] = Recorder()
    attempts: Counter[int] = Counter()

    async def handle(event: Moved) -> None:
        attempts[event.n] += 1
        if event.n == 1 and attempts[1] < 3:
            raise ValueError("not yet")
        seen.add(event)

    bus.subscribe(Moved, handle, retry=RetryPolicy(max_attempts=3, base_delay=0.02, jitter=0.0))
    await bus.publish_batch([Moved("a", 1), Moved("a", 2), Moved("b", 3), Moved("b", 4)])
    await bus.drain(60)
    assert numbers(seen) == [3, 4, 1, 2]


async def test_equal_ids_of_two_aggregate_types_are_different_keys(backend: Backend) -> None:
    """Aggregates of different types would wait for each other."""
    from tests.bus.samples import Ticket

    bus = await backend.start_bus(worker_count=2)
    entered: Recorder[str] = Recorder()
    release = asyncio.Event()

    async def handle(event: Any) -> None:
        entered.add(type(event).__name__)
        await release.wait()

    bus.subscribe((Moved, Ticket), handle)
    await bus.publish(Moved("A1"))
    await bus.publish(Ticket("A1"))
    await entered.reach(2)
    release.set()
    await bus.drain(60)
    assert sorted(entered) == ["Moved", "Ticket"]


async def test_an_ordering_function_replaces_the_key(backend: Backend) -> None:
    """If all events share a key, the second must not start before the first has ended, whatever their
    aggregates.
    """
    bus = await backend.start_bus(worker_count=4)
    inside = 0
    peak = 0
    seen: Recorder[Moved] = Recorder()

    async def handle(event: Moved) -> None:
        nonlocal inside, peak
        inside += 1
        peak = max(peak, inside)
        await asyncio.sleep(0)
        inside -= 1
        seen.add(event)

    bus.subscribe(Moved, handle, ordering=lambda event: "everything")
    await bus.publish_batch([Moved(f"piece-{n % 5}", n) for n in range(50)])
    await bus.drain(60)
    assert peak == 1
    assert numbers(seen) == list(range(50))


async def test_ordering_none_lets_events_of_one_aggregate_run_at_once(backend: Backend) -> None:
    """``None`` asks for no order: four workers must all be busy with one aggregate."""
    bus = await backend.start_bus(worker_count=4)
    entered: Recorder[int] = Recorder()
    release = asyncio.Event()

    async def handle(event: Moved) -> None:
        entered.add(event.n)
        await release.wait()

    bus.subscribe(Moved, handle, ordering=None)
    await bus.publish_batch([Moved("rook", n) for n in range(4)])
    await entered.reach(4)
    release.set()
    await bus.drain(60)
    assert sorted(entered) == [0, 1, 2, 3]


async def test_an_ordering_function_may_leave_single_events_unordered(backend: Backend) -> None:
    """An event whose key is ``None`` would wait for others although it needs no order."""
    bus = await backend.start_bus(worker_count=3)
    entered: Recorder[int] = Recorder()
    release = asyncio.Event()

    async def handle(event: Moved) -> None:
        entered.add(event.n)
        await release.wait()

    bus.subscribe(Moved, handle, ordering=lambda event: None if event.n < 2 else "late")
    await bus.publish_batch([Moved("rook", n) for n in range(4)])
    await entered.reach(3)
    assert sorted(entered) == [0, 1, 2]
    release.set()
    await bus.drain(60)
    assert sorted(entered) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "key", [["unhashable"], ZeroDivisionError, asyncio.CancelledError, GeneratorExit], ids=str
)
async def test_an_event_whose_ordering_key_cannot_be_computed_is_parked_alone(
    backend: Backend, key: Any
) -> None:
    """If a user's ordering function raises, the event must not be lost, and no subscription, publisher,
    worker or other event of the same publish may suffer.
    """
    bus = await backend.start_bus(worker_count=1)
    seen: Recorder[Moved] = Recorder()

    def ordering(event: Moved) -> Any:
        if event.n == 1:
            if isinstance(key, type):
                raise key("no key")
            return key
        return event.piece

    async def handle(event: Moved) -> None:
        seen.add(event)

    bus.subscribe(Moved, handle, ordering=ordering)
    await bus.publish_batch([Moved("rook", n) for n in range(3)])
    await bus.drain(60)
    assert numbers(seen) == [0, 2]
    assert [letter.event.n for letter in await bus.dead_letters.list()] == [1]


async def test_events_without_a_key_run_on_all_workers(backend: Backend) -> None:
    """Events of no aggregate have no order to keep, so a slow one must not block the next."""
    bus = await backend.start_bus(worker_count=4)
    entered: Recorder[int] = Recorder()
    release = asyncio.Event()

    async def handle(event: NoteTaken) -> None:
        entered.add(event.n)
        await release.wait()

    bus.subscribe(NoteTaken, handle)
    await bus.publish_batch([NoteTaken(n) for n in range(4)])
    await entered.reach(4)
    release.set()
    await bus.drain(60)
    assert sorted(entered) == [0, 1, 2, 3]


async def test_order_holds_for_a_key_that_returns_after_its_lane_was_dropped(backend: Backend) -> None:
    """Idle keys are forgotten to save memory; one that returns must not run in two lanes at once."""
    bus = await backend.start_bus(worker_count=4)
    handled: dict[str, list[int]] = defaultdict(list)

    async def handle(event: Moved) -> None:
        await asyncio.sleep(0)
        handled[event.piece].append(event.n)

    bus.subscribe(Moved, handle)
    # More keys than the engine keeps lanes for.
    for n in range(3):
        await bus.publish_batch([Moved(f"piece-{key}", n) for key in range(5000)])
        if n == 0:
            await bus.drain(30)
    await bus.drain(30)
    assert len(handled) == 5000
    assert set(map(tuple, handled.values())) == {(0, 1, 2)}


async def test_sixteen_keys_with_sixteen_workers_overlap_fully(backend: Backend) -> None:
    """Promise 13. Every event waits inside its handler until all sixteen keys are inside theirs: if even two
    keys waited for each other, none would ever go on.
    """
    count = 20
    bus = await backend.start_bus(worker_count=KEYS)
    together = asyncio.Barrier(KEYS)
    handled: Recorder[Moved] = Recorder()

    async def handle(event: Moved) -> None:
        await together.wait()
        handled.add(event)

    bus.subscribe(Moved, handle)
    await bus.publish_batch([Moved(f"piece-{key}", n) for n in range(count) for key in range(KEYS)])
    await bus.drain(30)
    assert by_piece(handled) == {f"piece-{key}": list(range(count)) for key in range(KEYS)}


async def test_a_blocked_handler_on_one_key_delays_no_other_key(backend: Backend) -> None:
    """Promise 14. The blocked key never ends here, so a key that waited for it would not end either."""
    bus = await backend.start_bus(worker_count=4)
    release = asyncio.Event()
    entered = asyncio.Event()
    others: Recorder[int] = Recorder()

    async def handle(event: Moved) -> None:
        if event.piece == "blocked":
            entered.set()
            await release.wait()
        else:
            others.add(event.n)

    bus.subscribe(Moved, handle)
    await bus.publish_batch([Moved("blocked", n) for n in range(50)])
    await entered.wait()
    for n in range(300):
        await bus.publish(Moved(f"piece-{n % 15}", n))
    await others.reach(300)
    assert sorted(others) == list(range(300))
    release.set()
    await bus.drain(60)


async def test_concurrent_publishes_keep_the_order_in_which_they_were_started(backend: Backend) -> None:
    """``gather`` starts its publishes in order; a commit that mixes them would break the order of the key."""
    bus = await backend.start_bus()
    seen: Recorder[Moved] = Recorder()

    async def handle(event: Moved) -> None:
        seen.add(event)

    bus.subscribe(Moved, handle)
    await asyncio.gather(*(bus.publish(Moved("rook", n)) for n in range(200)))
    await bus.drain(60)
    assert by_piece(seen) == {"rook": list(range(200))}


async def test_order_holds_while_a_subscription_catches_up_from_the_log(stored: Backend) -> None:
    """Events read from the log and events taken from commits meet at one point; none may overtake another
    there.
    """
    bus = await stored.start_bus(worker_count=4)
    await bus.publish_batch([Moved(f"piece-{n % 7}", n) for n in range(2000)])
    handled: dict[str, list[int]] = defaultdict(list)

    async def handle(event: Moved) -> None:
        await asyncio.sleep(0)
        handled[event.piece].append(event.n)

    bus.subscribe(Moved, handle, start="beginning", retry=ONE_ATTEMPT)
    for n in range(2000, 3000, 10):
        await bus.publish_batch([Moved(f"piece-{m % 7}", m) for m in range(n, n + 10)])
    await bus.drain(30)
    assert handled == {f"piece-{k}": [n for n in range(3000) if n % 7 == k] for k in range(7)}
