"""``retry('all')`` and ``discard('all')``: many dead letters at once, at a bounded cost."""

from __future__ import annotations

import asyncio
import sys
from datetime import UTC, datetime
from typing import Any

import pytest

from pabal.delivery.dead_letters import MemoryDeadLetters
from pabal.ports.records import GroupsByError
from pabal.ports.storage import DeadLetterGroup, DeadLetterRecord, ParkedDelivery
from tests.bus.failing_handler import start_failing_bus
from tests.bus.samples import Moved, NoteTaken
from tests.bus.support import Backend, count_calls, numbers
from tests.loop_iterations import count_loop_iterations


async def test_retry_all_retries_only_the_matching_dead_letters(backend: Backend) -> None:
    """Promise 27. After a fix for one kind of failure, only those dead letters should be retried."""
    bus, handler = await start_failing_bus(backend)
    await bus.publish_batch([Moved("rook", 1), NoteTaken(2), Moved("rook", 3)])
    await bus.drain(60)
    handler.accepts = True
    assert await bus.dead_letters.retry("all", error_type="LookupError") == 2
    await bus.drain(60)
    assert sorted(numbers(handler.handled)) == [1, 3]
    assert await bus.dead_letters.retry("all") == 1
    await bus.drain(60)
    assert sorted(numbers(handler.handled)) == [1, 2, 3]
    assert await bus.dead_letters.retry("all") == 0


async def test_retry_all_covers_more_than_one_page(backend: Backend) -> None:
    """``"all"`` must cover all, even if they do not fit on one page."""
    bus, handler = await start_failing_bus(backend)
    await bus.publish_batch([NoteTaken(n) for n in range(1200)])
    await bus.drain(30)
    handler.accepts = True
    assert await bus.dead_letters.retry("all") == 1200
    await bus.drain(30)
    assert sorted(numbers(handler.handled)) == list(range(1200))


async def test_the_cost_of_a_page_of_dead_letters_does_not_depend_on_its_place() -> None:
    """Retrying a hundred thousand would scan all of them for every page of five hundred."""
    letters = MemoryDeadLetters()
    for position in range(1, 2001):
        letters.park("sub", ParkedDelivery(position, "", (), 0.0, None, Moved("rook", position), None))
        if position % 2:
            letters.remove("sub", position)
    costs: list[int] = []
    after = 0
    for _ in range(100):
        with count_calls() as counted:
            page = await letters.list_dead_letters(after=after, limit=10)
        assert [letter.id for letter in page] == list(range(after + 2, after + 21, 2))
        after = page[-1].id
        costs.append(counted.calls)
    assert await letters.list_dead_letters(after=after, limit=10) == []
    assert len(set(costs)) == 1
    assert costs[0] < 40


@pytest.mark.parametrize("action", ["retry", "discard"])
async def test_retrying_or_discarding_all_in_memory_yields_to_the_event_loop(
    memory: Backend, action: str
) -> None:
    """With a hundred thousand dead letters, every request in the application would wait for seconds."""
    bus, handler = await start_failing_bus(memory)
    await bus.publish_batch([NoteTaken(n) for n in range(1200)])
    await bus.drain(60)
    handler.accepts = True
    async with count_loop_iterations() as iterations:
        assert await getattr(bus.dead_letters, action)("all") == 1200
        assert iterations.count >= 12 + 3
    await bus.drain(60)
    assert await bus.dead_letters.list() == []


@pytest.mark.parametrize("action", ["retry", "discard"])
async def test_retrying_or_discarding_all_holds_at_most_100_dead_letters_at_once(
    backend: Backend, action: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hundred thousand with their tracebacks would be read into memory before the first is processed."""
    bus, handler = await start_failing_bus(backend)
    await bus.publish_batch([NoteTaken(n) for n in range(350)])
    await bus.drain(60)
    handler.accepts = True
    store = bus.dead_letters._store
    call = "begin_retry" if action == "retry" else "discard_dead_letter"
    count, page, act = store.group_dead_letters, store.list_dead_letters, getattr(store, call)
    held: list[int] = [0]

    async def counted() -> Any:
        groups = await count()
        held[:] = [0]  # some stores read them to count, and keep none
        return groups

    async def listed(**options: Any) -> Any:
        found = await page(**options)
        held.append(held[-1] + len(found))
        return found

    async def acted(*arguments: Any) -> Any:
        held.append(held[-1] - 1)
        return await act(*arguments)

    monkeypatch.setattr(store, "group_dead_letters", counted)
    monkeypatch.setattr(store, "list_dead_letters", listed)
    monkeypatch.setattr(store, call, acted)
    assert await getattr(bus.dead_letters, action)("all") == 350
    assert max(held) <= 100
    await bus.drain(60)
    assert await bus.dead_letters.list() == []


async def test_discard_all_leaves_dead_letters_that_are_parked_meanwhile(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dead letters parked meanwhile would be discarded unseen, and a retry of all might never end."""
    bus, _ = await start_failing_bus(backend)
    await bus.publish_batch([NoteTaken(n) for n in range(150)])
    await bus.drain(60)
    store = bus.dead_letters._store
    discard = store.discard_dead_letter
    begun = asyncio.Event()

    async def discarded(dead_letter_id: int) -> Any:
        if not begun.is_set():
            begun.set()
            await bus.publish(NoteTaken(1000))
            await bus.drain(60)
        return await discard(dead_letter_id)

    monkeypatch.setattr(store, "discard_dead_letter", discarded)
    assert await bus.dead_letters.discard("all") == 150
    assert [letter.event.n for letter in await bus.dead_letters.list()] == [1000]


def test_counting_dead_letters_keeps_no_reference_to_them() -> None:
    """A page of the dashboard would hold all there are on a server, with their tracebacks."""
    letters = [
        DeadLetterRecord(
            n, "s", n, None, NoteTaken(n), "", (), datetime.fromtimestamp(n, UTC), "parked", None, 0
        )
        for n in (3, 1, 2)
    ]
    counted = GroupsByError()
    before = [sys.getrefcount(letter) for letter in letters]
    counted.add(letters[:2])
    counted.add(letters[2:])
    assert [sys.getrefcount(letter) for letter in letters] == before
    first, last = datetime.fromtimestamp(1, UTC), datetime.fromtimestamp(3, UTC)
    assert counted.groups() == [DeadLetterGroup("s", None, 3, first, last, 3)]


async def test_counting_dead_letters_in_memory_yields_to_the_event_loop() -> None:
    """Counting a hundred thousand for an operator would block every handler."""
    letters = MemoryDeadLetters()
    for position in range(1, 5001):
        letters.park("sub", ParkedDelivery(position, "", (), 0.0, None, NoteTaken(position), None))
    async with count_loop_iterations() as iterations:
        [group] = await letters.group_dead_letters()
        assert iterations.count >= 4
    assert (group.count, group.newest_id) == (5000, 5000)
