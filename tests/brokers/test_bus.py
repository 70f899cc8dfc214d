"""The bus on a real server: publishing, handling, finishing, and continuing after a restart."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pabal import EventBusFactory
from pabal.brokers.redis import RedisEventBus
from pabal.brokers.redis.reports import EventsLost, GroupRestored, PartitionTaken
from pabal.errors import BrokerUnavailableError, PartitionCountError, UsageError
from pabal.ports.storage import Progress
from tests import warm
from tests.brokers.events import Moved, Recorder, moves, until
from tests.brokers.server import Server, free_port
from tests.brokers.support import make_bus, stop_heartbeats

LOADED = ("asyncio", "redis.asyncio", "pabal.brokers.redis", "pabal.delivery.retry")
"""Modules that a process of a group imports before it begins."""


async def test_published_events_are_handled_once_and_in_order_per_key(
    shared_server: Server, namespace: str
) -> None:
    """Events could be lost, repeated, or reordered on their way through the server."""
    recorder = Recorder()
    async with make_bus(shared_server, namespace, recorder) as bus:
        events = moves(7, 300)
        receipts = await asyncio.gather(*(bus.publish(event) for event in events))
        assert len({receipt.position for receipt in receipts}) == 300
        await bus.publish_batch(moves(7, 100))
        await bus.drain(timeout=30)
        assert len(recorder.numbers) == 400
    for key in range(7):
        assert recorder.by_key[f"k{key}"][: len(range(key, 300, 7))] == list(range(key, 300, 7))


async def test_a_restarted_group_continues_from_its_cursor(shared_server: Server, namespace: str) -> None:
    """A restart could repeat finished events, or miss events published meanwhile."""
    recorder = Recorder()
    async with make_bus(shared_server, namespace, recorder) as bus:
        await bus.publish_batch(moves(3, 10))
        await bus.drain(timeout=30)
    async with make_bus(shared_server, namespace) as publisher:
        assert publisher.partitions == []
        await publisher.publish_batch([Moved("k1", number) for number in range(10, 15)])
    async with make_bus(shared_server, namespace, recorder) as bus:
        await bus.drain(timeout=30)
    assert sorted(recorder.numbers) == list(range(15))


async def test_every_group_receives_every_event(shared_server: Server, namespace: str) -> None:
    """Two applications on one log must not take events from each other."""
    one, two = Recorder(), Recorder()
    async with (
        make_bus(shared_server, namespace, one) as left,
        make_bus(shared_server, namespace, two, group="other") as right,
    ):
        await left.publish_batch(moves(5, 50))
        await asyncio.gather(left.drain(timeout=30), right.drain(timeout=30))
    assert sorted(one.numbers) == sorted(two.numbers) == list(range(50))


async def test_an_event_published_again_is_stored_once(shared_server: Server, namespace: str) -> None:
    """If a publisher repeats a call after a broken connection, its event must be handled once."""
    recorder = Recorder()
    async with make_bus(shared_server, namespace, recorder) as bus:
        event = Moved("a", 1)
        first = await bus.publish(event)
        again = await asyncio.gather(*(bus.publish(event) for _ in range(5)))
        assert {receipt.position for receipt in again} == {first.position}
        await bus.drain(timeout=30)
    assert recorder.numbers == [1]


async def test_processes_split_the_keys_and_keep_their_order_while_they_join_and_leave(
    shared_server: Server, namespace: str
) -> None:
    """Promise 44. A handover of a partition could repeat events, or handle them out of order."""
    recorder = Recorder()
    async with make_bus(shared_server, namespace, recorder) as one:
        assert len(one.partitions) == 8
        publishing = asyncio.create_task(_publish_slowly(one, 600))
        async with make_bus(shared_server, namespace, recorder) as two:
            await until(lambda: len(one.partitions) == len(two.partitions) == 4)
            async with make_bus(shared_server, namespace, recorder) as three:
                await until(lambda: len(three.partitions) >= 2)
        await until(lambda: len(one.partitions) == 8)
        await publishing
        await one.drain(timeout=30)
    for key in range(16):
        assert recorder.distinct_numbers(f"k{key}") == list(range(key, 600, 16))
    assert len(recorder.numbers) == 600  # every handover was orderly, so no event was repeated


async def _publish_slowly(bus: RedisEventBus, count: int) -> None:
    for event in moves(16, count):
        await bus.publish(event)
        await asyncio.sleep(0.002)


async def test_acknowledged_events_survive_server_restarts_in_order_per_key(
    own_server: Server, namespace: str
) -> None:
    """Promise 40. Acknowledged events could be lost, or delivered in another order."""
    recorder = Recorder()
    async with make_bus(own_server, namespace, recorder, patience=60.0, lease=5.0) as bus:

        async def publish(publisher: int) -> None:
            for number in range(10):
                await bus.publish(Moved(f"p{publisher}", number))

        publishing = asyncio.gather(*(publish(publisher) for publisher in range(100)))
        for third in (333, 500):
            await until(lambda third=third: len(recorder.numbers) >= third or publishing.done())  # type: ignore[misc]
            await own_server.restart()
        await publishing
        await bus.drain(timeout=60)
    for publisher in range(100):
        assert recorder.distinct_numbers(f"p{publisher}") == list(range(10))


async def test_another_process_takes_over_the_partitions_of_a_killed_one(
    shared_server: Server, namespace: str
) -> None:
    """Promise 41. The events of a dead machine would wait until an operator intervenes."""
    code = f"""
