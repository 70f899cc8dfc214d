"""Appending units that share event ids with one another and with events already stored."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pabal.brokers.redis.log import RedisLog
from pabal.brokers.redis.reader import LogReader
from pabal.domain.ids import new_event_id
from pabal.errors import DuplicateEventError
from tests.brokers.events import Moved
from tests.brokers.server import ExternalServer, Server

EVENTS = st.tuples(st.integers(0, 7), st.sampled_from([1, 1, 1, 2]))
"""Which id, and which content it has."""
ROUNDS = st.lists(
    st.lists(st.lists(EVENTS, min_size=1, max_size=6), min_size=1, max_size=5), min_size=1, max_size=4
)
"""Rounds of concurrent calls."""
_numbers = itertools.count(1)

Call = list[tuple[int, int]]


def id_of(which: int) -> UUID:
    """Return one of several ids with the same first 15 bytes, which are remembered together."""
    return UUID(int=(which % 3) << 8 | which)


def events_of(call: Call) -> list[Moved]:
    return [Moved(f"k{which % 2}", content, event_id=str(id_of(which))) for which, content in call]


async def append_and_check(log: RedisLog, rounds: list[list[Call]]) -> dict[int, tuple[int, tuple[int, int]]]:
    """Append the rounds and check every answer; return each id's content and position."""
    stored: dict[int, tuple[int, tuple[int, int]]] = {}
    for calls in rounds:
        answers = await asyncio.gather(
            *(log.append_to_all(events_of(call)) for call in calls), return_exceptions=True
        )
        for call, answer in zip(calls, answers, strict=True):
            if isinstance(answer, BaseException):
                assert isinstance(answer, DuplicateEventError), answer
                others = {which: {content} for which, (content, _) in stored.items()}
                for which, content in itertools.chain(*calls):
                    others.setdefault(which, set()).add(content)
                assert any(others[which] != {content} for which, content in call), "rejected for no reason"
                continue
            for (which, content), place in zip(call, answer, strict=True):
                assert stored.setdefault(which, (content, place)) == (content, place)
    return stored


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rounds=ROUNDS)
def test_concurrent_appends_store_each_id_once_with_one_content(
    shared_server: Server | ExternalServer, namespace: str, rounds: list[list[Call]]
) -> None:
    """A repeated event could be stored twice, get another place, or fail other events with it."""

    async def run() -> None:
        log = RedisLog(shared_server.url, namespace=f"{namespace}-{next(_numbers)}", partitions=3)
        await log.open()
        try:
            stored = await append_and_check(log, rounds)
            entries = [entry for part in range(3) for entry in await log.read_entries(part, 0, 1000)]
            rows = [row for entry in entries for row in entry.rows]
            assert len(rows) == len({row.event_id for row in rows}) == len(stored)
            reader = LogReader(log.link, log.keys, 3)
            for which, (content, place) in stored.items():
                found = await reader.find(id_of(which).bytes)
                assert found is not None
                assert (found.partition, found.row.position) == place
                assert b'"number":%d' % content in found.row.payload
        finally:
            await log.close()

    asyncio.run(run())


@pytest.mark.parametrize("new_id", [new_event_id, lambda: str(uuid4())], ids=["in bursts", "random"])
@pytest.mark.parametrize("sizes", [(3000,), (1, 2, 500), (40, 1, 1)])
async def test_appending_a_batch_again_returns_the_position_of_each_event(
    shared_server: Server | ExternalServer,
    namespace: str,
    sizes: tuple[int, ...],
    new_id: Callable[[], str],
) -> None:
    """An entry holds many events; a repeated one could get the place of another."""
    log = RedisLog(shared_server.url, namespace=namespace, partitions=2)
    await log.open()
    try:
        for size in sizes:
            events = [Moved(f"k{number % 5}", number, event_id=new_id()) for number in range(size)]
            places = await log.append_to_all(events)
            assert await log.append_to_all(events[::-1]) == places[::-1]
            assert await log.append_to_all(events[size // 2 :]) == places[size // 2 :]
    finally:
        await log.close()


@pytest.mark.parametrize("size", [1, 3, 25])
async def test_the_last_ids_are_remembered_and_older_ones_are_forgotten(
    shared_server: Server | ExternalServer, namespace: str, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An event sent again would be stored twice, or the server would remember ids without limit."""
    monkeypatch.setattr("pabal.brokers.redis.log._GENERATION", 10)
    log = RedisLog(shared_server.url, namespace=namespace, partitions=1)
    await log.open()
    try:
        sent: list[Moved] = []
        for _ in range(60 // size):
            batch = [Moved("k", len(sent) + number, event_id=str(uuid4())) for number in range(size)]
            sent += batch
            await log.append_to_all(batch)
            last = sent[-10:]
            places = await log.append_to_all(last)
            assert places == [(0, position) for position in range(len(sent) - len(last) + 1, len(sent) + 1)]
            remembered = [await log.link.call("HLEN", key) for key in log.keys.append_keys(0)[2:]]
            assert sum(remembered) < 2 * 10 + size + 2  # each counts the ids in a field of its own
        assert (await log.append_to_all(sent[:1]))[0][1] > len(sent)
    finally:
        await log.close()
