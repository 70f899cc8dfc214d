"""A parked key, in many interleavings of publishing, failing, retrying and draining."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from pabal import InMemoryEventBus, InMemoryEventStorage, NotRetryableError, SqliteEventStorage
from tests.bus.samples import Jumped, Moved, NoteTaken
from tests.bus.support import ONE_ATTEMPT, Backend, Recorder, by_piece, statistics_of

STORAGES: dict[str, Callable[[Path], Any]] = {
    "memory": lambda path: None,
    "memory storage": lambda path: InMemoryEventStorage(),
    "sqlite": lambda path: SqliteEventStorage(path, durability="normal"),
}
SEEDS = 1000
ON_DISK = 60


@pytest.mark.parametrize("kind", STORAGES)
async def test_events_behind_a_parked_event_follow_in_order_in_every_interleaving(
    kind: str, tmp_path: Path
) -> None:
    """Promise 25. One race between "is the key blocked", "queue behind it" and "drain" breaks the order."""
    for seed in range(ON_DISK if kind == "sqlite" else SEEDS):
        rng = Random(seed)
        handled: list[Moved] = []
        fixed = asyncio.Event()

        async def handle(
            event: Moved,
            rng: Random = rng,
            handled: list[Any] = handled,
            fixed: asyncio.Event = fixed,
        ) -> None:
            for _ in range(rng.randrange(3)):
                await asyncio.sleep(0)
            if not fixed.is_set() and event.piece == "A" and event.n == 3:
                raise NotRetryableError("no 3")
            handled.append(event)

        storage = STORAGES[kind](tmp_path / f"{seed}.db")
        bus = InMemoryEventBus(storage, worker_count=rng.randint(1, 4))
        bus.subscribe(Moved, handle, name="sub", on_exhausted="park_key")
        await bus.start()
        for n in range(1, 11):
            await bus.publish(Moved("A", n))
            await bus.publish(Moved("B", n))
            for _ in range(rng.randrange(4)):
                await asyncio.sleep(0)
        await bus.drain(20)
        assert by_piece(handled) == {"A": [1, 2], "B": list(range(1, 11))}, seed
        [letter] = await bus.dead_letters.list()
        assert letter.queued == 7, seed
        fixed.set()
        retrying = asyncio.ensure_future(bus.dead_letters.retry(letter.id))
        for n in range(11, 16):
            for _ in range(rng.randrange(6)):
                await asyncio.sleep(0)
            await bus.publish(Moved("A", n))
        assert await retrying == 1
        await bus.drain(20)
        assert by_piece(handled)["A"] == list(range(1, 16)), seed
        await bus.stop()
        if storage is not None:
            await storage.aclose()


async def test_a_dead_letter_edited_to_a_parked_key_does_not_release_its_queue(
    backend: Backend,
) -> None:
    """Promise 25. A success of the key would release its events although their first is still parked."""
    bus = await backend.start_bus(worker_count=4)
    handled: Recorder[Moved] = Recorder()
    poison = {"A", "B"}

    async def handle(event: Moved) -> None:
        if event.n == 1 and event.piece in poison:
            raise NotRetryableError("not yet")
        handled.add(event)

    bus.subscribe(Moved, handle, name="sub", retry=ONE_ATTEMPT, on_exhausted="park_key")
    for piece, n in (("A", 1), ("A", 2), ("B", 1), ("B", 2)):
        await bus.publish(Moved(piece, n))
    await bus.drain(60)
    letters = {letter.event.piece: letter for letter in await bus.dead_letters.list()}

    assert await bus.dead_letters.edit_and_retry(letters["A"].id, {"piece": "B", "n": 9})
    await bus.drain(60)
    await bus.publish(Moved("B", 3))
    await bus.drain(60)
    assert by_piece(handled) == {"A": [2], "B": [9]}
    [letter] = await bus.dead_letters.list()
    assert (letter.id, letter.queued) == (letters["B"].id, 2)

    poison.clear()
    assert await bus.dead_letters.retry(letter.id) == 1
    await bus.drain(60)
    await bus.publish(Moved("B", 4))
    await bus.drain(60)
    assert by_piece(handled)["B"] == [9, 1, 2, 3, 4]


async def test_an_event_without_a_key_that_waited_for_a_lower_number_is_parked_alone(
    backend: Backend,
) -> None:
    """Its dead letter would name a key that no event has, and health tell of events queued behind it."""
    bus = await backend.start_bus()
    handled: Recorder[int] = Recorder()
    others_went_ahead = asyncio.Event()

    async def hold(event: NoteTaken) -> None:
        await others_went_ahead.wait()

    async def handle(event: NoteTaken) -> None:
        if event.n == 1:
            raise NotRetryableError("no 1")
        handled.add(event.n)

    bus.subscribe(NoteTaken, hold, name="first", where=lambda event: event.n == 1)
    bus.subscribe(NoteTaken, handle, name="second", priority=2, on_exhausted="park_key")
    await bus.publish_batch([NoteTaken(1), NoteTaken(2)])
    await handled.reach(1)
    others_went_ahead.set()
    await bus.drain(60)
    [letter] = await bus.dead_letters.list()
    assert (letter.payload["n"], letter.key, letter.queued) == (1, None, 0)
    assert statistics_of(bus, "second")["blocked_keys"] == 0


async def test_a_dead_letter_retried_behind_one_that_blocks_their_key_again_is_delivered(
    backend: Backend,
) -> None:
    """Promise 27. It would stay in the state "retrying" until the next start, and could not be retried."""
    bus = await backend.start_bus()
    handled: Recorder[int] = Recorder()
    refused = {1, 2}

    async def handle(event: Moved) -> None:
        if event.n in refused:
            raise NotRetryableError("no")
        handled.add(event.n)

    before = bus.subscribe(Moved, handle, name="sub", on_exhausted="park")
    await bus.publish_batch([Moved("A", 1), Moved("A", 2)])
    await bus.drain(60)
    bus.unsubscribe(before)
    bus.subscribe(Moved, handle, name="sub", on_exhausted="park_key")
    refused.remove(2)
    await bus.drain(60)  # it is open now
    assert await bus.dead_letters.retry("all") == 2
    await bus.drain(60)
    assert list(handled) == [2]
    [letter] = await bus.dead_letters.list()
    assert (letter.payload["n"], letter.state, letter.queued) == (1, "parked", 0)


async def test_queued_events_that_are_no_longer_subscribed_to_are_skipped(
    backend: Backend,
) -> None:
    """The handler would get events that it cannot handle, and park them; or the key would stay blocked."""
    bus = await backend.start_bus()
    handled: Recorder[Moved] = Recorder()
    broken = True

    async def handle(event: Moved) -> None:
        if broken:
            raise NotRetryableError("not yet")
        handled.add(event)

    subscription = bus.subscribe(Moved, handle, name="sub", retry=ONE_ATTEMPT, on_exhausted="park_key")
    await bus.publish(Jumped("A", 1))
    await bus.publish_batch([Moved("A", n) for n in range(2, 302)])  # more than are read back at a time
    await bus.publish_batch([Jumped("A", 302), Moved("A", 303)])
    await bus.drain(60)
    [letter] = await bus.dead_letters.list()
    assert letter.queued == 302

    broken = False
    bus.unsubscribe(subscription)
    bus.subscribe(Jumped, handle, name="sub", retry=ONE_ATTEMPT, on_exhausted="park_key")
    await bus.drain(60)
    await bus.dead_letters.retry(letter.id)
    await bus.drain(60)
    await bus.publish(Jumped("A", 304))
    await bus.drain(60)
    await handled.reach(3)
    await bus.drain(60)
    assert by_piece(handled) == {"A": [1, 302, 304]}
    assert (await bus.dead_letters.list(), statistics_of(bus, "sub")["blocked_keys"]) == ([], 0)


def _no_key(event: Moved) -> str:
    raise LookupError(f"no key for {event.n}")


@pytest.mark.parametrize(
    "ordering",
    [None, lambda event: event.n % 3, _no_key],
    ids=["no order", "by another key", "by a function that raises"],
)
async def test_a_parked_queue_is_delivered_in_order_after_the_ordering_was_changed(
    stored: Backend, ordering: Any
) -> None:
    """Promise 25. The queue would stop after its first page, because no lane has its key any more."""
    bus = await stored.start_bus()
    handled: Recorder[Moved] = Recorder()
    poison = {1}

    async def handle(event: Moved) -> None:
        if event.n in poison:
            raise NotRetryableError("not yet")
        handled.add(event)

    bus.subscribe(Moved, handle, name="sub", on_exhausted="park_key")
    await bus.publish_batch([Moved("A", n) for n in range(1, 601)])
    await bus.drain(60)
    bus = await stored.reopen(bus)
    poison.clear()
    bus.subscribe(Moved, handle, name="sub", on_exhausted="park_key", ordering=ordering)
    await bus.start()
    [letter] = await bus.dead_letters.list()
    assert letter.queued == 599
    await bus.dead_letters.discard(letter.id)
    await handled.reach(599)
    assert by_piece(handled) == {"A": list(range(2, 601))}
    await bus.drain(60)
    assert bus.health().status == "ok"


async def test_a_dead_letter_whose_ordering_function_raises_is_parked_again(
    stored: Backend,
) -> None:
    """Promise 27. The retry would raise the function's error, and so would every later start."""
    bus = await stored.start_bus()
    handled: Recorder[Moved] = Recorder()
    failing = True

    def key_of(event: Moved) -> str:
        if failing and event.n == 1:
            raise LookupError("no key")
        return event.piece

    async def handle(event: Moved) -> None:
        if not failing:
            handled.add(event)
            return
        raise NotRetryableError("not yet")

    bus.subscribe(Moved, handle, name="sub", on_exhausted="park_key")
    await bus.publish_batch([Moved("A", 1), Moved("A", 2)])
    await bus.drain(60)
    [letter] = await bus.dead_letters.list()

    bus = await stored.reopen(bus)
    bus.subscribe(Moved, handle, name="sub", on_exhausted="park_key", ordering=key_of)
    await bus.start()
    assert bus.storage is not None
    await bus.dead_letters.retry(letter.id)
    await bus.drain(60)
    [parked] = await bus.dead_letters.list()
    assert (parked.id, parked.state, parked.reason, parked.queued) == (letter.id, "parked", "no key", 1)
    assert [attempt.message for attempt in parked.attempts] == ["not yet", "no key"]

    await bus.storage.begin_retry(letter.id, None, 0.0)  # the process dies before it is delivered
    bus = await stored.reopen(bus)
    bus.subscribe(Moved, handle, name="sub", on_exhausted="park_key", ordering=key_of)
    await bus.start()
    await bus.drain(60)
    [parked] = await bus.dead_letters.list()
    assert (parked.state, parked.queued) == ("parked", 1)
    failing = False
    await bus.dead_letters.retry(letter.id)
    await handled.reach(2)
    assert by_piece(handled) == {"A": [1, 2]}


async def test_a_dead_letter_parked_again_without_its_key_releases_the_queue(backend: Backend) -> None:
    """Its events would wait for ever: nothing blocks their key any more, so nothing would release it."""
    bus = await backend.start_bus()
    handled: Recorder[int] = Recorder()
    broken = True

    async def handle(event: Moved) -> None:
        if event.n == 1 and broken:
            raise NotRetryableError("broken")
        handled.add(event.n)

    subscription = bus.subscribe(Moved, handle, name="mover", on_exhausted="park_key")
    await bus.publish_batch([Moved("A", n) for n in (1, 2, 3)])
    await bus.drain(60)
    bus.unsubscribe(subscription)
    bus.subscribe(Moved, handle, name="mover", on_exhausted="park")
    [letter] = await bus.dead_letters.list()
    assert letter.queued == 2
    await bus.dead_letters.retry(letter.id)
    await handled.reach(2)
    await bus.drain(60)
    assert handled == [2, 3]
    [again] = await bus.dead_letters.list()
    assert (again.id, again.key) == (letter.id, None)
    assert statistics_of(bus, "mover")["blocked_keys"] == 0
    broken = False
    await bus.dead_letters.retry(letter.id)
    await handled.reach(3)
