"""Foreign or damaged data on a server is reported as such, and does not affect other data."""

from __future__ import annotations

import asyncio

import pytest

from pabal import BaseEventBus
from pabal.brokers.redis.cursors import encode_row
from pabal.brokers.redis.keys import GroupKeys
from pabal.brokers.redis.link import Argument
from pabal.domain.envelope import StoredRecord, encode_event
from pabal.errors import DecodeError, SubscriptionError
from pabal.factory import open_operations
from pabal.ports.operations import DeadLetterFilter
from tests.brokers.events import Moved, Recorder, moves, until
from tests.brokers.server import Server
from tests.brokers.support import make_bus


def fail(event: Moved) -> None:
    raise ValueError("not this one")


def keys_of(bus: BaseEventBus) -> GroupKeys:
    return bus._keys  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xff", b"by hand", b"\x80"], ids=["empty", "bytes", "text", "map"]
)
@pytest.mark.parametrize("what", ["letters", "letter_rows"])
async def test_an_unreadable_dead_letter_does_not_hide_the_others(
    shared_server: Server, namespace: str, what: str, content: bytes
) -> None:
    """Otherwise one damaged dead letter would keep all others from being listed or retried."""
    async with make_bus(shared_server, namespace, fail, partitions=2) as bus:
        await bus.publish_batch(moves(2, 4))
        await bus.drain(timeout=30)
        before = await bus.dead_letters.list()
        await bus._log.link.call("HSET", getattr(keys_of(bus), what), 2, content)
        letters = await bus.dead_letters.list()
        assert [letter.id for letter in letters] == [1, 2, 3, 4]
        damaged = letters[1]
        assert (damaged.subscription, damaged.position) == ("sub", before[1].position)
        if what == "letters":
            assert "cannot be read" in damaged.reason
        else:
            assert (damaged.event_type, damaged.payload) == ("(unreadable)", content)
        assert sum(group.count for group in await bus._group_log.group_dead_letters()) == 4
        url = f"{shared_server.url}?namespace={namespace}&group=g"
        async with open_operations(url) as operations:
            shown = await operations.dead_letters(DeadLetterFilter())
            assert [letter.id for letter in shown.dead_letters] == [1, 2, 3, 4]
            if what == "letter_rows":
                with pytest.raises(DecodeError, match="discard it"):
                    await operations.retry(2)
        if what == "letter_rows":
            with pytest.raises(DecodeError):
                await bus.dead_letters.retry(2)
        await bus.dead_letters.discard(2)
        assert [letter.id for letter in await bus.dead_letters.list()] == [1, 3, 4]
        assert await bus._log.link.call("HLEN", keys_of(bus).letter_index) == 3


async def test_entries_of_another_client_hide_no_dead_letter_and_can_be_discarded(
    shared_server: Server, namespace: str
) -> None:
    """Otherwise an experiment on the server could make all dead letters inaccessible."""
    async with make_bus(shared_server, namespace, fail, partitions=2) as bus:
        await bus.publish_batch(moves(2, 2))
        await bus.drain(timeout=30)
        keys = keys_of(bus)
        commands: list[tuple[Argument, ...]] = [
            ("ZADD", keys.letter_ids, 0.5, "not a number", 7, 7, 8.5, "another"),
            ("HSET", keys.letters, 7, "by hand"),
            ("HSET", keys.letter_rows, 7, ""),
            ("HSET", keys.letter_index, "by hand", 7, "x\0y\0z", 7),
        ]
        for command in commands:
            await bus._log.link.call(*command)
        letters = await bus.dead_letters.list()
        assert [(letter.id, letter.subscription) for letter in letters] == [(1, "sub"), (2, "sub"), (7, "")]
        assert len(await bus._group_log.list_subscriptions()) == 1
        with pytest.raises(SubscriptionError, match="belongs to ''"):
            await bus.dead_letters.retry(7)
        url = f"{shared_server.url}?namespace={namespace}&group=g"
        async with open_operations(url) as operations:
            with pytest.raises(DecodeError, match="the dead letter cannot be read; discard it"):
                await operations.retry(7)
            done = await operations.retry_matching(DeadLetterFilter())
            assert (done.count, done.skipped) == (2, 1)
            await until(lambda: not bus._engine.pending)
        await bus.drain(timeout=30)
        await bus.dead_letters.discard(7)
        assert [letter.id for letter in await bus.dead_letters.list()] == [1, 2]


async def test_an_unreadable_scheduled_event_does_not_hold_back_the_others(
    shared_server: Server, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Promise 43. No scheduled event would be appended any more, and no log message would say why."""
    recorder = Recorder()
    async with make_bus(shared_server, namespace, recorder, partitions=2) as bus:
        keys, call = bus._log.keys, bus._log.link.call
        await call("HSET", keys.scheduled, b"by hand", b"nothing", b"elsewhere", encode_row(row_in(99)))
        await call("ZADD", keys.schedule, 1, b"by hand", 2, b"elsewhere")
        await bus.publish(Moved("a", 1), delay=0.01)
        await until(lambda: recorder.numbers == [1])
        async with asyncio.timeout(30.0):
            # This is the last step of a release, after the append.
            while await call("ZCARD", keys.schedule):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert sorted(await call("HKEYS", keys.scheduled)) == [b"by hand", b"elsewhere"]
    messages = [record.getMessage() for record in caplog.records if "is not released" in record.getMessage()]
    assert ["there is no partition 99" in text for text in messages] == [False, True]


async def test_the_owner_drops_invalid_requests_of_another_client(
    shared_server: Server, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Promise 44. Each round would fail: no trimming, no scheduled events, no answers to requests."""
    async with make_bus(shared_server, namespace, Recorder(), partitions=1) as bus:
        calls, call = keys_of(bus).of(0).calls, bus._log.link.call
        await call("SADD", calls, "sub\0by hand\0", b"\xff", "x", "99", "0", "007", "٣", "9" * 5000)
        assert bus._coordinator is not None
        await bus._coordinator._answer_calls(0)
        assert await call("SCARD", calls) == 0
    assert "taking or renewing partitions failed" not in caplog.text


def row_in(partition: int) -> StoredRecord:
    return StoredRecord(partition, *encode_event(Moved("a", 2), 1 << 20), None, 0)
