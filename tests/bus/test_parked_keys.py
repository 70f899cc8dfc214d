"""A parked key, tried in many interleavings of publishing, failing, retrying and draining."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from pabal import InMemoryEventBus, InMemoryEventStorage, NotRetryableError, SqliteEventStorage
from tests.bus.samples import Moved
from tests.bus.support import ONCE, Backend, Seen, by_piece

STORAGES: dict[str, Callable[[Path], Any]] = {
    "memory": lambda path: None,
    "memory storage": lambda path: InMemoryEventStorage(),
    "sqlite": lambda path: SqliteEventStorage(path, durability="normal"),
}
SEEDS = 1000
ON_DISK = 60


@pytest.mark.parametrize("kind", STORAGES)
async def test_what_queues_behind_a_parked_event_follows_in_order_in_every_interleaving(
    kind: str, tmp_path: Path
) -> None:
    """Promise 25. One race between "is the key blocked", "queue behind it" and "drain" breaks the order."""
    for seed in range(ON_DISK if kind == "sqlite" else SEEDS):
        chance = Random(seed)
        handled: list[Moved] = []
        mended = asyncio.Event()

        async def handle(
            event: Moved,
            chance: Random = chance,
            handled: list[Any] = handled,
            mended: asyncio.Event = mended,
        ) -> None:
            for _ in range(chance.randrange(3)):
                await asyncio.sleep(0)
            if not mended.is_set() and event.piece == "A" and event.n == 3:
                raise NotRetryableError("no 3")
            handled.append(event)

        storage = STORAGES[kind](tmp_path / f"{seed}.db")
        bus = InMemoryEventBus(storage, worker_count=chance.randint(1, 4))
        bus.subscribe(Moved, handle, name="sub", on_exhausted="park_key")
        await bus.start()
        for n in range(1, 11):
            await bus.publish(Moved("A", n))
            await bus.publish(Moved("B", n))
            for _ in range(chance.randrange(4)):
                await asyncio.sleep(0)
        await bus.drain(20)
        assert by_piece(handled) == {"A": [1, 2], "B": list(range(1, 11))}, seed
        [letter] = await bus.dead_letters.list()
        assert letter.queued == 7, seed
        mended.set()
        retrying = asyncio.ensure_future(bus.dead_letters.retry(letter.id))
        for n in range(11, 16):
            for _ in range(chance.randrange(6)):
                await asyncio.sleep(0)
            await bus.publish(Moved("A", n))
        assert await retrying == 1
        await bus.drain(20)
        assert by_piece(handled)["A"] == list(range(1, 16)), seed
        await bus.stop()
        if storage is not None:
            await storage.aclose()


async def test_a_dead_letter_that_moves_to_a_parked_key_does_not_release_what_waits_there(
    backend: Backend,
) -> None:
    """Promise 25. One success of the key would let its events go on although their first is still parked."""
    bus = await backend.running(worker_count=4)
    handled: Seen[Moved] = Seen()
    poison = {"A", "B"}

    async def handle(event: Moved) -> None:
        if event.n == 1 and event.piece in poison:
            raise NotRetryableError("not yet")
        handled.add(event)

    bus.subscribe(Moved, handle, name="sub", retry=ONCE, on_exhausted="park_key")
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
