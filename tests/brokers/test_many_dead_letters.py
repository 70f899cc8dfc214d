"""Many dead letters on a server: how many reads they cost, and how a repeated failure is reported."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from unittest.mock import AsyncMock

import pytest

from pabal import NotRetryableError
from pabal.brokers.redis import RedisEventBus
from pabal.brokers.redis.cursors import SavedLetter
from pabal.brokers.redis.dead_letters import GroupDeadLetters
from pabal.brokers.redis.pages import Pages
from pabal.brokers.redis.reports import EventsLost
from pabal.brokers.redis.subscription_reading import read_subscriptions
from pabal.operations import operations_of
from pabal.ports.telemetry import EventParked, Report
from tests.brokers.events import Moved, moves, until
from tests.brokers.server import Server
from tests.brokers.support import make_bus
from tests.loop_iterations import count_loop_iterations


async def fail(event: Moved) -> None:
    raise NotRetryableError("not this one")


@pytest.fixture
def request_sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Record how many entries each request by position asks for."""
    counts: list[int] = []
    entries_at = Pages._entries_at

    def counting_entries_at(pages: Pages, positions: Sequence[int]) -> Any:
        counts.append(len(positions))
        return entries_at(pages, positions)

    monkeypatch.setattr(Pages, "_entries_at", counting_entries_at)
    return counts


async def test_events_parked_together_are_read_together(
    shared_server: Server, namespace: str, request_sizes: list[int]
) -> None:
    """Each dead letter would cost a read of a whole log entry, one after the other."""
    bus = make_bus(shared_server, namespace, fail, partitions=1)
    async with bus:
        await bus.publish_batch(moves(300, 600))
        await bus.drain(timeout=30)
        letters = await bus.dead_letters.list(limit=1000)
    assert sorted(letter.event.number for letter in letters) == list(range(600))
    assert sum(request_sizes) < 300


@pytest.mark.parametrize("together", [True, False], ids=["one batch", "single events"])
async def test_find_reads_rows_in_few_requests_however_they_are_batched(
    shared_server: Server, namespace: str, request_sizes: list[int], together: bool
) -> None:
    """An entry would be read once for each of its rows, or single rows one after the other."""
    async with make_bus(shared_server, namespace, partitions=1) as bus:
        for stretch in [moves(1, 400)] if together else [[event] for event in moves(1, 400)]:
            await bus.publish_batch(stretch)
        pages = Pages(bus._log, 0, lambda first, last: None)
        found = await pages.find([*range(2, 400), 1000])
        assert [row.position for row in found] == list(range(2, 400))
        assert len(request_sizes) <= 5
        assert not together or sum(request_sizes) <= 40


async def test_subscriptions_of_a_bus_show_their_dead_letters_without_reading_any(
    shared_server: Server, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page on the bus of a process would load the dead letters of its whole group for each figure."""
    async with make_bus(shared_server, namespace, fail, partitions=2) as bus:
        await bus.publish_batch(moves(4, 8))
        await bus.drain(timeout=30)
        monkeypatch.setattr(GroupDeadLetters, "_load", AsyncMock(side_effect=AssertionError))
        [view] = await operations_of(bus).subscriptions()
    assert (view.name, view.parked) == ("sub", 8)


async def test_counting_dead_letters_by_name_yields_to_the_event_loop(
    shared_server: Server, namespace: str
) -> None:
    """The start of each partition would block the event loop while it counts dead letters."""
    async with make_bus(shared_server, namespace, partitions=1) as bus:
        fields = [item for n in range(4000) for item in (f"0\0sub\0{n}", n)]
        await bus._log.link.call("HSET", bus._keys.letter_index, *fields)
        async with count_loop_iterations() as iterations:
            [hkeys] = [await bus._log.link.call("HKEYS", bus._keys.letter_index)]
            alone = iterations.count
            await read_subscriptions(bus._log.link, bus._keys, [])
            assert iterations.count - alone >= 4000 // 256
    assert len(hkeys) == 4000


async def test_a_dead_letter_that_fails_again_is_not_reported_as_a_lost_event(
    shared_server: Server, namespace: str
) -> None:
    """Each retry of a dead letter whose event has been trimmed would raise an alarm."""
    reports: list[Report] = []
    async with make_bus(shared_server, namespace, fail, partitions=1) as bus:
        bus.listen(reports.append)
        await bus.publish_batch(moves(1, 3))
        await bus.drain(timeout=30)
        await bus._log.link.call("XTRIM", bus._log.keys.log(0), "MAXLEN", 0)
        assert await bus.dead_letters.retry("all") == 3
        await until(lambda: sum(isinstance(report, EventParked) for report in reports) == 6)
        await bus.drain(timeout=30)
        letters = await bus.dead_letters.list()
        assert [len(letter.attempts) for letter in letters] == [2, 2, 2]
        assert sorted(letter.event.number for letter in letters) == [0, 1, 2]
    assert not [report for report in reports if isinstance(report, EventsLost)]


async def test_a_start_asks_once_about_each_dead_letter_that_blocks_a_key(
    shared_server: Server, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each partition would ask about those of all others, and a start with thousands would take long."""
    asked: list[int] = []
    ask_behind = GroupDeadLetters._ask_behind

    def counting_ask_behind(letters: GroupDeadLetters, number: int, letter: SavedLetter) -> Any:
        asked.append(number)
        return ask_behind(letters, number, letter)

    def bus() -> RedisEventBus:
        one = make_bus(shared_server, namespace)
        one.subscribe(Moved, fail, name="sub", on_exhausted="park_key")
        return one

    async with bus() as first:
        await first.publish_batch(moves(40, 40))
        await first.drain(timeout=30)
    monkeypatch.setattr(GroupDeadLetters, "_ask_behind", counting_ask_behind)
    async with bus() as again:
        assert again.get_statistics()["subscriptions"]["sub"]["blocked_keys"] == 40
    assert sorted(asked) == list(range(1, 41))
