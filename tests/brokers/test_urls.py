"""URLs of a server: their schemes, and settings meant for other clients."""

from __future__ import annotations

import pytest

from pabal.brokers.redis import RedisEventBus
from pabal.errors import UsageError
from pabal.factory import EventBusFactory
from tests.brokers.events import Moved, Recorder
from tests.brokers.server import Server


@pytest.mark.parametrize("setting", ["decode_responses=true", "protocol=3", "socket_timeout=0.01"])
async def test_url_settings_for_other_clients_do_not_break_the_bus(
    shared_server: Server, namespace: str, setting: str
) -> None:
    """With a URL shared with other clients, pabal would fail with an AttributeError or a TypeError."""
    recorder = Recorder()
    bus = RedisEventBus(f"{shared_server.url}?{setting}", group="g", namespace=namespace, partitions=2)
    bus.subscribe(Moved, recorder, name="sub")
    async with bus:
        await bus.publish(Moved("a", 1))
        await bus.drain(timeout=30)
    assert recorder.numbers == [1]


def test_valkey_schemes_are_accepted_and_others_rejected() -> None:
    """``valkey://`` would work only in the factory; elsewhere the error would blame the host."""
    assert "valkey://localhost" in repr(RedisEventBus("valkey://localhost", group="g"))
    assert "valkeys://localhost" in repr(RedisEventBus("VALKEYS://localhost", group="g"))
    assert "valkey://localhost" in repr(EventBusFactory.from_url("valkey://localhost?group=g"))
    with pytest.raises(UsageError, match="begins with redis://"):
        RedisEventBus("http://localhost", group="g")
