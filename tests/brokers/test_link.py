"""The connection that all calls share: in which order and when commands leave."""

from __future__ import annotations

import asyncio
import time

import pytest
import redis

from pabal.brokers.redis.link import Link
from pabal.errors import BrokerError, BrokerUnavailableError
from tests.brokers.server import Server


async def test_a_large_command_reaches_the_server_while_the_event_loop_is_busy(
    shared_server: Server, namespace: str
) -> None:
    """The server would be idle while the publisher encodes its next events, and begin only afterwards."""
    link = Link(shared_server.url, loads_scripts=False)
    await link.open()
    with redis.Redis.from_url(shared_server.url) as other:
        small = link.call("SET", namespace, b"small")
        large = link.call("SET", namespace, bytes(32 << 10))
        deadline = time.monotonic() + 30
        while other.strlen(namespace) != 32 << 10:  # without letting the event loop run
            assert time.monotonic() < deadline, "the command waits for the event loop"
        assert [await small, await large] == [b"OK", b"OK"]
        other.delete(namespace)
    await link.close()


async def test_commands_of_all_sizes_are_sent_in_the_order_of_the_calls(
    shared_server: Server, namespace: str
) -> None:
    """A large command that overtakes small ones would break transactions, and mix up the answers."""
    link = Link(shared_server.url, loads_scripts=False)
    await link.open()
    sizes = [1, 40_000, 2, 3, 20_000, 100_000, 4]
    calls = [link.call("APPEND", namespace, bytes([65 + index]) * size) for index, size in enumerate(sizes)]
    assert await asyncio.gather(*calls) == [sum(sizes[: index + 1]) for index in range(len(sizes))]
    text = await link.call("GET", namespace)
    assert text == b"".join(bytes([65 + index]) * size for index, size in enumerate(sizes))
    await link.call("DEL", namespace)
    await link.close()


@pytest.mark.parametrize(
    ("text", "is_transient"),
    [
        ("-NOREPLICAS Not enough good replicas to write", True),
        ("-OOM command not allowed when used memory > 'maxmemory'.", True),
        ("-READONLY You can't write against a read only replica.", True),
        ("-MISCONF Redis is configured to save RDB snapshots", True),
        ("-WRONGTYPE Operation against a key holding the wrong kind of value", False),
    ],
)
def test_an_error_that_a_script_met_on_an_old_server_counts_as_that_error(
    text: str, is_transient: bool
) -> None:
    """On Redis 6.2, publishers would fail at once while a replica is away or the memory is full."""
    link = Link("redis://127.0.0.1:6379/0")
    before = f"Error running script (call to f_{'0f' * 20}): @user_script:41: @user_script: 41: "
    error = link._to_broker_error(redis.ResponseError(before + text))
    assert type(error) is (BrokerUnavailableError if is_transient else BrokerError)
    assert error.reason == f"the server refused: {text[1:].rstrip('.')}"
