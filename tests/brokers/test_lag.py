"""The lag of a group, as it is seen from outside: events that it has not finished, and no others."""

from __future__ import annotations

from pabal.brokers.redis.doctor import examine_server
from pabal.factory import open_operations
from tests.brokers.events import Recorder, moves, until
from tests.brokers.server import Server
from tests.brokers.support import (
    make_bus,
    url_of,
)


async def test_a_stopped_group_shows_its_lag_and_no_owner(shared_server: Server, namespace: str) -> None:
    """Otherwise an operator would have to start the application to learn how far it is behind."""
    async with make_bus(shared_server, namespace, Recorder().handle) as bus:
        await bus.publish_batch(moves(4, 20))
        await bus.drain(timeout=30)
    async with make_bus(shared_server, namespace) as publisher:
        await publisher.publish_batch(moves(4, 7))
    async with open_operations(url_of(shared_server, namespace)) as operations:
        overview = await operations.overview()
        [view] = await operations.subscriptions()
    assert (view.name, view.state, view.lag, view.watermark, view.owner) == ("sub", "idle", 7, 20, None)
    assert (overview.totals.events, overview.totals.head, overview.lag) == (27, 27, 7)
    assert (overview.health, [one.code for one in overview.reasons]) == ("degraded", ["unclaimed"])
    assert overview.published_per_second == round(27 / 60, 3)


async def test_positions_never_assigned_do_not_count_as_lag(own_server: Server, namespace: str) -> None:
    """After a restart of the server, the group would seem to be four billion events behind."""
    async with make_bus(own_server, namespace, Recorder().handle) as bus:
        await bus.publish_batch(moves(1, 5))
        await bus.drain(timeout=30)
    await own_server.restart()
    async with make_bus(own_server, namespace) as publisher:
        await publisher.publish_batch(moves(1, 3))
    async with open_operations(url_of(own_server, namespace)) as operations:
        [view] = await operations.subscriptions()
        overview = await operations.overview()
    assert (view.lag, view.watermark) == (3, 5)
    assert (overview.totals.events, overview.totals.head) == (8, 8)
    assert overview.published_per_second == round(8 / 60, 3)


async def test_positions_never_assigned_do_not_count_as_lag_of_a_paused_subscription(
    own_server: Server, namespace: str
) -> None:
    """After a server restart, its metrics would show billions of waiting events until it is resumed."""
    recorder = Recorder()
    async with make_bus(own_server, namespace, recorder.handle) as bus:
        await bus.publish_batch(moves(1, 5))
        await bus.drain(timeout=30)
        await bus.subscriptions.pause("sub")
        await own_server.restart()
        await bus.publish_batch(moves(1, 3))
        await until(lambda: bus.get_statistics()["subscriptions"]["sub"]["lag"] == 3)
    async with make_bus(own_server, namespace, recorder.handle) as bus:
        await until(lambda: bus.get_statistics()["subscriptions"]["sub"]["lag"] == 3)
        assert bus.get_statistics()["subscriptions"]["sub"]["state"] == "paused"
        await bus.subscriptions.resume("sub")
        await bus.drain(timeout=30)
        assert bus.get_statistics()["subscriptions"]["sub"]["lag"] == 0
    assert recorder.numbers == [0, 1, 2, 3, 4, 0, 1, 2]


async def test_trimmed_events_do_not_count_as_lag(shared_server: Server, namespace: str) -> None:
    """After a reset to the beginning, the lag would include all events ever trimmed."""
    async with make_bus(shared_server, namespace, Recorder().handle, partitions=1, keep=4) as bus:
        for event in moves(1, 20):
            await bus.publish(event)
        await bus.drain(timeout=30)
        assert bus._coordinator is not None
        await bus._coordinator.trim()
    async with open_operations(url_of(shared_server, namespace)) as operations:
        assert not (await operations.reset("sub", "beginning")).pending
        [view] = await operations.subscriptions()
        overview = await operations.overview()
    assert (view.lag, view.watermark) == (4, 16)
    assert (overview.lag, overview.totals.events, overview.totals.head) == (4, 4, 20)
    findings = await examine_server(shared_server.url, namespace)
    assert any("group 'g' is 4 positions behind" in finding.text for finding in findings)
    recorder = Recorder()
    async with make_bus(shared_server, namespace, recorder.handle, partitions=1) as bus:
        await bus.drain(timeout=30)
    assert recorder.numbers == [16, 17, 18, 19]
