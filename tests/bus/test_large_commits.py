"""A large commit is encoded and routed in slices, and the event loop runs in between."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from pabal import DomainEvent
from pabal.delivery.buffers import BUFFER_LIVE
from pabal.delivery.commits import _SLICE, Commits
from pabal.delivery.turns import AT_ONCE
from pabal.ports.storage import Committed
from tests.bus.samples import Moved, NoteTaken
from tests.bus.support import LIMIT, Backend, Recorder, spin_loop


@asynccontextmanager
async def counted_turns() -> AsyncIterator[Callable[[], int]]:
    """Count the turns of the event loop; gives a function that returns how many there were."""
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    await asyncio.sleep(0)
    yield lambda: turns
    counting.cancel()


class KeyAsked(DomainEvent):
    """An event that tells when its key is asked for, which happens once while it is encoded."""

    n: int

    @property
    def aggregate_id(self) -> str:
        asked(self)
        return "one"


def asked(event: KeyAsked) -> None:
    """Do nothing; a test replaces this."""


@pytest.mark.parametrize("backend", ["sqlite", "valkey"], indirect=True)
async def test_a_large_batch_is_encoded_in_slices(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """100,000 events would hold up the event loop, and everything on it, for half a second."""
    bus = await backend.start_bus()
    encoded: Counter[int] = Counter()
    async with counted_turns() as turn:
        monkeypatch.setattr(f"{__name__}.asked", lambda event: encoded.update([turn()]))
        await bus.publish_batch([KeyAsked(n) for n in range(4 * AT_ONCE)])
    assert len(encoded) == 4


async def test_a_large_commit_is_routed_in_slices(stored: Backend) -> None:
    """10,000 events for ten subscriptions would hold up the event loop for an eighth of a second."""
    bus = await stored.start_bus()
    handled: Recorder[int] = Recorder()
    routed: Counter[int] = Counter()
    async with counted_turns() as turn:

        def key(event: Moved) -> str:
            routed[turn()] += 1
            return event.piece

        async def handle(event: Moved) -> None:
            handled.add(event.n)

        for number in range(4):
            bus.subscribe(Moved, handle, name=f"sub-{number}", ordering=key)
        await bus.publish_batch([Moved("rook", n) for n in range(4000)])
        await bus.drain(LIMIT)
    assert sorted(handled) == sorted(list(range(4000)) * 4)
    assert max(routed.values()) <= 2 * _SLICE


async def test_drain_waits_for_a_large_commit_made_past_the_bus(stored: Backend) -> None:
    """It would return between two slices, when nothing seems to be left."""
    bus = await stored.start_bus()
    handled: Recorder[int] = Recorder()

    async def handle(event: NoteTaken) -> None:
        handled.add(event.n)

    bus.subscribe(NoteTaken, handle, name="sub")
    await bus.drain(LIMIT)
    assert bus.storage is not None
    await bus.storage.store_events([*(Moved("rook", n) for n in range(5000)), NoteTaken(7)])
    await bus.drain(LIMIT)
    assert handled == [7]


async def test_wait_for_returns_no_event_of_a_large_batch_published_before(stored: Backend) -> None:
    """The call that publishes returns before the last slice is routed, so those events would look new."""
    bus = await stored.start_bus()
    bus.subscribe(Moved, _ignore, name="sub")
    await bus.publish_batch([Moved("rook", n) for n in range(5000)])
    waiting = asyncio.create_task(bus.wait_for(Moved, timeout=LIMIT))
    await bus.drain(LIMIT)
    await bus.publish(Moved("rook", 5000))
    assert (await waiting).n == 5000


async def _ignore(event: Moved) -> None:
    """Handle an event by doing nothing."""


class Routed:
    """What was routed: numbers of events, and how far was skipped."""

    def __init__(self, fails_at: int | None = None) -> None:
        self.positions: list[int] = []
        self.skipped_to: list[int] = []
        self.fails_at = fails_at
        self.commits = Commits(self._route, self.skipped_to.append, lambda: 1)
        self._committed = 0

    def commit(self, count: int) -> None:
        """Commit this many events more."""
        first = self._committed + 1
        self._committed += count
        self.commits.add(Committed(first, tuple(Moved("rook", n) for n in range(first, first + count))))

    def _route(self, batch: Committed) -> None:
        positions = range(batch.first, batch.first + len(batch.events))
        assert [event.n for event in batch.events if isinstance(event, Moved)] == list(positions)
        if batch.first == self.fails_at:
            raise ValueError("a bug")
        self.positions += positions


async def until_empty(commits: Commits) -> None:
    """Run the event loop until everything is routed."""
    async with asyncio.timeout(LIMIT):
        while not commits.is_empty:
            await spin_loop(1)


async def test_small_commits_behind_a_large_one_are_routed_in_order() -> None:
    """One that overtakes it would make the subscriptions take the rest of the large one for seen."""
    routed = Routed()
    routed.commit(3 * _SLICE)
    for _ in range(50):
        routed.commit(1)
    assert len(routed.positions) == _SLICE
    await until_empty(routed.commits)
    assert routed.positions == list(range(1, 3 * _SLICE + 51))


async def test_commits_that_come_faster_than_they_are_routed_are_read_from_the_log() -> None:
    """Held in memory until their turn comes, they would fill it."""
    routed = Routed()
    for _ in range(3):
        routed.commit(BUFFER_LIVE // 2)
    assert routed.skipped_to == [3 * (BUFFER_LIVE // 2)]
    assert routed.commits.is_empty
    await asyncio.sleep(0)
    assert routed.positions == list(range(1, _SLICE + 1))
    routed.commit(10)
    assert len(routed.positions) == _SLICE + 10


async def test_a_slice_that_cannot_be_routed_does_not_keep_back_what_follows() -> None:
    """The events of all later commits would never be delivered, in a process that looks healthy."""
    reported: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: reported.append(context))
    routed = Routed(fails_at=_SLICE + 1)
    routed.commit(2 * _SLICE)
    routed.commit(10)
    await until_empty(routed.commits)
    assert routed.positions == [*range(1, _SLICE + 1), *range(2 * _SLICE + 1, 2 * _SLICE + 11)]
    assert len(reported) == 1
