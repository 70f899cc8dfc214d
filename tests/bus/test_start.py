"""``start``: where a new durable name begins, and that it sees exactly the events after that. Promise 31."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from pabal import InMemoryEventBus, InMemoryEventStorage
from pabal.ports.storage import Committed
from tests.bus.samples import Jumped, Moved, NoteTaken
from tests.bus.support import Backend, Recorder, by_piece, numbers, spin_loop, statistics_of


def recording_handler(seen: Recorder[Any]) -> Any:
    async def note(event: Any) -> None:
        seen.add(event)

    return note


async def test_start_now_delivers_only_events_published_after_the_call(stored: Backend) -> None:
    """Promise 31. The position is fixed at the call itself, although opening takes a while."""
    bus = await stored.start_bus()
    await bus.publish_batch([Moved("rook", n) for n in range(10)])
    seen: Recorder[Moved] = Recorder()
    bus.subscribe(Moved, recording_handler(seen), name="book")
    await bus.publish(Moved("rook", 10))
    await bus.publish(Moved("rook", 11))
    await bus.drain(60)
    assert numbers(seen) == [10, 11]


async def test_start_beginning_delivers_every_event_once(stored: Backend) -> None:
    """Promise 31. Old and new events must meet without a gap or a repetition."""
    bus = await stored.start_bus()
    await bus.publish_batch([Moved("rook", n) for n in range(300)])
    seen: Recorder[Moved] = Recorder()
    bus.subscribe(Moved, recording_handler(seen), name="book", start="beginning")
    for n in range(300, 350):
        await bus.publish(Moved("rook", n))
    await bus.drain(60)
    assert numbers(seen) == list(range(350))


@pytest.mark.parametrize("position", [0, 1, 7, 10, 99])
async def test_start_at_a_position_delivers_the_events_after_it(stored: Backend, position: int) -> None:
    """Promise 31. A position means "after this one"; one beyond the end means now."""
    bus = await stored.start_bus()
    await bus.publish_batch([Moved("rook", n) for n in range(1, 11)])
    seen: Recorder[Moved] = Recorder()
    bus.subscribe(Moved, recording_handler(seen), name="book", start=position)
    await bus.publish(Moved("rook", 11))
    await bus.drain(60)
    assert numbers(seen) == list(range(min(position, 10) + 1, 12))


async def test_start_at_a_receipts_position_delivers_the_events_after_it(stored: Backend) -> None:
    """Promise 31. The position that publish returned is the one that subscribe takes."""
    bus = await stored.start_bus()
    await bus.publish(Moved("rook", 1))
    receipt = await bus.publish(Moved("rook", 2))
    await bus.publish(Moved("rook", 3))
    seen: Recorder[Moved] = Recorder()
    assert receipt.position is not None
    bus.subscribe(Moved, recording_handler(seen), name="book", start=receipt.position)
    await bus.drain(60)
    assert numbers(seen) == [3]


async def test_start_at_a_time_delivers_the_events_committed_since(stored: Backend) -> None:
    """Promise 31. The time is that of the commit, which grows with the position; occurred_at need not."""
    bus = await stored.start_bus()
    long_ago = datetime(2001, 1, 1, tzinfo=UTC)
    await bus.publish_batch([Moved("rook", n, occurred_at=long_ago) for n in range(3)])
    await asyncio.sleep(0.002)  # so that the clock shows two different times
    moment = datetime.now(UTC)
    await asyncio.sleep(0.002)
    await bus.publish_batch([Moved("rook", n, occurred_at=long_ago) for n in range(3, 6)])
    seen: dict[str, Recorder[Moved]] = {name: Recorder() for name in ("since", "all", "none")}
    bus.subscribe(Moved, recording_handler(seen["since"]), name="since", start=moment)
    bus.subscribe(Moved, recording_handler(seen["all"]), name="all", start=long_ago)
    bus.subscribe(Moved, recording_handler(seen["none"]), name="none", start=moment + timedelta(days=1))
    await bus.publish(Moved("rook", 6))
    await bus.drain(60)
    assert numbers(seen["since"]) == [3, 4, 5, 6]
    assert numbers(seen["all"]) == list(range(7))
    assert numbers(seen["none"]) == [6], "a time to come means now"


async def test_start_applies_only_to_a_new_subscription_name(stored: Backend) -> None:
    """A known name continues where it was; ``start="beginning"`` in the code must not replay it at every
    restart.
    """
    bus = await stored.start_bus()
    first: Recorder[Moved] = Recorder()
    bus.subscribe(Moved, recording_handler(first), name="book", start="beginning")
    await bus.publish_batch([Moved("rook", n) for n in range(5)])
    await bus.drain(60)
    bus = await stored.reopen(bus)
    await bus.start()
    await bus.publish(Moved("rook", 5))
    second: Recorder[Moved] = Recorder()
    bus.subscribe(Moved, recording_handler(second), name="book", start="beginning")
    await bus.drain(60)
    assert numbers(first) == [0, 1, 2, 3, 4]
    assert numbers(second) == [5]


async def test_start_now_on_a_stopped_bus_means_the_start_of_the_bus(stored: Backend) -> None:
    """ "now" is the time when the bus opens it; events stored before by other programs are history."""
    bus = await stored.start_bus()
    await bus.publish(Moved("rook", 1))
    bus = await stored.reopen(bus)
    seen: Recorder[Moved] = Recorder()
    bus.subscribe(Moved, recording_handler(seen), name="book")
    async with bus:
        await bus.publish(Moved("rook", 2))
    assert numbers(seen) == [2]


async def test_subscribing_while_others_publish_loses_and_duplicates_nothing(stored: Backend) -> None:
    """Promise 31. Every late subscription sees all events of each key, in order, whenever it subscribes."""
    bus = await stored.start_bus(worker_count=4)
    everything: list[Recorder[Moved]] = []
    count = 150

    async def publish(publisher: int) -> None:
        for n in range(count):
            await bus.publish(Moved(f"piece-{publisher}", n))
            if n % 7 == publisher:
                await asyncio.sleep(0)

    publishers = [asyncio.create_task(publish(number)) for number in range(6)]
    for number in range(12):
        seen: Recorder[Moved] = Recorder()
        everything.append(seen)
        bus.subscribe(Moved, recording_handler(seen), name=f"late-{number}", start="beginning")
        for _ in range(5):
            await asyncio.sleep(0)
    await asyncio.gather(*publishers)
    await bus.drain(30)
    expected = {f"piece-{number}": list(range(count)) for number in range(6)}
    for number, seen in enumerate(everything):
        assert by_piece(seen) == expected
        assert statistics_of(bus, f"late-{number}")["watermark"] == 6 * count


class AheadOfItsCommits(InMemoryEventStorage):
    """A storage whose pages may hold events of unannounced commits, like a disk read next to a writer."""

    def __init__(self) -> None:
        super().__init__()
        self.inserted_meanwhile: list[Moved] = []
        self.unannounced: list[Callable[[], None]] = []

    async def read_page(self, after: int, **options: Any) -> Any:
        if self.inserted_meanwhile:
            await self.store_events(self.inserted_meanwhile)
            self.inserted_meanwhile = []
        return await super().read_page(after, **options)

    def add_listener(self, listener: Callable[[Committed], None]) -> Callable[[], None]:
        def announce(batch: Committed) -> None:
            if self.inserted_meanwhile:
                self.unannounced.append(lambda: listener(batch))
            else:
                listener(batch)

        return super().add_listener(announce)


async def test_an_event_read_before_its_commit_is_announced_is_delivered_once() -> None:
    """Promise 31. A page may go beyond the announced commits; their announcement must not deliver again."""
    storage = AheadOfItsCommits()
    seen: Recorder[Moved] = Recorder()
    async with InMemoryEventBus(storage) as bus:
        await bus.publish(Moved("rook", 1))
        storage.inserted_meanwhile = [Moved("rook", 2), Moved("rook", 3)]
        bus.subscribe(Moved, recording_handler(seen), name="book", start="beginning")
        await seen.reach(3)
        await spin_loop()
        for announce in storage.unannounced:
            announce()
        await bus.publish(Moved("rook", 4))
        await bus.drain(60)
        assert numbers(seen) == [1, 2, 3, 4]
        assert statistics_of(bus, "book")["watermark"] == 4


async def test_selectors_apply_to_logged_events_as_to_live_ones(stored: Backend) -> None:
    """Subclasses, patterns and filters must mean the same for rows of the log as for live events."""
    bus = await stored.start_bus()
    await bus.publish_batch([Moved("rook", 1), NoteTaken(2), Jumped("knight", 3), Moved("rook", 4)])
    seen: dict[str, Recorder[Any]] = {name: Recorder() for name in ("class", "pattern", "where")}
    bus.subscribe(Moved, recording_handler(seen["class"]), name="class", start="beginning")
    bus.subscribe("piece.j*", recording_handler(seen["pattern"]), name="pattern", start="beginning")
    bus.subscribe(
        Moved,
        recording_handler(seen["where"]),
        name="where",
        start="beginning",
        where=lambda event: event.n > 3,
    )
    await bus.drain(60)
    assert sorted(numbers(seen["class"])) == [1, 3, 4]
    assert numbers(seen["pattern"]) == [3]
    assert numbers(seen["where"]) == [4]
    assert {statistics_of(bus, name)["watermark"] for name in seen} == {4}
