"""A partition is followed again whenever its events have been read up to its end."""

from __future__ import annotations

import pytest

from pabal.brokers.redis import RedisEventBus, pages
from tests.brokers.events import Moved, Recorder, moves, until
from tests.brokers.server import Server
from tests.brokers.support import make_bus, stop_heartbeats


async def listen_anew(bus: RedisEventBus) -> None:
    """Make a bus determine again which partitions it listens to, as it does every two seconds."""
    assert bus._tail is not None
    bus._tail.refresh()
    for _ in range(20):
        await bus._log.link.call("PING")


async def test_a_backlog_that_ends_with_a_full_page_is_followed_by_new_events(
    shared_server: Server, namespace: str
) -> None:
    """Promise 39. A partition would stand still for ever, with healthy processes: one backlog in sixteen."""
    recorder = Recorder()
    async with make_bus(shared_server, namespace, recorder, partitions=1) as bus:
        await bus.publish(Moved("a", 0))
        await bus.drain(timeout=30)
        await bus._log.link.call("HSET", bus._log.keys.meta, "run", "another")  # as after a restart
    async with make_bus(shared_server, namespace, partitions=1) as other:
        for number in range(1, 1 + pages._ENTRIES):
            await other.publish(Moved("a", number))
        async with make_bus(shared_server, namespace, recorder, partitions=1) as bus:
            await until(lambda: len(recorder.numbers) == 1 + pages._ENTRIES)
            [running] = bus._group_engine.running.values()
            assert running.storage.pages.follows
            await other.publish(Moved("a", 1 + pages._ENTRIES))
            await until(lambda: len(recorder.numbers) == 2 + pages._ENTRIES, 10.0)


async def test_events_of_another_process_are_delivered_after_many_of_this_process(
    shared_server: Server, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise 39. A process that publishes much itself would not get the events of others any more."""
    monkeypatch.setattr(pages, "_CACHED_ROWS", 50)
    recorder = Recorder()
    async with (
        make_bus(shared_server, namespace, recorder, partitions=1, lease=30.0) as bus,
        make_bus(shared_server, namespace, partitions=1) as other,
    ):
        assert bus._tail is not None
        assert bus._coordinator is not None
        [running] = bus._group_engine.running.values()
        stop_heartbeats(bus)  # and with them the looks at the group
        with monkeypatch.context() as patch:
            # The answers to its own appends arrive before the news of the events.
            patch.setattr(bus._tail, "_on_head", lambda partition, head: None)
            for number in range(200):
                await bus.publish(Moved("a", number))
            await until(lambda: len(recorder.numbers) == 200 and not running.storage.pages.follows)
        await listen_anew(bus)
        await other.publish(Moved("a", 200))
        await bus._coordinator._run_round()
        await until(lambda: len(recorder.numbers) == 201, 10.0)


async def test_a_partition_at_rest_goes_on_after_a_second_announcement_of_a_restart(
    shared_server: Server, namespace: str
) -> None:
    """Promise 40. A restart that is noticed twice would leave a partition that nobody listens to."""
    recorder = Recorder()
    async with (
        make_bus(shared_server, namespace, recorder, partitions=1) as bus,
        make_bus(shared_server, namespace, partitions=1) as other,
    ):
        await other.publish_batch(moves(1, 5))
        await until(lambda: len(recorder.numbers) == 5)
        assert bus._coordinator is not None
        await bus._coordinator.resume_partitions()
        await listen_anew(bus)
        await other.publish(Moved("a", 5))
        await until(lambda: len(recorder.numbers) == 6, 10.0)


async def test_events_behind_a_gap_that_arrive_while_heartbeats_are_overdue_are_delivered(
    shared_server: Server, namespace: str
) -> None:
    """Promise 41. After a suspension, a partition would stand still until its next event but one."""
    recorder = Recorder()
    async with (
        make_bus(shared_server, namespace, recorder, partitions=1) as bus,
        make_bus(shared_server, namespace, partitions=1) as other,
    ):
        await other.publish_batch(moves(1, 5))
        await until(lambda: len(recorder.numbers) == 5)
        coordinator = bus._coordinator
        assert coordinator is not None
        stop_heartbeats(bus)
        await until(lambda: coordinator.heartbeat.is_overdue)
        [running] = bus._group_engine.running.values()
        await bus._log.link.call("HINCRBY", bus._log.keys.part(0), "head", 1)  # an event that was lost
        await other.publish(Moved("a", 5))
        await until(lambda: not running.storage.pages.follows)
        await coordinator._run_round()
        await until(lambda: len(recorder.numbers) == 6, 10.0)
