"""Every process of a group sees that a subscription has halted, and any of them can resume it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import pytest

from pabal.brokers.redis import RedisEventBus
from pabal.brokers.redis.scripts import script
from pabal.delivery.retry import RetryPolicy
from pabal.errors import StorageUnavailableError, SubscriptionError, SubscriptionNotFoundError
from pabal.factory import open_operations
from pabal.operations import Operations
from pabal.ports.operations import SubscriptionView
from pabal.ports.telemetry import Report, StorageTrouble, SubscriptionHalted, SubscriptionResumed
from tests.brokers.events import Moved, until
from tests.brokers.proxy import Proxy
from tests.brokers.server import Server
from tests.brokers.support import make_bus, run_cli, url_of
from tests.brokers.test_control import states_of
from tests.brokers.test_controlled_processes import child_process, wait_until_handled


class Poisoned:
    """A handler that fails for one number, until a test sets ``poison`` to None."""

    def __init__(self, poison: int = 3) -> None:
        self.poison: int | None = poison
        self.numbers: list[int] = []
        self.reports: list[Report] = []

    def bus(self, server: Server, namespace: str, **options: object) -> RedisEventBus:
        bus = make_bus(server, namespace, **options)
        bus.subscribe(Moved, self.handle, name="sub", retry=RetryPolicy(max_attempts=1), on_exhausted="stop")
        bus.listen(self.reports.append)
        return bus

    async def handle(self, event: Moved) -> None:
        if event.number == self.poison:
            raise ValueError("poison")
        self.numbers.append(event.number)

    def count_reports(self, kind: type[Report]) -> int:
        """Return how many reports of a kind there were."""
        return sum(isinstance(report, kind) for report in self.reports)


async def wait_for_state(operations: Operations, state: str, name: str = "sub") -> SubscriptionView:
    """Wait until a subscription is in a state, as seen from outside, and return its view."""
    async with asyncio.timeout(30):
        while True:
            [view] = [view for view in await operations.subscriptions() if view.name == name]
            if view.state == state:
                return view
            await asyncio.sleep(0.01)


@asynccontextmanager
async def halted_subscription(
    server: Server, namespace: str, poisoned: Poisoned
) -> AsyncIterator[tuple[RedisEventBus, Operations]]:
    """Run a bus whose subscription has halted in one partition; yield it and operations from outside."""
    async with (
        poisoned.bus(server, namespace) as bus,
        open_operations(url_of(server, namespace)) as operations,
    ):
        await bus.publish_batch([Moved("a", number) for number in range(6)])
        await until(lambda: "halted" in states_of(bus))
        await wait_for_state(operations, "halted")
        yield bus, operations


async def test_another_process_can_resume_a_halted_subscription(
    shared_server: Server, namespace: str
) -> None:
    """Otherwise an operator would have to find the process in which the subscription has halted."""
    poisoned = Poisoned()
    async with halted_subscription(shared_server, namespace, poisoned) as (bus, operations):
        async with make_bus(shared_server, namespace) as other:
            poisoned.poison = None
            assert await other.resume("sub")
            await until(lambda: poisoned.numbers == list(range(6)))
            await wait_for_state(operations, "active")
            assert not await other.resume("sub")
            assert not await bus.resume("sub")
        assert (poisoned.count_reports(SubscriptionHalted), poisoned.count_reports(SubscriptionResumed)) == (
            1,
            1,
        )
        assert bus.health().status == "ok"


async def test_a_subscription_that_halts_again_can_be_resumed_again(
    shared_server: Server, namespace: str
) -> None:
    """Resuming before the cause is fixed must not use up the only attempt."""
    poisoned = Poisoned()
    async with halted_subscription(shared_server, namespace, poisoned) as (bus, operations):
        assert (await operations.resume("sub")).count == 1
        await until(lambda: poisoned.count_reports(SubscriptionHalted) == 2)
        poisoned.poison = None
        await wait_for_state(operations, "halted")
        assert (await operations.resume("sub")).count == 1
        await until(lambda: poisoned.numbers == list(range(6)))
        await bus.drain(timeout=30)


async def test_resume_reopens_only_the_halted_partition(shared_server: Server, namespace: str) -> None:
    """Working partitions would be reopened because of one that has halted."""
    poisoned = Poisoned()
    async with halted_subscription(shared_server, namespace, poisoned) as (bus, operations):
        [halted_engine] = [
            one for one in bus._group_engine.engines() if one.consumers["sub"].state == "halted"
        ]
        others = [one.consumers["sub"] for one in bus._group_engine.engines() if one is not halted_engine]
        epochs = [one.epoch for one in others]
        poisoned.poison = None
        await operations.resume("sub")
        await until(lambda: len(poisoned.numbers) == 6)
        assert [one.epoch for one in others] == epochs


async def test_the_cli_shows_why_a_subscription_halted_and_resumes_it(
    shared_server: Server, namespace: str
) -> None:
    """`pabal status` would report a group as healthy although it handles nothing any more."""
    poisoned, url = Poisoned(), url_of(shared_server, namespace)
    async with halted_subscription(shared_server, namespace, poisoned) as (_, _):
        code, output = await asyncio.to_thread(run_cli, "status", url)
        assert code != 0
        assert "subscription 'sub' halted at event" in output
        assert "at position 4" in output
        code, output = await asyncio.to_thread(run_cli, "status", url, lang="ko")
        assert "멈춤" in output, output
        assert "halted" not in output, output
        _, output = await asyncio.to_thread(run_cli, "subscriptions", "list", url)
        assert "halted" in output
        poisoned.poison = None
        resume = ("subscriptions", "resume", url, "sub")
        assert await asyncio.to_thread(run_cli, *resume) == (0, "1 done\n")
        await until(lambda: poisoned.numbers == list(range(6)))
        code, output = await asyncio.to_thread(run_cli, *resume)
        assert (code, "'sub' is neither paused nor halted" in output) == (1, True), output


async def test_a_reset_from_outside_resumes_a_halted_subscription(
    shared_server: Server, namespace: str
) -> None:
    """Otherwise only the process that halted at the poisonous event could skip it."""
    poisoned = Poisoned()
    async with halted_subscription(shared_server, namespace, poisoned) as (bus, operations):
        await operations.reset("sub", "now")
        await until(lambda: states_of(bus) == {"active"})
        await bus.publish(Moved("a", 6))
        await bus.drain(timeout=30)
        assert poisoned.numbers == [0, 1, 2, 6]


async def test_a_reset_requested_before_the_halt_was_recorded_resumes_the_subscription(
    shared_server: Server, namespace: str
) -> None:
    """The reset would wait for a running subscription, and the halt for the reset."""
    poisoned = Poisoned()
    async with (
        poisoned.bus(shared_server, namespace) as bus,
        open_operations(url_of(shared_server, namespace)) as operations,
    ):
        await bus.drain(timeout=30)
        coordinator = bus._coordinator
        assert coordinator is not None
        running = bus._group_engine.running
        originals = {number: one.storage.note_halt for number, one in running.items()}

        async def fail_to_note_halt(name: str, epoch: int, reason: str) -> bool:
            raise StorageUnavailableError(path="the server", reason="not now")

        for one in running.values():
            one.storage.note_halt = fail_to_note_halt  # type: ignore[method-assign]
        await bus.publish_batch([Moved("a", number) for number in range(6)])
        await until(lambda: "halted" in states_of(bus))
        assert not (await operations.resume("sub")).count
        assert (await operations.reset("sub", "now")).pending
        for number, one in running.items():
            one.storage.note_halt = originals[number]  # type: ignore[method-assign]
        await until(lambda: states_of(bus) == {"active"})
        await bus.publish(Moved("a", 6))
        await bus.drain(timeout=30)
        assert poisoned.numbers == [0, 1, 2, 6]


async def test_a_pause_of_a_halted_subscription_outlasts_a_reset(
    shared_server: Server, namespace: str
) -> None:
    """An operator who pauses and resets in order to inspect would get deliveries before the resume."""
    poisoned = Poisoned()
    async with halted_subscription(shared_server, namespace, poisoned) as (bus, operations):
        await operations.pause("sub")
        await operations.reset("sub", "beginning")
        await until(lambda: states_of(bus) == {"paused"})
        assert poisoned.numbers == [0, 1, 2]
        poisoned.poison = None
        await operations.resume("sub")
        await until(lambda: poisoned.numbers == [0, 1, 2, *range(6)])
        assert poisoned.count_reports(SubscriptionResumed) >= 1


async def test_dead_letters_of_a_halted_subscription_are_not_retried(
    shared_server: Server, namespace: str
) -> None:
    """The retry would seem to have begun, but would wait until the subscription is resumed."""
    poisoned = Poisoned()
    async with make_bus(shared_server, namespace) as bus:
        bus.subscribe(Moved, poisoned.handle, name="sub", retry_count=0)
        await bus.publish(Moved("a", 3))
        await bus.drain(timeout=30)
        [letter] = await bus.dead_letters.list()
    async with halted_subscription(shared_server, namespace, poisoned) as (bus, _):
        with pytest.raises(SubscriptionError, match=r"'sub' is halted; call bus.resume\(\) first"):
            await bus.dead_letters.retry(letter.id)
        assert await bus.dead_letters.retry("all") == 0
        assert (await bus.dead_letters.get(letter.id)).state == "parked"
        poisoned.poison = None
        await bus.resume("sub")
        assert await bus.dead_letters.retry(letter.id) == 1
        await bus.drain(timeout=30)
        assert sorted(poisoned.numbers) == [0, 1, 2, 3, 3, 4, 5]


async def test_a_halt_is_recorded_again_after_the_server_was_flushed(
    own_server: Server, namespace: str
) -> None:
    """After a FLUSHALL the subscription would handle nothing, but be shown as active."""
    poisoned = Poisoned()
    async with halted_subscription(own_server, namespace, poisoned) as (bus, operations):
        await bus._log.link.call("FLUSHALL")
        async with asyncio.timeout(30):
            while True:
                try:
                    await wait_for_state(operations, "halted")
                    break
                except (ValueError, SubscriptionNotFoundError):
                    await asyncio.sleep(0.01)
        poisoned.poison = None
        await operations.resume("sub")
        await until(lambda: states_of(bus) == {"active"})
        await bus.publish(Moved("a", 6))
        await until(lambda: 6 in poisoned.numbers)


async def test_a_halt_ends_when_its_process_stops(shared_server: Server, namespace: str) -> None:
    """The group would be shown as halted although the next owner continues."""
    poisoned, url = Poisoned(), url_of(shared_server, namespace)
    async with halted_subscription(shared_server, namespace, poisoned):
        pass
    async with open_operations(url) as operations:
        await wait_for_state(operations, "idle")
        poisoned.poison = None
        async with poisoned.bus(shared_server, namespace):
            await until(lambda: poisoned.numbers == list(range(6)))
            await wait_for_state(operations, "active")


@pytest.mark.parametrize("action", ["pause and resume", "resume", "reset"])
@pytest.mark.parametrize("command", ["declare", "open", "HKEYS"])
async def test_a_subscription_reopens_even_if_the_connection_breaks_meanwhile(
    shared_server: Server, namespace: str, action: str, command: str
) -> None:
    """It would stay paused or halted although the operator's command succeeded."""
    poisoned = Poisoned(3 if action == "resume" else -1)
    async with (
        Proxy(shared_server.port) as proxy,
        poisoned.bus(cast(Server, proxy), namespace, partitions=1, lease=5.0) as bus,
        open_operations(url_of(shared_server, namespace)) as operations,
    ):
        await bus.publish_batch([Moved("a", number) for number in range(6)])
        await bus.drain(timeout=30)
        if action == "pause and resume":
            await operations.pause("sub")
            await until(lambda: states_of(bus) == {"paused"})
        elif action == "resume":
            await wait_for_state(operations, "halted")
            poisoned.poison = None
        proxy.cut_at = (command if command.isupper() else script(command).sha).encode()
        if action == "reset":
            await operations.reset("sub", "beginning")
        else:
            await operations.resume("sub")
        await until(lambda: proxy.cut_at is None and states_of(bus) == {"active"})
        await bus.publish(Moved("a", 6))
        await until(lambda: 6 in poisoned.numbers)
        assert poisoned.count_reports(StorageTrouble) >= 1


async def test_the_cli_resumes_a_subscription_that_halted_in_another_process(
    shared_server: Server, namespace: str, tmp_path: Path
) -> None:
    """This must work for separate processes, not only for two buses in one process."""
    url, fixed = url_of(shared_server, namespace), tmp_path / "fixed"
    async with (
        child_process(shared_server, namespace, str(fixed)) as one,
        child_process(shared_server, namespace, str(fixed)) as two,
        make_bus(shared_server, namespace) as publisher,
        open_operations(url) as operations,
    ):
        await two.wait_for_line("PartitionTaken", 4)
        await publisher.publish_batch([Moved("a", number) for number in range(6)])
        assert await wait_until_handled(3, one, two) == [0, 1, 2]
        await wait_for_state(operations, "halted")
        fixed.touch()
        code, output = await asyncio.to_thread(run_cli, "subscriptions", "resume", url, "sub")
        assert (code, output) == (0, "1 done\n")
        assert await wait_until_handled(6, one, two) == list(range(6))
        view = await wait_for_state(operations, "active")
        assert view.reason == ""