import asyncio
from pabal.brokers.redis import RedisEventBus
from pabal.operations import operations_of
from pabal.ports.storage import Progress
from tests.brokers.events import Moved
async def main():
    bus = RedisEventBus({shared_server.url!r}, group="g", namespace={namespace!r}, partitions=8, lease=1.0)
    async def hang(event): await asyncio.sleep(1000)
    bus.subscribe(Moved, hang, name="sub", start="beginning")
    await bus.start()
    print("ready", flush=True)
    await asyncio.sleep(1000)
asyncio.run(main())
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=os.getcwd()) as victim:  # noqa: ASYNC220
        assert victim.stdout is not None
        assert await asyncio.to_thread(victim.stdout.readline) == b"ready\n"
        async with make_bus(shared_server, namespace) as publisher:
            await publisher.publish_batch(moves(16, 64))
        recorder = Recorder()
        reports: list[Any] = []
        bus = make_bus(shared_server, namespace, recorder)
        bus.listen(reports.append)
        async with bus:
            victim.send_signal(signal.SIGKILL)
            await until(lambda: len(bus.partitions) == 8)
            await bus.drain(timeout=30)
            assert sorted(set(recorder.numbers)) == list(range(64))
        assert any(isinstance(report, PartitionTaken) and report.taken_from for report in reports)


async def test_an_event_that_kills_its_process_is_parked(
    shared_server: Server, namespace: str, tmp_path: Path
) -> None:
    """Promise 6. One bad event would kill every process of the group, one after the other."""
    code = f"""
import asyncio, os, signal, sys
from pabal import RetryPolicy
from pabal.brokers.redis import RedisEventBus
from tests.brokers.events import Moved
async def handle(event):
    if event.number == 5:
        os.kill(os.getpid(), signal.SIGKILL)
async def main():
    bus = RedisEventBus({shared_server.url!r}, group="g", namespace={namespace!r}, partitions=2, lease=0.4,
                        worker_count=1)
    bus.subscribe(Moved, handle, name="sub", start="beginning", retry=RetryPolicy(max_attempts=2))
    async with bus:
        await bus.drain(timeout=30)
        [letter] = await bus.dead_letters.list()
        print(letter.event.number, [a.error_type for a in letter.attempts])
asyncio.run(main())
"""
    (tmp_path / "poisoned.py").write_text(code)
    async with make_bus(shared_server, namespace, partitions=2) as publisher:
        await publisher.publish_batch(moves(4, 12))
    ends: list[int | None] = []
    output = b""
    while len(ends) < 6 and (not ends or ends[-1] == -signal.SIGKILL):
        process = await warm.Process.start("poisoned", warm=LOADED, cwd=tmp_path, env=os.environ)
        output, _ = await process.communicate()
        ends.append(process.returncode)
    assert ends == [-signal.SIGKILL] * 3 + [0]  # the first death counts for no event, the next two do
    assert output.strip() == b"5 ['ProcessDied', 'ProcessDied']"


