"""Pausing and resuming subscriptions of a group, from its processes and from outside."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from pabal.brokers.redis import RedisEventBus
from pabal.brokers.redis.inspector import GroupInspector
from pabal.brokers.redis.reports import GroupRestored
from pabal.delivery.consumer import PAUSED
from pabal.errors import SubscriptionNotFoundError
from pabal.factory import open_operations
from pabal.operations import Operations, operations_of
from pabal.ports.telemetry import Report, SubscriptionPaused, SubscriptionResumed
from tests.brokers.events import Moved, Recorder, moves, until
from tests.brokers.server import Server
from tests.brokers.support import dump_namespace, make_bus, run_cli, url_of
from tests.brokers.test_security import bus_at, documented_user
from tests.dashboard.support import action_headers, client


class SubAndOther:
    """The events handled by the subscription under control, "sub", and by one beside it, "other"."""

    def __init__(self) -> None:
        self.sub, self.other = Recorder(), Recorder()

    def bus(self, server: Server, namespace: str, **options: Any) -> RedisEventBus:
        bus = make_bus(server, namespace, self.sub, **options)
        bus.subscribe(Moved, self.other, name="other")
        return bus


@asynccontextmanager
async def two_buses(
    server: Server, namespace: str, both: SubAndOther
) -> AsyncIterator[tuple[RedisEventBus, RedisEventBus]]:
    """Run two buses of a group; yield them when each owns four of the eight partitions."""
    async with both.bus(server, namespace) as one, both.bus(server, namespace) as two:
        await until(lambda: len(one.partitions) == len(two.partitions) == 4)
        yield one, two


def states_of(bus: RedisEventBus) -> set[str]:
    """Return the states of the subscription "sub" in the partitions of a bus."""
    return {engine.consumers["sub"].state for engine in bus._group_engine.engines()}


async def publish_and_drain(
    bus: RedisEventBus, *others: RedisEventBus, first: int = 0, count: int = 50
) -> None:
    """Publish events of many keys, and wait until every subscription that is not paused has handled them."""
    await bus.publish_batch([Moved(f"k{number % 16}", number) for number in range(first, first + count)])
    await asyncio.gather(*(one.drain(timeout=30) for one in (bus, *others)))


async def test_a_pause_applies_to_every_process_and_keeps_order_per_key(
    shared_server: Server, namespace: str
) -> None:
    """A paused subscription would continue in the processes that did not make the call."""
    both = SubAndOther()
    async with two_buses(shared_server, namespace, both) as (one, two):
        await publish_and_drain(one, two)
        reports: list[Report] = []
        two.listen(reports.append)
        assert await one.subscriptions.pause("sub")
        assert states_of(one) == {PAUSED}
        assert not await two.subscriptions.pause("sub")
        await until(lambda: states_of(two) == {PAUSED})
        await publish_and_drain(two, one, first=50)
        assert sorted(both.other.numbers) == list(range(100))
        assert sorted(both.sub.numbers) == list(range(50))
        assert [record.paused for record in await two.subscriptions.list()] == [False, True]
        assert (one.health().status, one.get_statistics()["subscriptions"]["sub"]["state"]) == (
            "degraded",
            "paused",
        )
        assert await two.resume("sub")
        assert not await one.resume("sub")
        await until(lambda: len(both.sub.numbers) == 100)
        assert sum(isinstance(report, SubscriptionPaused) for report in reports) == 4
        await until(lambda: sum(isinstance(report, SubscriptionResumed) for report in reports) == 4)
    for key in range(16):
        assert both.sub.by_key[f"k{key}"] == list(range(key, 100, 16))


async def test_a_pause_survives_restarts_of_processes_and_server(own_server: Server, namespace: str) -> None:
    """A subscription paused by an operator would resume by itself with the next deployment."""
    both = SubAndOther()
    async with both.bus(own_server, namespace) as bus:
        await bus.subscriptions.pause("sub")
    await own_server.restart()
    async with both.bus(own_server, namespace) as bus:
        assert states_of(bus) == {PAUSED}
        await publish_and_drain(bus, count=20)
        await own_server.restart()
        await publish_and_drain(bus, first=20, count=20)
        assert (len(both.other.numbers), both.sub.numbers) == (40, [])
        assert await bus.subscriptions.resume("sub")
        await bus.drain(timeout=30)
    assert sorted(both.sub.numbers) == list(range(40))


async def test_a_pause_survives_a_flush_of_the_server(own_server: Server, namespace: str) -> None:
    """A FLUSHALL would resume a subscription that was paused for a reason."""
    both = SubAndOther()
    reports: list[Report] = []
    bus = both.bus(own_server, namespace)
    bus.listen(reports.append)
    async with bus:
        await bus.subscriptions.pause("sub")
        await bus.subscriptions.pause("other")
        await bus.subscriptions.resume("other")
        await publish_and_drain(bus, count=20)
        assert bus._coordinator is not None
        controls = bus._coordinator.controls
        await until(lambda: controls.paused == {"sub"})
        await bus._log.link.call("FLUSHALL")
        await until(lambda: sum(isinstance(report, GroupRestored) for report in reports) == 8)
        await publish_and_drain(bus, first=20, count=20)
        assert (len(both.other.numbers), both.sub.numbers) == (40, [])
        assert [record.paused for record in await bus.subscriptions.list()] == [False, True]


async def test_a_process_that_joins_later_adopts_the_pause(shared_server: Server, namespace: str) -> None:
    """A process started to share the load would run a subscription that is paused in the others."""
    both = SubAndOther()
    async with both.bus(shared_server, namespace) as one:
        await one.subscriptions.pause("sub")
        async with both.bus(shared_server, namespace) as two:
            await until(lambda: len(two.partitions) == 4 and states_of(two) == {PAUSED})
            await publish_and_drain(two, one)
            assert both.sub.numbers == []


async def test_the_cli_pauses_a_running_group_without_joining_it(
    shared_server: Server, namespace: str
) -> None:
    """An operator on call would have to stop every process to pause one handler."""
    both, url = SubAndOther(), url_of(shared_server, namespace)

    async with two_buses(shared_server, namespace, both) as (one, two):
        members = one.get_statistics()["members"]
        assert await asyncio.to_thread(run_cli, "subscriptions", "pause", url, "sub") == (0, "1 done\n")
        again = await asyncio.to_thread(run_cli, "subscriptions", "pause", url, "sub")
        assert (again[0], "'sub' is paused already" in again[1]) == (1, True), again
        await until(lambda: states_of(one) == states_of(two) == {PAUSED})
        await publish_and_drain(one, two)
        assert both.sub.numbers == []
        status = await asyncio.to_thread(run_cli, "status", url)
        assert "subscription 'sub' is paused, 50 events wait" in status[1]
        listed = await asyncio.to_thread(run_cli, "subscriptions", "list", url)
        assert "paused" in listed[1]
        assert await asyncio.to_thread(run_cli, "subscriptions", "resume", url, "sub") == (0, "1 done\n")
        await until(lambda: len(both.sub.numbers) == 50)
        assert one.get_statistics()["members"] == members
        async with open_operations(url) as operations:
            done = [(entry.action, entry.subject, entry.succeeded) for entry in await operations.audit()]
        assert done == [("resume", "sub", True), ("pause", "sub", True), ("pause", "sub", True)]


async def test_the_cli_answers_in_korean(shared_server: Server, namespace: str) -> None:
    """A Korean-speaking operator would be answered in English at three in the morning."""
    url = url_of(shared_server, namespace)
    async with make_bus(shared_server, namespace, Recorder()) as bus:
        await bus.publish_batch(moves(4, 3))
        await bus.drain(timeout=30)

    def calls() -> list[tuple[int, str]]:
        return [
            run_cli("subscriptions", "pause", url, "sub", lang="ko"),
            run_cli("subscriptions", "pause", url, "sub", lang="ko"),
            run_cli("status", url, lang="ko"),
            run_cli("subscriptions", "resume", url, "sub", lang="ko"),
            run_cli("subscriptions", "resume", url, "nobody", lang="ko"),
        ]

    pause, again, status, resume, nobody = await asyncio.to_thread(calls)
    assert pause == resume
    assert pause[0] == 0
    assert (again[0], "일시 정지" in again[1]) == (1, True), again
    assert "구독 'sub' 일시 정지, 이벤트 0개 대기" in status[1]
    assert (nobody[0], "구독" in nobody[1], "sub" in nobody[1]) == (1, True, True), nobody


async def test_an_unknown_subscription_raises_an_error_with_the_known_names(
    shared_server: Server, namespace: str
) -> None:
    """After a typing error, the operator would believe the subscription paused."""
    both = SubAndOther()
    async with (
        both.bus(shared_server, namespace) as bus,
        open_operations(url_of(shared_server, namespace)) as operations,
    ):
        acts = (bus.subscriptions.pause, bus.subscriptions.resume, operations.pause, operations.resume)
        for act in acts:
            with pytest.raises(SubscriptionNotFoundError, match="other, sub"):
                await act("sup")


async def test_the_dashboard_can_pause_and_resume(shared_server: Server, namespace: str) -> None:
    """The page would show a stuck subscription, but its reader would need a shell to pause it."""
    both = SubAndOther()
    async with both.bus(shared_server, namespace) as bus:
        outside = open_operations(url_of(shared_server, namespace))
        for target in (outside, bus):
            async with client(target, allow_actions=True) as http:
                [_, row] = (await http.get("/api/report")).json()["subscriptions"]
                assert (row["name"], row["can"]["pause"], row["can"]["resume"]) == ("sub", True, True)
                for action, state in (("pause", "paused"), ("resume", "active")):
                    headers = await action_headers(http)
                    done = await http.post(
                        f"/api/subscriptions/{action}", json={"name": "sub"}, headers=headers
                    )
                    assert done.status_code == 200, done.text
                    await until(lambda state=state: states_of(bus) == {state})  # type: ignore[misc]
                    [_, row] = (await http.get("/api/report")).json()["subscriptions"]
                    assert row["state"] == state
        await outside.aclose()


async def test_reading_a_paused_group_changes_nothing_on_the_server(
    shared_server: Server, namespace: str
) -> None:
    """Reading the state would write to the server, and wake every process of the group."""
    async with make_bus(shared_server, namespace, Recorder()) as bus:
        await bus.publish_batch(moves(4, 10))
        await bus.subscriptions.pause("sub")
    async with open_operations(url_of(shared_server, namespace)) as operations:
        before = await dump_namespace(shared_server, namespace)
        assert f"{{{namespace}}}:group:g:controls".encode() in before
        await _read_everything(operations)
        inspector = GroupInspector(shared_server.url, group="g", namespace=namespace)
        [control] = await inspector.read_controls(["sub", "nobody"])
        assert control.paused
        await inspector.aclose()
        assert await dump_namespace(shared_server, namespace) == before


async def _read_everything(operations: Operations) -> None:
    await operations.overview()
    await operations.subscriptions()
    await operations.audit()
    page = await operations.events()
    await operations.event(page.events[0].event_id)


async def test_operations_of_a_running_bus_pause_it_in_its_own_process(
    shared_server: Server, namespace: str
) -> None:
    """A dashboard mounted in the application could not pause the application's own bus."""
    both = SubAndOther()
    async with both.bus(shared_server, namespace) as bus:
        operations = operations_of(bus)
        assert (await operations.pause("sub")).count == 1
        assert states_of(bus) == {PAUSED}
        views = {view.name: (view.state, view.paused) for view in await operations.subscriptions()}
        assert views == {"sub": ("paused", True), "other": ("active", False)}
        assert (await operations.resume("sub")).count == 1


async def test_the_documented_user_may_control_subscriptions(own_server: Server) -> None:
    """With the documented permissions, an operator on call would find that the server denies the pause."""
    both = SubAndOther()
    async with documented_user(own_server) as url:
        bus = bus_at(url)
        bus.subscribe(Moved, both.sub, name="sub")
        async with bus, open_operations(url) as operations:
            await publish_and_drain(bus, count=20)
            await operations.pause("sub")
            await until(lambda: states_of(bus) == {PAUSED})
            assert (await operations.reset("sub", "beginning")).position == 0
            await operations.resume("sub")
            await until(lambda: len(both.sub.numbers) == 40)
            await bus.drain(timeout=30)
            assert await bus.subscriptions.reset("sub", "now") == 20
            assert (await operations.replay("sub")).count == 20
            await until(lambda: len(both.sub.numbers) == 60)
            await bus.drain(timeout=30)  # waits, too, until the end of the replay is saved
            await bus.subscriptions.pause("sub")
            assert (await operations.replay("sub")).count == 20
            assert await bus.subscriptions.cancel_replays("sub") == 1
        async with bus_at(url) as other:
            assert await other.subscriptions.forget("sub")
