"""Operators inspect a group on a server from outside, and manage its dead letters."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from typing import Any
from unittest.mock import AsyncMock

import httpx
import pytest

from pabal.brokers.redis.coordinator import Coordinator
from pabal.brokers.redis.group import Running
from pabal.brokers.redis.inspector import GroupInspector
from pabal.brokers.redis.link import Link
from pabal.brokers.redis.partition import PartitionStorage
from pabal.brokers.redis.reports import GroupRestored
from pabal.dashboard import create_dashboard
from pabal.delivery.retry import RetryPolicy
from pabal.errors import (
    BrokerError,
    DeadLetterNotFoundError,
    DecodeError,
    UsageError,
)
from pabal.factory import open_operations
from pabal.operations import Operations, operations_of
from pabal.ports.operations import DeadLetterFilter
from tests.brokers.events import Moved, Recorder, moves, until
from tests.brokers.server import Server
from tests.brokers.support import (
    dump_namespace,
    fail_on_odd,
    group_with_dead_letters,
    make_bus,
    run_cli,
    url_of,
)

ODD = DeadLetterFilter(error_type="ValueError")


async def test_a_running_group_shows_as_active(shared_server: Server, namespace: str) -> None:
    """A healthy group must not be reported as abandoned."""
    async with make_bus(shared_server, namespace, Recorder().handle) as bus:
        await bus.publish_batch(moves(4, 20))
        await bus.drain(timeout=30)
        async with open_operations(url_of(shared_server, namespace)) as operations:
            [view] = await operations.subscriptions()
            assert (view.state, view.lag) == ("active", 0)
            assert view.owner is not None


async def test_a_process_without_heartbeats_does_not_show_as_owner(
    shared_server: Server, namespace: str
) -> None:
    """A group whose processes were all killed would be shown as active."""
    async with group_with_dead_letters(shared_server, namespace):
        link = Link(shared_server.url, loads_scripts=False)
        await link.open()
        base = f"{{{namespace}}}:group:g:"
        await link.call("HSET", base + "members", "ghost", 7)
        for part in range(8):
            await link.call("HSET", f"{base}{part}:lease", "owner", "ghost")
            await link.call("HSET", f"{base}{part}:epochs", "sub\0held", 1)
        await link.close()
        inspector = GroupInspector(shared_server.url, group="g", namespace=namespace, silence=0.1)
        for _ in range(2):
            [view] = await inspector.subscriptions()
            assert (view.state, view.owner) == ("idle", None)
        await inspector.aclose()


def test_the_dashboard_reports_a_group_and_may_be_closed_in_another_loop(
    shared_server: Server, namespace: str
) -> None:
    """The page must work on a server, and the command may close the operations in another event loop."""

    async def park_events() -> None:
        async with group_with_dead_letters(shared_server, namespace):
            pass

    async def request_all(operations: Operations) -> list[httpx.Response]:
        transport = httpx.ASGITransport(create_dashboard(operations))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            paths = (
                "report",
                "dead-letters",
                "dead-letters/1",
                "dead-letters/groups",
                "audit",
                "types",
                "events",
                "streams",
            )
            return [await client.get(f"/api/{path}") for path in paths]

    asyncio.run(park_events())
    operations = open_operations(url_of(shared_server, namespace))
    answers = asyncio.run(request_all(operations))
    again = asyncio.run(request_all(operations))
    asyncio.run(operations.aclose())
    codes = [answer.status_code for answer in answers]
    assert codes == [answer.status_code for answer in again] == [200] * 7 + [400]
    assert answers[1].json()["count"] == 3
    assert answers[5].json()["types"] == [Moved.event_type]
    assert len(answers[6].json()["items"]) == 6
    assert "no streams of aggregates" in answers[-1].text


async def test_reading_changes_nothing_on_the_server(shared_server: Server, namespace: str) -> None:
    """Looking must not join the group, take a lease or move the log to another incarnation."""
    async with group_with_dead_letters(shared_server, namespace) as operations:
        before = await dump_namespace(shared_server, namespace)
        await operations.overview()
        await operations.subscriptions()
        await operations.dead_letters()
        await operations.dead_letter(1)
        await operations.dead_letter_groups()
        await operations.audit()
        assert await dump_namespace(shared_server, namespace) == before


async def test_dead_letters_of_a_forgotten_name_are_part_of_the_overview(
    shared_server: Server, namespace: str
) -> None:
    """It would say ok, with no dead letter, while three are listed that nobody will retry."""
    async with group_with_dead_letters(shared_server, namespace) as outside:
        bus = make_bus(shared_server, namespace)
        bus.subscribe(Moved, Recorder().handle, name="other")
        async with bus:
            inside = operations_of(bus)
            await until(lambda: bus.health().status == "degraded")
            assert await summary_of(outside) == ("degraded", [("parked", "sub", 3)], 3, 2)
            assert await summary_of(inside) == ("degraded", [("parked", "sub", 3)], 3, 1)
            assert await bus.subscriptions.forget("sub")
            for operations in (outside, inside):
                assert await summary_of(operations) == ("degraded", [("forgotten", None, 3)], 3, 1)
            await bus.dead_letters.discard("all")
            for operations in (outside, inside):
                assert await summary_of(operations) == ("ok", [], 0, 1)


async def summary_of(operations: Operations) -> tuple[str, list[tuple[str, str | None, int]], int, int]:
    """Return the health, the reasons, and the numbers of dead letters and subscriptions."""
    overview = await operations.overview()
    reasons = [(reason.code, reason.subscription, reason.number) for reason in overview.reasons]
    return overview.health, reasons, overview.parked, overview.subscriptions


async def test_dead_letters_are_listed_filtered_and_paged(shared_server: Server, namespace: str) -> None:
    """An operator could see only the first page, or dead letters that do not match."""
    async with group_with_dead_letters(shared_server, namespace, 10) as operations:
        first = await operations.dead_letters(limit=3)
        rest = await operations.dead_letters(after=first.next or 0, limit=3)
        assert len(first.dead_letters) == 3
        assert (len(rest.dead_letters), rest.next) == (2, None)
        numbers = {one.event.payload["number"] for one in (*first.dead_letters, *rest.dead_letters)}
        assert numbers == {1, 3, 5, 7, 9}
        for none in (DeadLetterFilter(subscription="x"), DeadLetterFilter(event_type="x")):
            assert (await operations.dead_letters(none)).dead_letters == ()
        assert len((await operations.dead_letters(ODD)).dead_letters) == 5
        [group] = await operations.dead_letter_groups()
        assert (group.subscription, group.error_type, group.count) == ("sub", "ValueError", 5)
        shown = await operations.dead_letter(first.dead_letters[0].id)
        assert [attempt.error_type for attempt in shown.attempts] == ["ValueError", "ValueError"]
        with pytest.raises(DeadLetterNotFoundError):
            await operations.dead_letter(999)
        events = (await operations.events(payloads=True)).events
        odd = {event.event_id for event in events if event.payload["number"] in numbers}
        assert await operations.parked(events) == odd


async def test_a_running_owner_applies_retries_edits_and_discards_from_outside(
    shared_server: Server, namespace: str
) -> None:
    """Otherwise an operator's decision would wait for the next start of the application."""
    handled: list[int] = []
    healed = False

    def handle(event: Moved) -> None:
        if event.number < 3 and not healed:
            raise ValueError("not yet")
        handled.append(event.number)

    async with make_bus(shared_server, namespace, handle) as bus:
        await bus.publish_batch(moves(3, 3))
        await bus.drain(timeout=30)
        healed = True
        async with open_operations(url_of(shared_server, namespace), actor="kim") as operations:
            letters = {
                one.event.payload["number"]: one.id for one in (await operations.dead_letters()).dead_letters
            }
            retried = await operations.retry(letters[0])
            assert (retried.count, retried.pending) == (1, True)
            with pytest.raises(DecodeError):
                await operations.edit_and_retry(letters[1], {"key": 5})
            await operations.edit_and_retry(letters[1], {"key": "k1", "number": 100})
            await operations.discard(letters[2])
            await until(lambda: sorted(handled) == [0, 100])
            await _until_empty(operations)
            entries = [(one.actor, one.action, one.succeeded) for one in await operations.audit()]
        assert entries == [
            ("kim", "discard", True),
            ("kim", "edit", True),
            ("kim", "edit", False),
            ("kim", "retry", True),
        ]