async def test_late_progress_of_a_suspended_process_is_rejected(
    shared_server: Server, namespace: str
) -> None:
    """Promise 41. A process that resumes late would overwrite the progress of its successor."""
    recorder = Recorder()
    async with make_bus(shared_server, namespace, recorder) as paused:
        storages = [running.storage for running in paused._group_engine.running.values()]
        held = [dict(storage._held) for storage in storages]
        stop_heartbeats(paused)
        async with make_bus(shared_server, namespace, recorder) as other:
            await until(lambda: len(other.partitions) == 8)
            for storage, epochs in zip(storages, held, strict=True):
                late = [Progress(name, epoch, 99, 99) for name, epoch in epochs.items()]
                assert await storage.save_progress(late) == list(epochs)


async def test_a_handler_longer_than_the_lease_does_not_run_twice_at_once(
    shared_server: Server, namespace: str
) -> None:
    """Promise 41. A process whose handler takes three leases would count as dead, and its event run twice."""
    running = most = handled = 0

    async def slow(event: Moved) -> None:
        nonlocal running, most, handled
        running += 1
        most = max(most, running)
        await asyncio.sleep(3.0)
        running -= 1
        handled += 1

    # Under load a process may not run at all for some tenths of a second, and then loses a shorter lease.
    options = {"lease": 1.0, "partitions": 1}
    async with make_bus(shared_server, namespace, slow, **options) as one:
        await one.publish(Moved("a", 1))
        await until(lambda: running == 1)
        async with make_bus(shared_server, namespace, slow, **options):
            await until(lambda: handled == 1)
    assert (most, handled) == (1, 1)


async def test_a_group_restores_a_flushed_server_and_reports_it(own_server: Server, namespace: str) -> None:
    """Promise 43. After a FLUSHALL the group would stop silently, or start again from the beginning."""
    recorder = Recorder()
    reports: list[Any] = []
    bus = make_bus(own_server, namespace, recorder)
    bus.listen(reports.append)
    async with bus:
        await bus.publish_batch(moves(16, 64))
        await bus.drain(timeout=30)
        await bus._log.link.call("FLUSHALL")
        await until(lambda: sum(isinstance(report, GroupRestored) for report in reports) == 8, 5.0)
        await bus.publish_batch([Moved(f"k{number % 16}", number) for number in range(64, 96)])
        await bus.drain(timeout=30)
        assert bus.get_statistics()["events_lost"] == 0
    assert recorder.numbers.count(0) == 1
    assert sorted(recorder.numbers) == list(range(96))


async def test_events_trimmed_by_another_client_are_reported_as_lost(
    shared_server: Server, namespace: str
) -> None:
    """Promise 42. Otherwise events deleted by another program would count as handled."""
    reports: list[Any] = []
    async with make_bus(shared_server, namespace, Recorder(), partitions=1):
        pass
    async with make_bus(shared_server, namespace, partitions=None) as publisher:
        await publisher.publish_batch(moves(4, 20))
        await publisher.publish_batch(moves(4, 10))
        await publisher._log.link.call("XTRIM", publisher._log.keys.log(0), "MAXLEN", 1)
    recorder = Recorder()
    bus = make_bus(shared_server, namespace, recorder, partitions=None)
    bus.listen(reports.append)
    async with bus:
        await bus.drain(timeout=30)
        [lost] = [report for report in reports if isinstance(report, EventsLost)]
        assert (lost.first, lost.last) == (1, 20)
        assert bus.get_statistics()["events_lost"] == 20
        assert bus.health().status == "degraded"
    assert sorted(recorder.numbers) == list(range(10))


async def test_trimming_keeps_events_that_any_group_has_not_finished(
    shared_server: Server, namespace: str
) -> None:
    """Promise 42. A group that was away for a while would return to a log without its events."""
    slow, fast = Recorder(), Recorder()
    async with make_bus(shared_server, namespace, slow, group="away", partitions=1, keep=0):
        pass
    async with make_bus(shared_server, namespace, fast, partitions=1, keep=0) as bus:
        await bus.publish_batch(moves(4, 100))
        await bus.drain(timeout=30)
        assert bus._coordinator is not None
        await bus._coordinator.trim()
        assert await bus._log.link.call("XLEN", bus._log.keys.log(0)) == 1
        async with make_bus(shared_server, namespace, slow, group="away", partitions=1, keep=0) as back:
            await back.drain(timeout=30)
        await bus._coordinator.trim()
        assert await bus._log.link.call("XLEN", bus._log.keys.log(0)) == 0
    assert sorted(slow.numbers) == sorted(fast.numbers) == list(range(100))


