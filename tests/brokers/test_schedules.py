"""What is scheduled on a server, and enters the log when it is due, by whatever process."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from redis import Redis

from tests.brokers.events import Moved, Noted, until
from tests.brokers.server import Server
from tests.brokers.test_bus import make


async def test_many_that_are_due_at_once_travel_together(own_server: Server, namespace: str) -> None:
    """Promise 43. Each took three round trips in turn; that long nobody took a dead process's partitions."""
    noted = Noted()
    due = datetime.now(UTC) - timedelta(days=1)
    async with make(own_server, namespace, noted) as bus:
        with Redis.from_url(own_server.url) as client:
            client.config_resetstat()
            for number in range(400):
                await bus._front._schedule.add(Moved("k", number), due.timestamp())
            await until(lambda: len(noted.numbers) == 400)
            calls = client.info("commandstats")
            assert calls["cmdstat_xadd"]["calls"] <= 40
    assert noted.numbers == list(range(400))