async def _until_empty(operations: Operations) -> None:
    async with asyncio.timeout(30):
        while True:
            if not (await operations.dead_letters()).dead_letters:
                return
            await asyncio.sleep(0.01)


async def test_retries_requested_of_a_stopped_group_happen_at_its_next_start(
    shared_server: Server, namespace: str
) -> None:
    """Otherwise an operator could not act on dead letters while the application is down."""
    async with group_with_dead_letters(shared_server, namespace) as operations:
        result = await operations.retry_matching(ODD)
        assert (result.count, result.pending) == (3, True)
        assert (await operations.retry_matching(ODD)).count == 0
        recorder = Recorder()
        async with make_bus(shared_server, namespace, recorder.handle):
            await until(lambda: sorted(recorder.numbers) == [1, 3, 5])
            await _until_empty(operations)


@pytest.mark.parametrize(
    "when", ["ends before it is read", "ends while it is read", "is loaded while it is read"]
)
async def test_a_retry_loaded_by_an_opening_is_not_made_again(
    shared_server: Server, namespace: str, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """A dead letter retried while its subscription is opened would be delivered twice."""
    entered, gate, recorder = Recorder(), asyncio.Event(), Recorder()
    loading = asyncio.Event()
    answer_calls, list_dead_letters = Coordinator._answer_calls, PartitionStorage.list_dead_letters
    save, find = PartitionStorage.save_progress, PartitionStorage.find_dead_letters

    async def handle(event: Moved) -> None:
        await entered.handle(event)
        await gate.wait()
        await recorder.handle(event)

    async def save_late(storage: PartitionStorage, progress: Any) -> Any:
        await asyncio.sleep(0.1)
        return await save(storage, progress)

    async def list_late(storage: PartitionStorage, **filters: Any) -> Any:
        await loading.wait()
        return await list_dead_letters(storage, **filters)

    async def answer_late(storage: PartitionStorage, ids: Any) -> Any:
        found = await find(storage, ids)
        loading.set()
        gate.set()
        await until(lambda: len(recorder.numbers) >= 3)
        await until(lambda: all(engine.settlement.idle for engine in bus._group_engine.engines()))
        return found

    async with group_with_dead_letters(shared_server, namespace) as operations:
        monkeypatch.setattr(Coordinator, "_answer_calls", AsyncMock())
        async with make_bus(shared_server, namespace, lambda event: None) as bus:
            await operations.retry_matching(ODD)
            bus.unsubscribe(bus.subscriptions.attached()[0])
            monkeypatch.setattr(PartitionStorage, "save_progress", save_late)
            monkeypatch.setattr(PartitionStorage, "find_dead_letters", answer_late)
            monkeypatch.setattr(PartitionStorage, "list_dead_letters", list_late)
            bus.subscribe(Moved, handle, name="sub")
            if when == "is loaded while it is read":
                engines = bus._group_engine.engines()
                await until(lambda: all(engine.consumers["sub"].tracker is not None for engine in engines))
            else:
                loading.set()
                await until(lambda: len(entered.numbers) == 3)
            if when == "ends before it is read":
                gate.set()
                await until(lambda: len(recorder.numbers) == 3)
            assert bus._coordinator is not None
            for partition in bus.partitions * 2:
                await answer_calls(bus._coordinator, partition)
            assert not await bus._coordinator.has_calls()
            await bus.drain(timeout=30)
    assert sorted(recorder.numbers) == [1, 3, 5]


async def test_a_retry_called_for_while_an_earlier_call_is_answered_is_made(
    shared_server: Server, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deleted with the earlier call, it would not be made before the next start."""
    handled: list[int] = []
    broken = True
    find = PartitionStorage.find_dead_letters

    def handle(event: Moved) -> None:
        if broken:
            raise ValueError("not yet")
        handled.append(event.number)

    async def retry_meanwhile(storage: PartitionStorage, ids: Any) -> Any:
        found = await find(storage, ids)
        monkeypatch.setattr(PartitionStorage, "find_dead_letters", find)
        assert await bus.dead_letters.retry(letter.id)
        return found

    async with make_bus(shared_server, namespace, handle, partitions=1, lease=10.0) as bus:
        await bus.publish(Moved("a", 1))
        await bus.drain(timeout=30)
        [letter] = await bus.dead_letters.list()
        broken = False
        monkeypatch.setattr(PartitionStorage, "find_dead_letters", retry_meanwhile)
        await bus._log.link.call("SADD", bus._keys.of(0).calls, letter.id)
        await until(lambda: handled == [1], seconds=5)


async def test_a_discard_told_late_does_not_release_the_queue_of_a_subscription_being_opened(
    shared_server: Server, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise 25. A process may leave a call that it has acted on. Acting on it again, before the opening
    knows what blocks the key, would deliver events ahead of the parked one.
    """
    recorder, looked = Recorder(), asyncio.Event()
    answer, list_dead_letters = Running.answer, PartitionStorage.list_dead_letters

    async def answer_first(running: Running, calls: Any) -> Any:
        answered = await answer(running, calls)
        looked.set()
        return answered

    async def list_late(storage: PartitionStorage, **filters: Any) -> Any:
        await looked.wait()
        return await list_dead_letters(storage, **filters)

    async with make_bus(shared_server, namespace, partitions=1, lease=10.0) as bus:
        never = RetryPolicy(max_attempts=1)
        options: dict[str, Any] = {"name": "sub", "on_exhausted": "park_key", "retry": never}
        subscription = bus.subscribe(Moved, fail_on_odd, **options)
        await bus.publish_batch([Moved("a", number) for number in (1, 2, 3)])
        await bus.drain(timeout=30)
        [letter] = await bus.dead_letters.list()
        monkeypatch.setattr(Running, "answer", answer_first)
        monkeypatch.setattr(PartitionStorage, "list_dead_letters", list_late)
        bus.unsubscribe(subscription)
        bus.subscribe(Moved, recorder, **options)
        [engine] = bus._group_engine.engines()
        await until(lambda: bool(engine.consumers["sub"].blocked))
        await bus._log.link.call("SADD", bus._keys.of(0).calls, f"sub\0999\0{letter.key}")
        await until(looked.is_set)
        await bus.drain(timeout=30)
        assert bus._coordinator is not None
        assert not await bus._coordinator.has_calls()
        assert recorder.numbers == []
        assert (await bus.dead_letters.get(letter.id)).queued == 2


async def test_a_group_is_restored_although_a_retried_dead_letter_waits_for_a_save(
    own_server: Server, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise 43. The save fails until the group is restored, and nothing would restore it."""
    holding, gate = False, asyncio.Event()
    restored = asyncio.Event()
    save = PartitionStorage.save_progress

    async def save_late(storage: PartitionStorage, progress: Any) -> Any:
        if holding:
            await gate.wait()
        return await save(storage, progress)

    monkeypatch.setattr(PartitionStorage, "save_progress", save_late)
    async with make_bus(own_server, namespace, fail_on_odd, partitions=1, lease=10.0) as bus:
        bus.listen(lambda report: restored.set() if isinstance(report, GroupRestored) else None)
        await bus.publish(Moved("a", 1))
        await bus.drain(timeout=30)
        holding = True
        await bus.publish(Moved("a", 2))
        [engine] = bus._group_engine.engines()
        await until(lambda: engine.settlement.is_saving)
        await bus.dead_letters.retry("all")
        await until(lambda: bool(engine.settlement._flushers))
        await bus._log.link.call("FLUSHALL")
        gate.set()
        async with asyncio.timeout(5):
            await restored.wait()


Act = Callable[[Operations], Any]


@pytest.mark.parametrize(
    ("act", "error"),
    [
        (lambda one: one.streams(), UsageError),
        (lambda one: one.stream("x"), UsageError),
    ],
)
async def test_stream_queries_are_rejected_on_a_server(
    shared_server: Server, namespace: str, act: Act, error: type[Exception]
) -> None:
    """An empty answer would be taken for an empty log."""
    async with group_with_dead_letters(shared_server, namespace, 2) as operations:
        with pytest.raises(error, match="a log on Redis"):
            await act(operations)


async def test_the_only_group_is_the_default_and_one_of_several_must_be_named(
    shared_server: Server, namespace: str
) -> None:
    """Otherwise an operator could look at another application's dead letters without noticing."""
    async with open_operations(url_of(shared_server, namespace)) as operations:
        with pytest.raises(BrokerError, match="no log in namespace"):
            await operations.overview()
    async with (
        group_with_dead_letters(shared_server, namespace),
        open_operations(url_of(shared_server, namespace, "")) as one,
    ):
        assert (await one.overview()).parked == 3
    async with make_bus(shared_server, namespace, Recorder().handle, group="other"):
        for group, word in (("", "choose a group"), ("nobody", "there is no group 'nobody'")):
            async with open_operations(url_of(shared_server, namespace, group)) as operations:
                with pytest.raises(UsageError, match=f"{word}.*known groups: g, other"):
                    await operations.overview()


async def test_the_commands_accept_the_url_of_a_server(shared_server: Server, namespace: str) -> None:
    """The command line must work for a bus on a server, too."""
    async with group_with_dead_letters(shared_server, namespace) as operations:
        [letter, *_] = (await operations.dead_letters()).dead_letters
    url = url_of(shared_server, namespace)

    def calls() -> list[tuple[int, str]]:
        return [
            run_cli("status", url),
            run_cli("subscriptions", "list", url),
            run_cli("dead-letters", "list", url),
            run_cli("dead-letters", "show", url, str(letter.id)),
            run_cli("dead-letters", "discard", url, str(letter.id), "--yes"),
            run_cli("audit", url),
            run_cli("replay", url, "sub", "--dry-run"),
            run_cli("streams", "list", url),
            run_cli("vacuum", url),
        ]

    status, listed, letters, shown, gone, audit, replay, streams, vacuum = await asyncio.to_thread(calls)
    assert (status[0], "6 events, 1 subscription," in status[1]) == (0, True), status
    assert (listed[0], "idle" in listed[1]) == (0, True), listed
    assert (letters[0], letters[1].count("ValueError")) == (0, 3), letters
    assert (shown[0], "failed 2 of 2 attempts" in shown[1]) == (0, True), shown
    assert gone == (0, "1 done\n")
    assert (audit[0], "discard" in audit[1]) == (0, True), audit
    assert (replay[0], "positions 1 to 6" in replay[1]) == (0, True), replay
    assert (streams[0], "no streams of aggregates" in streams[1]) == (2, True), streams
    assert (vacuum[0], "needs a log file" in vacuum[1]) == (2, True), vacuum


def test_operations_do_not_import_the_redis_client() -> None:
    """For a file, the command line must start without the extra for Redis."""
    code = "import sys, pabal.factory, pabal.cli.base, pabal.operations; assert 'redis' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