async def test_a_process_can_retry_dead_letters_in_the_partitions_of_another(
    shared_server: Server, namespace: str
) -> None:
    """Otherwise dead letters in another process's partitions could be seen, but not retried."""
    recorder = Recorder()
    broken = True

    async def handle(event: Moved) -> None:
        if broken:
            raise ValueError("not now")
        await recorder.handle(event)

    async with (
        make_bus(shared_server, namespace, handle) as one,
        make_bus(shared_server, namespace, handle) as two,
    ):
        await until(lambda: len(one.partitions) == len(two.partitions) == 4)
        await one.publish_batch(moves(16, 16))
        await one.drain(timeout=30)
        letters = await two.dead_letters.list()
        assert sorted(letter.event.number for letter in letters) == list(range(16))
        broken = False
        assert await two.dead_letters.retry("all") == 16
        await asyncio.gather(one.drain(timeout=30), two.drain(timeout=30))
        assert len(recorder.numbers) == 16
        assert await one.dead_letters.list() == []


async def test_wait_for_and_scheduling_work_across_processes(shared_server: Server, namespace: str) -> None:
    """A request that waits for its answer must see events published by other processes."""
    async with make_bus(shared_server, namespace) as asking, make_bus(shared_server, namespace) as answering:
        receipt = await asking.publish(Moved("a", 1))
        await answering.publish(Moved("b", 2))
        found = await asking.wait_for(Moved, where=lambda e: e.number == 2, since=receipt, timeout=30)
        assert found.key == "b"
        await answering.publish(Moved("c", 3), delay=0.05)
        assert (await asking.wait_for(Moved, timeout=30)).number == 3


async def test_start_rejects_a_partition_count_that_differs_from_the_log(
    shared_server: Server, namespace: str
) -> None:
    """Keys would move to other partitions, and their events be handled out of order."""
    async with make_bus(shared_server, namespace, partitions=4):
        pass
    with pytest.raises(PartitionCountError) as caught:
        await make_bus(shared_server, namespace, partitions=5).start()
    assert (caught.value.found, caught.value.wanted) == (4, 5)
    async with make_bus(shared_server, namespace, Recorder(), partitions=None) as bus:
        assert bus.partitions == [0, 1, 2, 3]


async def test_publish_fails_at_once_with_when_disconnected_fail(own_server: Server, namespace: str) -> None:
    """A request handler that must not wait would hang while the server is away."""
    bus = make_bus(own_server, namespace, Recorder(), when_disconnected="fail")
    await bus.start()
    try:
        await asyncio.to_thread(own_server.kill)
        with pytest.raises(BrokerUnavailableError):
            await bus.publish(Moved("a", 1))
        await until(lambda: bus.health().status == "failing")
    finally:
        await bus.stop(timeout=1.0)
    assert bus.partitions == []


async def test_the_error_for_an_unreachable_server_hides_the_password(namespace: str) -> None:
    """Otherwise error logs would reveal the password."""
    url = f"redis://risk:secret@127.0.0.1:{free_port()}/0"
    bus = RedisEventBus(url, group="g", namespace=namespace, patience=0.3)
    with pytest.raises(BrokerUnavailableError) as caught:
        await bus.start()
    assert "secret" not in str(caught.value) + repr(bus)
    assert not bus.is_running


async def test_from_url_reads_the_group_and_all_options(shared_server: Server, namespace: str) -> None:
    """An application must be able to move from a file to a server by configuration alone."""
    url = f"{shared_server.url}?group=risk&namespace={namespace}&partitions=2&lease=2.5&worker_count=3"
    bus = EventBusFactory.from_url(url)
    assert isinstance(bus, RedisEventBus)
    recorder = Recorder()
    bus.subscribe(Moved, recorder, name="sub")
    async with bus:
        await bus.publish(Moved("a", 1))
        await bus.drain(timeout=30)
        assert bus.get_statistics()["worker_count"] == 3
    assert (recorder.numbers, bus.group) == ([1], "risk")
    with pytest.raises(UsageError, match="group"):
        EventBusFactory.from_url(shared_server.url)
