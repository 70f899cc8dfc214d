"""Operators' actions on a group are recorded on its server, whichever tool they use."""

from __future__ import annotations

import asyncio

import pytest

from pabal.brokers.redis import actions
from pabal.errors import BusNotRunningError, StorageClosedError
from pabal.factory import open_operations
from pabal.operations import operations_of
from tests.brokers.events import Recorder
from tests.brokers.server import Server
from tests.brokers.support import make_bus, run_cli, url_of
from tests.dashboard.support import action_headers, client


async def test_actions_on_a_mounted_dashboard_stay_in_the_audit_log_after_a_restart(
    shared_server: Server, namespace: str
) -> None:
    """Otherwise an operator could not see who paused a subscription after its process was redeployed."""
    async with (
        make_bus(shared_server, namespace, Recorder()) as bus,
        client(bus, allow_actions=True) as http,
    ):
        for action, name in (("pause", "sub"), ("resume", "nobody")):
            headers = await action_headers(http)
            await http.post(f"/api/subscriptions/{action}", json={"name": name}, headers=headers)
    url = url_of(shared_server, namespace)
    code, output = await asyncio.to_thread(run_cli, "audit", url)
    assert (code, "pause" in output, "SubscriptionNotFoundError" in output) == (0, True, True), output
    async with make_bus(shared_server, namespace, Recorder()) as bus:
        operations = operations_of(bus, actor="kim")
        await operations.resume("sub")
        done = [(one.actor, one.action, one.subject, one.succeeded) for one in await operations.audit()]
        async with open_operations(url) as outside:
            assert await outside.audit() == await operations.audit()
        assert [one.action for one in await operations.audit(before=3, limit=1)] == ["resume"]
    assert done == [
        ("kim", "resume", "sub", True),
        ("local (dashboard)", "resume", "nobody", False),
        ("local (dashboard)", "pause", "sub", True),
    ]


async def test_the_audit_log_on_a_server_keeps_a_bounded_number_of_entries(
    shared_server: Server, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A script that acts every minute would fill the server's memory over the years."""
    monkeypatch.setattr(actions, "_KEPT", 3)
    async with make_bus(shared_server, namespace, Recorder()) as bus:
        operations = operations_of(bus)
        for _ in range(4):
            await operations.pause("sub")
            await operations.resume("sub")
        assert [one.id for one in await operations.audit()] == [8, 7, 6]
        assert await bus._log.link.call("HLEN", bus._keys.actions) == 3


async def test_operations_on_a_stopped_bus_raise_errors_that_say_it_is_stopped(
    shared_server: Server, namespace: str
) -> None:
    """An operator would read that a storage is closed, although the bus has none."""
    bus = make_bus(shared_server, namespace, Recorder())
    with pytest.raises(StorageClosedError, match=r"the log is closed; .* start the bus"):
        await bus.dead_letters.list()
    with pytest.raises(BusNotRunningError, match="cannot pause: the bus is stopped"):
        await operations_of(bus).pause("sub")
