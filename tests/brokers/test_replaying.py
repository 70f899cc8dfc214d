"""Replays to the subscriptions of a group, and the removal of subscriptions that are no longer used."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from pabal.brokers.redis.group_log import GroupLog
from pabal.brokers.redis.link import Link
from pabal.delivery.consumer import PAUSED
from pabal.delivery.retry import RetryPolicy
from pabal.errors import SubscriptionInUseError, SubscriptionNotFoundError, UsageError
from pabal.factory import open_operations
from pabal.operations import operations_of
from pabal.ports.storage import ParkedDelivery, PendingRetry, Progress
from tests.brokers.events import Moved, Recorder, moves, until
from tests.brokers.server import Server
from tests.brokers.support import dump_namespace, fail_on_odd, make_bus, run_cli, url_of
from tests.brokers.test_conformance import OnePartition
from tests.brokers.test_control import SubAndOther, publish_and_drain, states_of, two_buses
from tests.brokers.test_resetting import Gate, freeze


async def test_a_replay_redelivers_in_order_in_every_process_to_that_subscription_alone(
    shared_server: Server, namespace: str
) -> None:
    """A fixed handler would get only some events again, or get them out of order."""
    both = SubAndOther()
    async with two_buses(shared_server, namespace, both) as (one, two):
        await publish_and_drain(one, two)
        replay = await one.subscriptions.replay("sub")
        assert (replay.first, replay.last) == (1, 50)
        await publish_and_drain(two, one, first=50)
        await until(lambda: len(both.sub.numbers) == 150)
        await asyncio.gather(one.drain(timeout=30), two.drain(timeout=30))
        await until(lambda: states_of(one) == states_of(two) == {"active"})
        assert all(not record.replays for record in await one.subscriptions.list())
        held = [await one._log.link.call("ZCARD", one._log.keys.held(part)) for part in range(8)]
        assert held == [0] * 8  # otherwise the log would never be trimmed above the replay
    assert Counter(both.sub.numbers) == {number: 2 if number < 50 else 1 for number in range(100)}
    assert sorted(both.other.numbers) == list(range(100))
    for key in range(16):
        replayed = [number for number in both.sub.by_key[f"k{key}"] if number < 50]
        assert replayed == [*range(key, 50, 16), *range(key, 50, 16)]


async def test_a_replay_between_two_times_redelivers_only_those_events(
    shared_server: Server, namespace: str
) -> None:
    """To repeat the hour of a faulty release, an operator would have to replay the whole log."""
    recorder, url = Recorder(), url_of(shared_server, namespace)
    async with make_bus(shared_server, namespace, recorder) as bus:
        for first in (0, 20, 40):
            await bus.publish_batch([Moved(f"k{number % 16}", number) for number in range(first, first + 20)])
        await bus.drain(timeout=30)
        async with open_operations(url) as operations:
            events = [event async for event in operations.read()]
            times = {event.payload["number"]: event.recorded_at for event in events}
            since = min(times[number] for number in range(20, 40))
            until_then = min(times[number] for number in range(40, 60))
            result = await operations.replay("sub", since, until_then)
            assert (result.count, result.pending) == (20, True)
        await until(lambda: len(recorder.numbers) == 80)
        replay = await bus.subscriptions.replay("sub", until_then)
        assert (replay.first, replay.last) == (41, 60)
        await until(lambda: len(recorder.numbers) == 100)
        await bus.drain(timeout=30)
    assert Counter(recorder.numbers) == {number: 1 if number < 20 else 2 for number in range(60)}


async def test_the_cli_replays_to_a_stopped_group(shared_server: Server, namespace: str) -> None:
    """An operator would have to write a program to have events delivered again."""
    recorder, url = Recorder(), url_of(shared_server, namespace)
    async with make_bus(shared_server, namespace, recorder) as bus:
        await bus.publish_batch(moves(16, 30))
        await bus.drain(timeout=30)

    def calls() -> list[tuple[int, str]]:
        return [
            run_cli("replay", url, "sub", "--from", "2h", "--dry-run"),
            run_cli("replay", url, "sub", "--from", "2h", "--yes"),
            run_cli("replay", url, "sub", "--to", "2h", "--yes", lang="ko"),
            run_cli("replay", url, "sub", "--from", "3", "--yes", lang="ko"),
            run_cli("replay", url, "sub", "--from", "soon", "--yes"),
        ]

    dry, asked, nothing, position, mistake = await asyncio.to_thread(calls)
    assert dry == (0, "Deliver the events between 2h and 30 to 'sub' again?\nnothing was changed\n")
    assert asked == (0, "30 done; takes effect when the subscription is handled next\n")
    assert (nothing[0], "다시 전달할 것이 없습니다" in nothing[1]) == (2, True), nothing
    assert (position[0], "파티션 8개" in position[1]) == (2, True), position
    assert (mistake[0], "an age such as" in mistake[1]) == (2, True), mistake
    async with make_bus(shared_server, namespace, recorder) as bus:
        await until(lambda: len(recorder.numbers) == 60)
        await bus.drain(timeout=30)
    assert Counter(recorder.numbers) == dict.fromkeys(range(30), 2)


async def test_a_replay_continues_after_a_restart_and_can_be_cancelled(
    shared_server: Server, namespace: str
) -> None:
    """A long replay would start over with each deployment, or could not be cancelled."""
    gate = Gate(5)
    gate.opened.set()
    async with make_bus(shared_server, namespace, gate.handle, partitions=1) as bus:
        await bus.publish_batch(moves(1, 10))
        await bus.drain(timeout=30)
        gate.opened.clear()
        gate.begun.clear()
        await bus.subscriptions.replay("sub")
        await until(lambda: gate.begun == [0, 1, 2, 3, 4, 5])
        [engine] = bus._group_engine.engines()
        await engine.settlement.flush()
        coordinator = bus._coordinator
        assert coordinator is not None
        coordinator._keep = 0
        await coordinator.trim()
        assert await bus._log.link.call("HGET", bus._log.keys.part(0), "floor") == b"5"
        await bus.stop(timeout=0.0)
    gate.begun.clear()
    async with make_bus(shared_server, namespace, gate.handle, partitions=1) as bus:
        await until(lambda: gate.begun == [5])
        assert await bus.subscriptions.cancel_replays("sub") == 1
        assert await bus.subscriptions.cancel_replays("sub") == 0
        gate.opened.set()
        await bus.publish(Moved("k0", 10))
        await until(lambda: gate.begun[-1] == 10)
        await bus.drain(timeout=30)
    assert gate.begun == [5, 10]
    assert gate.most == 1


async def test_a_replay_skips_events_that_are_dead_letters(shared_server: Server, namespace: str) -> None:
    """A replay would handle dead letters that an operator has not decided about yet."""
    recorder = Recorder()

    async def handle(event: Moved) -> None:
        await recorder.handle(event)
        fail_on_odd(event)

    bus = make_bus(shared_server, namespace, partitions=2)
    bus.subscribe(Moved, handle, name="sub", retry=RetryPolicy(max_attempts=1))
    async with bus:
        await bus.publish_batch(moves(4, 8))
        await bus.drain(timeout=30)
        assert [letter.id for letter in await bus.dead_letters.list()] == [1, 2, 3, 4]
        await bus.subscriptions.replay("sub")
        await until(lambda: len(recorder.numbers) == 12)
        await bus.drain(timeout=30)
        assert [letter.id for letter in await bus.dead_letters.list()] == [1, 2, 3, 4]
    assert Counter(recorder.numbers) == {number: 1 if number % 2 else 2 for number in range(8)}


async def test_a_failure_during_a_replay_is_parked_and_can_be_retried_after_a_restart(
    shared_server: Server, namespace: str
) -> None:
    """An event that a new version of the handler cannot handle would be lost without a trace."""
    poison: set[int] = set()
    recorder = Recorder()

    async def handle(event: Moved) -> None:
        if event.number in poison:
            raise ValueError("poison")
        await recorder.handle(event)

    events = moves(16, 30)
    async with make_bus(shared_server, namespace, handle) as bus:
        await bus.publish_batch(events)
        await bus.drain(timeout=30)
        poison |= {3, 4}
        await bus.subscriptions.replay("sub")
        await until(lambda: len(recorder.numbers) == 58)
        await bus.drain(timeout=30)
        assert {letter.event.number for letter in await bus.dead_letters.list()} == poison
    poison.clear()
    async with open_operations(url_of(shared_server, namespace)) as operations:
        for number in (3, 4):
            [delivery] = (await operations.event(events[number].event_id)).deliveries
            assert (delivery.state, delivery.attempts) == ("parked", 2)
    async with make_bus(shared_server, namespace, handle) as bus:
        assert await bus.dead_letters.retry("all") == 2
        await bus.drain(timeout=30)
        assert await bus.dead_letters.list() == []
    assert Counter(recorder.numbers) == dict.fromkeys(range(30), 2)


async def test_a_retry_requested_during_a_replay_delays_nothing_else(
    shared_server: Server, namespace: str
) -> None:
    """Until the end of the replay its process would obey no request, take no partition and trim nothing."""
    gate, recorder = asyncio.Event(), Recorder()

    async def handle(event: Moved) -> None:
        if gate.is_set():
            await recorder.handle(event)
        elif event.number == 3:
            raise ValueError("not yet")
        elif replaying:
            await gate.wait()
            await recorder.handle(event)

    replaying = False
    bus = make_bus(shared_server, namespace, partitions=1)
    bus.subscribe(Moved, handle, name="sub", retry_count=0)
    bus.subscribe(Moved, lambda event: None, name="other")
    async with bus, open_operations(url_of(shared_server, namespace)) as operations:
        await bus.publish_batch(moves(6, 6))
        await bus.drain(timeout=30)
        [engine] = bus._group_engine.engines()
        replaying = True
        await bus.subscriptions.replay("sub")
        await operations.retry((await bus.dead_letters.list())[0].id)
        coordinator = bus._coordinator
        assert coordinator is not None
        await until(lambda: coordinator.view is not None and coordinator.view.called == (0,))
        await operations.pause("other")
        await until(lambda: engine.consumers["other"].state == PAUSED)
        assert recorder.numbers == []
        gate.set()
        await bus.drain(timeout=30)
        assert await bus.dead_letters.list() == []
        assert sorted(recorder.numbers) == list(range(6))
        assert recorder.numbers[-1] == 3


async def test_a_replay_to_a_paused_subscription_waits_for_resume(
    shared_server: Server, namespace: str
) -> None:
    """A replay would undo the pause, or would be forgotten because it was requested during the pause."""
    recorder = Recorder()
    async with make_bus(shared_server, namespace, recorder) as bus:
        await bus.publish_batch(moves(16, 30))
        await bus.drain(timeout=30)
        operations = operations_of(bus)
        await operations.pause("sub")
        result = await operations.replay("sub")
        assert result.count == 30
        assert states_of(bus) == {PAUSED}
        await operations.resume("sub")
        await until(lambda: len(recorder.numbers) == 60)
        await bus.drain(timeout=30)
    assert Counter(recorder.numbers) == dict.fromkeys(range(30), 2)


async def test_a_reset_drops_replays_requested_before_it_but_none_after_it(
    shared_server: Server, namespace: str
) -> None:
    """A reset that takes effect late would cancel a replay that was requested after it."""
    recorder = Recorder()
    async with make_bus(shared_server, namespace, recorder, lease=60.0) as bus:
        await bus.publish_batch(moves(16, 30))
        await bus.drain(timeout=30)
        freeze(bus)  # the bus does not notice the requests until its listeners are notified
        async with open_operations(url_of(shared_server, namespace)) as operations:
            for _ in range(2):
                assert (await operations.replay("sub")).count == 30
            assert (await operations.reset("sub", "now")).pending
            assert [len(record.replays) for record in await bus.subscriptions.list()] == [0]
            assert (await operations.replay("sub")).count == 30
        for running in bus._group_engine.running.values():
            running.storage.control_listeners.notify()
        await until(lambda: len(recorder.numbers) == 60)
        await bus.drain(timeout=30)
    assert Counter(recorder.numbers) == dict.fromkeys(range(30), 2)


async def test_replays_of_nothing_of_positions_or_to_unknown_names_are_rejected(
    shared_server: Server, namespace: str
) -> None:
    """A range of positions would mean different events in each partition than the caller meant."""
    async with make_bus(shared_server, namespace, Recorder()) as bus:
        replay = bus.subscriptions.replay
        with pytest.raises(UsageError, match="there is nothing to replay"):
            await replay("sub")
        await bus.publish_batch(moves(16, 30))
        await bus.drain(timeout=30)
        for ends in ((2, None), (1, 7)):
            with pytest.raises(UsageError, match="positions have no meaning in a log of 8 partitions"):
                await replay("sub", *ends)
        for act in (replay, bus.subscriptions.cancel_replays):
            with pytest.raises(SubscriptionNotFoundError, match="sub"):
                await act("sup")


async def test_a_forgotten_subscription_is_removed_and_no_longer_holds_back_trimming(
    shared_server: Server, namespace: str
) -> None:
    """After a handler is renamed, its old name would keep the whole log on the server."""
    recorder, both = Recorder(), SubAndOther()
    async with both.bus(shared_server, namespace, keep=0) as bus:
        await publish_and_drain(bus, count=20)
        await bus.subscriptions.pause("sub")
        await publish_and_drain(bus, first=20, count=10)
        with pytest.raises(SubscriptionInUseError, match="sub"):
            await bus.subscriptions.forget("sub")
    bus = make_bus(shared_server, namespace, keep=0)
    bus.subscribe(Moved, both.other, name="other")
    async with bus:
        assert [record.name for record in await bus.subscriptions.list()] == ["other", "sub"]
        coordinator = bus._coordinator
        assert coordinator is not None
        assert coordinator.controls.paused == {"sub"}
        assert await bus.subscriptions.forget("sub")
        assert not await bus.subscriptions.forget("sub")
        await until(lambda: not coordinator.controls.paused)
        assert [record.name for record in await bus.subscriptions.list()] == ["other"]
        left = await dump_namespace(shared_server, namespace)
        await coordinator.trim()
        lengths = [await bus._log.link.call("XLEN", bus._log.keys.log(part)) for part in range(8)]
        assert lengths == [0] * 8
        bus.subscribe(Moved, recorder, name="sub", start="beginning")
        await bus.publish_batch([Moved(f"k{number % 16}", number) for number in range(30, 40)])
        await bus.drain(timeout=30)
        assert not (await bus.subscriptions.list())[1].paused
    assert sorted(recorder.numbers) == list(range(30, 40))
    link = Link(shared_server.url, loads_scripts=False)
    await link.open()
    numbers = await link.call("HVALS", f"{{{namespace}}}:group:g:names")
    await link.close()
    assert len(set(numbers)) == len(numbers) == 3
    assert not [key for key in left if key.endswith((b":moves", b":replays", b":retries", b":queued"))]


async def count_kept(storage: OnePartition, name: str) -> dict[str, int]:
    """Return how many fields or members each key of a partition has for a subscription."""
    keys, call = storage._keys, storage.log.link.call
    hashes = ("epochs", "cursors", "retries", "queued", "moves", "replays", "blocking")
    found = {key: await call("HKEYS", getattr(keys, key)) for key in hashes}
    sets = {"queue": keys.queue, "marks": storage.log.keys.marks(0), "held": storage.log.keys.held(0)}
    found |= {key: await call("ZRANGE", at, 0, -1) for key, at in sets.items()}
    own = {f"{name}\0".encode(), f"g\0{name}\0".encode()}
    counts = {
        key: sum(f"{one.decode()}\0".encode().startswith(tuple(own)) for one in of)
        for key, of in found.items()
    }
    return {key: count for key, count in counts.items() if count}


async def leave_unfinished(storage: OnePartition, name: str) -> None:
    """Leave a retry, a dead letter and its queue, and a replay to a subscription that nobody holds."""
    cursor = await storage.open_subscription(name, "beginning")
    assert cursor is not None
    parked = ParkedDelivery(1, "no", (), 0.0, None, None, "a", True)
    change = Progress(name, cursor.epoch, 3, 3, retries=(PendingRetry(4, 1, 5.0),), parked=(parked,))
    change.queued = (("a", 2), ("a", 3))
    await storage.save_progress([change])
    await storage.request_replay(name, 1, 2)
    await storage.release_subscription(name, cursor.epoch)


@pytest.mark.parametrize("by_request", [True, False])
async def test_a_reset_leaves_nothing_unfinished_in_a_partition(
    shared_server: Server, namespace: str, by_request: bool
) -> None:
    """What is left of queues, replays and the request itself would hold the log for ever."""
    storage = OnePartition(shared_server.url, namespace)
    await storage.append_events(moves(1, 6))
    for name in ("sub", "subs"):
        await leave_unfinished(storage, name)
    kept = await count_kept(storage, "subs")
    log = GroupLog(storage.log, storage._group_keys) if by_request else storage
    await log.reset_subscription("sub", "beginning")
    assert await count_kept(storage, "sub") == {"epochs": 1, "cursors": 1, "marks": 1}
    assert await storage.log.link.call("ZSCORE", storage.log.keys.marks(0), "g\0sub") == b"0"
    assert await count_kept(storage, "subs") == kept
    await storage.aclose()


@pytest.mark.parametrize("how", ["reset", "forgotten"])
async def test_a_new_beginning_keeps_dead_letters_whose_events_are_gone(
    shared_server: Server, namespace: str, how: str
) -> None:
    """The last copy of an event would be deleted, or could never be retried again."""
    storage = OnePartition(shared_server.url, namespace)
    for event in moves(1, 3):
        await storage.store_event(event)
    cursor = await storage.open_subscription("sub", "beginning")
    assert cursor is not None
    change = Progress("sub", cursor.epoch, 3, 3)
    change.parked = tuple(ParkedDelivery(at, "no", (), 0.0, None, None, None, False) for at in (1, 3))
    await storage.save_progress([change])
    first, _ = await storage.list_dead_letters()
    await storage.begin_retry(first.id, None, 0.0)
    await storage.log.link.call("XTRIM", storage.log.keys.log(0), "MINID", "2-0")
    if how == "reset":
        await storage.reset_subscription("sub", "beginning", epoch=cursor.epoch)
    else:
        await storage.release_subscription("sub", cursor.epoch)
        await storage.forget_subscription("sub")
        await storage.open_subscription("sub", "beginning")
    [left] = await storage.list_dead_letters()
    assert (left.position, left.state) == (1, "parked")
    assert await storage.begin_retry(left.id, None, 0.0) is not None
    await storage.aclose()


async def test_a_forgotten_subscription_leaves_nothing_in_its_partitions(
    shared_server: Server, namespace: str
) -> None:
    """What is left of its queues, replays and resets would hold the log, or block keys of the next one."""
    storage = OnePartition(shared_server.url, namespace)
    await storage.append_events(moves(1, 6))
    for name in ("sub", "subs"):
        await leave_unfinished(storage, name)
        await storage.log.link.call("HSET", storage._keys.moves, name, "0")
        await storage.log.link.call("ZADD", storage.log.keys.held(0), 1, f"g\0{name}\0moved")
    kept = await count_kept(storage, "sub")
    assert kept == {**dict.fromkeys(kept, 1), "queued": 2, "queue": 2, "held": 4}
    assert len(kept) == 10
    assert await storage.forget_subscription("sub")
    assert await count_kept(storage, "sub") == {}
    assert await count_kept(storage, "subs") == kept
    await storage.aclose()
