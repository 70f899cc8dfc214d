"""A reset moves a group's subscription in all partitions; it then receives exactly the later events."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from pabal.brokers.redis import RedisEventBus
from pabal.brokers.redis.inspector import GroupInspector
from pabal.brokers.redis.partition import PartitionStorage
from pabal.delivery.consumer import PAUSED
from pabal.delivery.retry import RetryPolicy
from pabal.errors import InsideHandlerError, SubscriptionNotFoundError, UsageError
from pabal.factory import open_operations
from pabal.operations import Operations, operations_of
from pabal.ports.storage import Progress
from tests.brokers.events import Moved, Recorder, moves, until
from tests.brokers.server import Server
from tests.brokers.support import dump_namespace, fail_on_odd, make_bus, run_cli, stop_heartbeats, url_of
from tests.brokers.test_control import SubAndOther, publish_and_drain, states_of, two_buses


async def view_of(operations: Operations, name: str = "sub") -> tuple[int, int]:
    """Return the position and lag of a subscription, as seen from outside."""
    [view] = [view for view in await operations.subscriptions() if view.name == name]
    return view.watermark, view.lag


async def test_a_reset_redelivers_in_every_process_to_that_subscription_alone(
    shared_server: Server, namespace: str
) -> None:
    """Otherwise only the partitions of the process that made the call would be redelivered."""
    both = SubAndOther()
    async with two_buses(shared_server, namespace, both) as (one, two):
        await publish_and_drain(one, two)
        assert await one.subscriptions.reset("sub", "beginning") == 0
        await until(lambda: len(both.sub.numbers) == 100)
        await asyncio.gather(one.drain(timeout=30), two.drain(timeout=30))
        assert await two.subscriptions.reset("sub", "now") == 50
        await publish_and_drain(two, one, first=50, count=16)
    assert Counter(both.sub.numbers) == {number: 2 if number < 50 else 1 for number in range(66)}
    assert sorted(both.other.numbers) == list(range(66))
    for key in range(16):
        again = list(range(key, 50, 16))
        assert both.sub.by_key[f"k{key}"] == [*again, *again, 50 + (key - 50) % 16]


async def test_a_reset_to_a_time_applies_to_every_partition(shared_server: Server, namespace: str) -> None:
    """Otherwise events handled since a faulty release could only be delivered again with all earlier ones."""
    recorder = Recorder()
    async with make_bus(shared_server, namespace, recorder) as bus:
        await bus.publish_batch(moves(16, 40))
        await bus.publish_batch([Moved(f"k{number % 16}", number) for number in range(40, 60)])
        await bus.drain(timeout=30)
        async with open_operations(url_of(shared_server, namespace)) as operations:
            newest = await operations.events(limit=20)
            since = min(event.recorded_at for event in newest.events)
            result = await operations.reset("sub", since)
            assert (result.position, result.count) == (40, 1)
        await until(lambda: len(recorder.numbers) == 80)
        await bus.drain(timeout=30)
    assert Counter(recorder.numbers) == {number: 1 if number < 40 else 2 for number in range(60)}


async def test_the_cli_resets_a_subscription_of_a_stopped_group(
    shared_server: Server, namespace: str
) -> None:
    """Otherwise an operator would have to start the application in order to reset it."""
    recorder, url = Recorder(), url_of(shared_server, namespace)
    async with make_bus(shared_server, namespace, recorder) as bus:
        await bus.publish_batch(moves(16, 30))
        await bus.drain(timeout=30)
    dry = await asyncio.to_thread(
        run_cli, "subscriptions", "reset", url, "sub", "--to", "beginning", "--dry-run"
    )
    assert dry == (
        0,
        "Move 'sub' from position 30 to beginning? 30 positions are delivered again.\nnothing was changed\n",
    )
    reset = ("subscriptions", "reset", url, "sub", "--to")
    assert await asyncio.to_thread(run_cli, *reset, "beginning", "--yes") == (
        0,
        "1 done, now at position 0\n",
    )
    async with open_operations(url) as operations:
        assert await view_of(operations) == (0, 30)
        [entry] = await operations.audit()
        assert (entry.action, entry.subject, entry.succeeded) == ("reset", "sub", True)
    async with make_bus(shared_server, namespace, recorder) as bus:
        await bus.drain(timeout=30)
    assert Counter(recorder.numbers) == dict.fromkeys(range(30), 2)
    assert await asyncio.to_thread(run_cli, *reset, "0", "--yes") == (0, "1 done, now at position 0\n")
    assert await asyncio.to_thread(run_cli, *reset, "now", "--yes") == (0, "1 done, now at position 30\n")
    async with make_bus(shared_server, namespace, recorder) as bus:
        await bus.drain(timeout=30)
    assert len(recorder.numbers) == 60


async def test_the_cli_resets_a_paused_subscription_in_running_processes(
    shared_server: Server, namespace: str
) -> None:
    """An operator must be able to pause, reset, inspect and resume, one step after the other."""
    both, url = SubAndOther(), url_of(shared_server, namespace)
    async with two_buses(shared_server, namespace, both) as (one, two):
        await publish_and_drain(one, two)
        await asyncio.to_thread(run_cli, "subscriptions", "pause", url, "sub")
        await until(lambda: states_of(one) == states_of(two) == {PAUSED})
        code, output = await asyncio.to_thread(
            run_cli, "subscriptions", "reset", url, "sub", "--to", "beginning", "--yes"
        )
        assert (code, "1 done" in output) == (0, True), output
        async with open_operations(url) as operations, asyncio.timeout(30):
            while await view_of(operations) != (0, 50):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert states_of(one) == states_of(two) == {PAUSED}
        assert len(both.sub.numbers) == 50
        await one.subscriptions.resume("sub")
        await until(lambda: len(both.sub.numbers) == 100)
        await asyncio.gather(one.drain(timeout=30), two.drain(timeout=30))
    assert Counter(both.sub.numbers) == dict.fromkeys(range(50), 2)


async def test_a_reset_to_a_position_is_rejected_with_several_partitions(
    shared_server: Server, namespace: str
) -> None:
    """Otherwise each partition would be moved to a position that means something else there."""
    url = url_of(shared_server, namespace)
    async with make_bus(shared_server, namespace, Recorder()) as bus:
        await bus.publish_batch(moves(16, 30))
        await bus.drain(timeout=30)
        for operations in (open_operations(url), operations_of(bus)):
            with pytest.raises(UsageError, match="has no meaning in a log of 8 partitions"):
                await operations.reset("sub", 7)
            with pytest.raises(SubscriptionNotFoundError, match="sub"):
                await operations.reset("sup", "now")
            await operations.aclose()
    before = await dump_namespace(shared_server, namespace)
    code, output = await asyncio.to_thread(
        run_cli, "subscriptions", "reset", url, "sub", "--to", "7", "--yes", lang="ko"
    )
    assert (code, "파티션 8개" in output, "sub" in output) == (2, True, True), output
    after = await dump_namespace(shared_server, namespace)
    changed = {key for key in after if after[key] != before.get(key)}
    assert {key.rpartition(b":")[2] for key in changed} == {b"actions", b"action-counter"}


async def test_a_single_partition_can_be_reset_to_a_position(shared_server: Server, namespace: str) -> None:
    """A log of one partition has plain positions, as a file has."""
    recorder = Recorder()
    async with make_bus(shared_server, namespace, recorder, partitions=1) as bus:
        await bus.publish_batch(moves(4, 10))
        await bus.drain(timeout=30)
        assert await bus.subscriptions.reset("sub", 7) == 7
        await until(lambda: len(recorder.numbers) == 13)
        await bus.drain(timeout=30)
    assert recorder.numbers[10:] == [7, 8, 9]


async def test_a_reset_to_now_repeats_no_event_handled_before_it_takes_effect(
    shared_server: Server, namespace: str
) -> None:
    """Otherwise events that the operator wants to skip would be delivered a second time."""
    recorder = Recorder()
    async with make_bus(shared_server, namespace, recorder, lease=60.0) as bus:
        await bus.publish_batch(moves(16, 30))
        await bus.drain(timeout=30)
        freeze(bus)  # it no longer notices requests, but continues to handle events
        async with open_operations(url_of(shared_server, namespace)) as operations:
            result = await operations.reset("sub", "now")
            assert (result.position, result.pending) == (30, True)
        await bus.publish_batch([Moved(f"k{number % 16}", number) for number in range(30, 50)])
        await bus.drain(timeout=30)
        for running in bus._group_engine.running.values():
            running.storage.control_listeners.notify()
        inspector = GroupInspector(shared_server.url, group="g", namespace=namespace)
        async with asyncio.timeout(30):
            while await inspector.is_moving("sub"):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        await inspector.aclose()
        await bus.drain(timeout=30)
    assert Counter(recorder.numbers) == dict.fromkeys(range(50), 1)


class Gate:
    """A handler that waits at one number until the gate is opened."""

    def __init__(self, stops_at: int) -> None:
        self.stops_at = stops_at
        self.opened = asyncio.Event()
        self.begun: list[int] = []
        self.most = self._now = 0

    async def handle(self, event: Moved) -> None:
        self.begun.append(event.number)
        self._now += 1
        self.most = max(self.most, self._now)
        try:
            if event.number == self.stops_at:
                await self.opened.wait()
        finally:
            self._now -= 1


async def test_a_reset_waits_for_running_handlers_and_holds_back_trimming(
    shared_server: Server, namespace: str
) -> None:
    """An event could be handled twice at the same time, or be trimmed before it is delivered again."""
    gate = Gate(10)
    async with make_bus(shared_server, namespace, gate.handle, partitions=1) as bus:
        await bus.publish_batch(moves(1, 10))
        await bus.drain(timeout=30)
        await bus.publish(Moved("k0", 10))
        await until(lambda: len(gate.begun) == 11)
        moving = asyncio.create_task(bus.subscriptions.reset("sub", "beginning"))
        await until(lambda: states_of(bus) == {PAUSED})
        coordinator = bus._coordinator
        assert coordinator is not None
        coordinator._keep = 0
        await coordinator.trim()
        assert not moving.done()
        gate.opened.set()
        assert await moving == 0
        await bus.drain(timeout=30)
        assert bus.get_statistics()["events_lost"] == 0
        await coordinator.trim()
        assert (await bus._log.link.call("HGET", bus._log.keys.part(0), "floor")) == b"11"
    assert gate.begun == [*range(11), *range(11)]
    assert gate.most == 1


async def test_a_handler_cannot_reset_its_own_subscription(shared_server: Server, namespace: str) -> None:
    """Otherwise a handler would wait for itself to finish."""
    errors: list[str] = []

    async def handle(event: Moved) -> None:
        try:
            await bus.subscriptions.reset("sub", "beginning")
        except InsideHandlerError as error:
            errors.append(str(error))

    async with make_bus(shared_server, namespace, handle) as bus:
        await bus.publish(Moved("a", 1))
        await bus.drain(timeout=30)
    assert len(errors) == 1


async def test_a_reset_drops_dead_letters_it_redelivers_and_unblocks_the_keys_of_others(
    shared_server: Server, namespace: str
) -> None:
    """Old dead letters would block keys for ever, or be retried while their events are delivered again."""
    bus = make_bus(shared_server, namespace, partitions=1)
    bus.subscribe(Moved, fail_on_odd, name="sub", retry=RetryPolicy(max_attempts=1), on_exhausted="park_key")
    async with bus:
        await bus.publish_batch([Moved("a", 1), Moved("a", 2), Moved("b", 3), Moved("b", 4)])
        await bus.drain(timeout=30)
        assert [letter.id for letter in await bus.dead_letters.list()] == [1, 2]
        assert await bus.subscriptions.reset("sub", 2) == 2
        await bus.drain(timeout=30)
        letters = [
            (one.id, one.event.key, one.record.key, one.record.queued)
            for one in await bus.dead_letters.list()
        ]
        assert letters == [(1, "a", None, 0), (3, "b", "thing/b", 1)]
        await bus.publish(Moved("a", 6))
        await bus.drain(timeout=30)
        assert bus.get_statistics()["subscriptions"]["sub"]["blocked_keys"] == 1
        assert await bus.dead_letters.retry(1)
        await bus.drain(timeout=30)
        assert [letter.id for letter in await bus.dead_letters.list()] == [1, 3]


async def test_nothing_queues_behind_a_dead_letter_that_a_reset_has_unblocked(
    shared_server: Server, namespace: str
) -> None:
    """It would be shown with events that wait for another dead letter of its key."""
    bus = make_bus(shared_server, namespace, partitions=1)
    bus.subscribe(Moved, fail_on_odd, name="sub", retry=RetryPolicy(max_attempts=1), on_exhausted="park_key")
    async with bus:
        await bus.publish_batch([Moved("a", 1), Moved("a", 3), Moved("a", 5)])
        await bus.drain(timeout=30)
        assert await bus.subscriptions.reset("sub", 1) == 1
        await bus.drain(timeout=30)
        letters = [(one.payload["number"], one.key, one.queued) for one in await bus.dead_letters.list()]
        assert letters == [(1, None, 0), (3, "thing/a", 1)]


async def test_a_stale_owner_does_not_block_or_undo_a_reset(shared_server: Server, namespace: str) -> None:
    """A suspended process that resumes would move the subscription back to where it was."""
    recorder = Recorder()
    async with make_bus(shared_server, namespace, recorder) as stale:
        await stale.publish_batch(moves(16, 30))
        await stale.drain(timeout=30)
        held = freeze(stale)
        async with open_operations(url_of(shared_server, namespace)) as operations:
            result = await operations.reset("sub", "beginning")
            assert (result.position, result.pending) == (0, True)
        async with make_bus(shared_server, namespace, recorder) as other:
            await until(lambda: len(other.partitions) == 8)
            await until(lambda: len(recorder.numbers) == 60)
            for storage, epochs in held:
                late = [Progress(name, epoch, 99, 99) for name, epoch in epochs.items()]
                assert await storage.save_progress(late) == ["sub"]
            await other.drain(timeout=30)
            [record] = await other.subscriptions.list()
            assert record.watermark == 30
    assert Counter(recorder.numbers) == dict.fromkeys(range(30), 2)


def freeze(bus: RedisEventBus) -> list[tuple[PartitionStorage, dict[str, int]]]:
    """Stop a process's heartbeats, as SIGSTOP does; return the epochs it holds by partition."""
    held = [(running.storage, dict(running.storage._held)) for running in bus._group_engine.running.values()]
    stop_heartbeats(bus)
    return held


async def test_a_halted_subscription_continues_from_its_reset(shared_server: Server, namespace: str) -> None:
    """A subscription that halted at a poisonous event can skip it by a reset."""
    both = SubAndOther()
    bus = make_bus(shared_server, namespace, partitions=1)
    bus.subscribe(Moved, fail_on_odd, name="sub", retry=RetryPolicy(max_attempts=1), on_exhausted="stop")
    bus.subscribe(Moved, both.other, name="other")
    async with bus:
        await bus.publish_batch([Moved("a", 2), Moved("a", 3), Moved("a", 4)])
        await bus.drain(timeout=30)
        assert states_of(bus) == {"halted"}
        assert await bus.subscriptions.reset("sub", "now") == 3
        assert states_of(bus) == {"active"}
        await bus.publish(Moved("a", 6))
        await bus.drain(timeout=30)
        assert bus.health().status == "ok"
