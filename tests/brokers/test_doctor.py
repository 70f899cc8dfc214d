"""``pabal doctor redis://…`` warns of what a server can lose before it loses it."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from pabal.brokers.redis.doctor import examine_server, judge_server
from pabal.cli.doctor import doctor
from tests.brokers.events import moves
from tests.brokers.server import Server
from tests.brokers.support import make_bus

SAFE = {"redis_version": "7.2.4", "aof_enabled": "1", "role": "master"}


@pytest.mark.parametrize(
    ("change", "settings", "level", "word"),
    [
        ({}, {"appendfsync": "always"}, "ok", "before each reply"),
        ({}, {"appendfsync": "everysec"}, "warning", "last second"),
        ({}, {"appendfsync": "no"}, "problem", "about 30 seconds"),
        ({}, None, "warning", "does not show"),
        ({"aof_enabled": "0"}, None, "problem", "append-only file is off"),
        ({"aof_last_write_status": "err"}, None, "problem", "cannot be written"),
        ({"maxmemory": "100", "maxmemory_policy": "allkeys-lru"}, None, "problem", "evicts keys"),
        ({"maxmemory": "0", "maxmemory_policy": "allkeys-lru"}, None, "warning", "allkeys-lru"),
        ({"maxmemory": "100", "used_memory": "90"}, None, "warning", "80 %"),
        ({"role": "slave"}, None, "problem", "replica"),
        ({"connected_slaves": "2"}, None, "warning", "2 replicas"),
        ({"redis_version": "5.0.14"}, None, "problem", "too old"),
        ({"cluster_enabled": "1"}, None, "warning", "cluster"),
    ],
)
def test_judge_server_rates_each_setting_that_can_lose_events(
    change: dict[str, str], settings: dict[str, str] | None, level: str, word: str
) -> None:
    """Otherwise an operator would notice a setting only after it has lost events."""
    found = judge_server({**SAFE, **change}, settings)
    assert [finding.level for finding in found if word in finding.text] == [level]


async def test_examine_server_reports_the_log_and_its_groups(shared_server: Server, namespace: str) -> None:
    """The doctor must read the same keys as the bus writes."""
    async with make_bus(shared_server, namespace, lambda event: None) as bus:
        await bus.drain(timeout=30)
    async with make_bus(shared_server, namespace) as publisher:
        await publisher.publish_batch(moves(4, 10))
    findings = await examine_server(shared_server.url, namespace)
    texts = [finding.text for finding in findings]
    assert "a log of 8 partitions" in texts
    assert any("group 'g' is 10 positions behind and has no process" in text for text in texts)
    assert "problem" not in {finding.level for finding in findings}


def test_the_doctor_command_hides_the_credentials_of_the_url(shared_server: Server) -> None:
    """Otherwise a password would be visible to everyone who sees the terminal."""
    url = shared_server.url.replace("redis://", "redis://default:@")
    run = CliRunner().invoke(doctor, [f"{url}?group=risk"])
    assert run.exit_code == 0, run.output
    assert "default" not in run.output
    assert "synced before each reply" in run.output
