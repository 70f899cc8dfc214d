"""Operators list, find, trace and follow the events of a log on a server."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from datetime import timedelta
from typing import Any, ClassVar

import msgspec
import pytest

from pabal import DomainEvent
from pabal.brokers.redis.inspector import GroupInspector
from pabal.brokers.redis.link import Link
from pabal.brokers.redis.reader import LogReader
from pabal.errors import CorruptLogError, EventNotFoundError, InvalidFilterError
from pabal.factory import open_operations
from pabal.korean import in_korean
from pabal.operations import Operations
from pabal.operations.group_source import GroupSource
from pabal.ports.operations import EventFilter, EventView
from tests.brokers.events import Moved, moves, until
from tests.brokers.server import Server
from tests.brokers.support import (
    dump_namespace,
    fail_on_odd,
    group_with_dead_letters,
    make_bus,
    run_cli,
    url_of,
)


class Answered(DomainEvent):
    event_type: ClassVar[str] = "test.redis.answered"
    number: int


def numbers(events: Any) -> list[int]:
    return [event.payload["number"] for event in events]


async def publish_one_by_one(server: Server, namespace: str, first: int, count: int) -> list[Moved]:
    """Publish events so that each one enters the log after the previous one, in its partition."""
    events = [Moved(f"k{number % 11}", number) for number in range(first, first + count)]
    async with make_bus(server, namespace) as bus:
        for event in events:
            await bus.publish(event)
    return events


async def page_through(operations: Operations, limit: int, wanted: EventFilter, **page: Any) -> list[int]:
    """Page through a log from its newest event to its oldest."""
    found: list[int] = []
    before: str | None = None
    while True:
        shown = await operations.events(wanted, before=before, limit=limit, payloads=True, **page)
        found += numbers(shown.events)
        if shown.older is None:
            return found
        before = shown.older


async def test_events_are_listed_newest_first_and_paged_over_all_partitions(
    shared_server: Server, namespace: str
) -> None:
    """An operator could see the events of one partition only, or an event on two pages."""
    await publish_one_by_one(shared_server, namespace, 0, 40)
    async with make_bus(shared_server, namespace) as bus:
        await bus.publish_batch([Moved(f"k{number % 11}", number) for number in range(40, 80)])
    async with open_operations(url_of(shared_server, namespace)) as operations:
        for limit in (1, 7, 1000):
            found = await page_through(operations, limit, EventFilter())
            assert sorted(found) == list(range(80))
            assert found[40:] == list(range(39, -1, -1))
        whole = (await operations.events(limit=1000)).events
        assert len({event.cursor for event in whole}) == 80
        places = [event.cursor.partition(":") for event in whole]
        assert {int(part) for part, _, _ in places} <= set(range(8))
        for event, after in zip(whole[10:70:13], whole[9:69:13], strict=True):
            newer = await operations.events(after=event.cursor, limit=1)
            assert [one.cursor for one in newer.events] == [after.cursor]
            between = await operations.events(before=whole[0].cursor, after=event.cursor, limit=1000)
            assert [one.cursor for one in between.events] == [
                one.cursor for one in whole[1 : whole.index(event)]
            ]
        read = [event.cursor async for event in operations.read(after=whole[50].cursor)]
        assert read == [one.cursor for one in whole[49::-1]]


async def test_filters_select_events_by_type_aggregate_chain_and_time(
    shared_server: Server, namespace: str
) -> None:
    """Otherwise an operator would have to read all events, or would miss some."""

    async with make_bus(shared_server, namespace) as bus:

        async def answer(event: Moved) -> None:
            await bus.publish(Answered(event.number))

        bus.subscribe(Moved, answer, name="sub", start="beginning")
        first, *_ = moves(3, 9)
        await bus.publish(first)
        await bus.drain(timeout=30)
        await bus.publish_batch(moves(3, 9))
        await bus.drain(timeout=30)
    async with open_operations(url_of(shared_server, namespace)) as operations:
        assert await operations.types() == [Answered.event_type, Moved.event_type]
        whole = [event async for event in operations.read()]
        for wanted, count in (
            (EventFilter(types=("test.redis.a*",)), 10),
            (EventFilter(types=("other.*",)), 0),
            (EventFilter(aggregate_id="k1"), 3),
            (EventFilter(aggregate_type="thing"), 10),
            (EventFilter(aggregate_type="other", aggregate_id="k1"), 0),
            (EventFilter(correlation_id=first.event_id), 2),
            (EventFilter(causation_id=first.event_id), 1),
            (EventFilter(since=whole[1].recorded_at), 19),
            (EventFilter(until=whole[1].recorded_at), 1),
            (EventFilter(since=whole[-1].recorded_at + timedelta(seconds=1)), 0),
            (EventFilter(until=whole[0].recorded_at), 0),
        ):
            assert len((await operations.events(wanted)).events) == count, wanted
            assert len([event async for event in operations.read(wanted)]) == count, wanted
        trace = await operations.trace(first.event_id)
        assert (trace.count, trace.complete, len(trace.roots)) == (2, True, 1)
        for cursor in ("7", "9:1", "x:1", "1:2:3"):
            with pytest.raises(InvalidFilterError):
                await operations.events(before=cursor)


@pytest.mark.parametrize(("partitions", "words"), [(1, "the log has 1 partition"), (8, "has 8 partitions")])
async def test_a_cursor_of_a_missing_partition_is_rejected_with_their_number(
    shared_server: Server, namespace: str, partitions: int, words: str
) -> None:
    """An operator who copied a cursor from another log would not learn what is wrong with it."""
    url = url_of(shared_server, namespace)
    async with make_bus(shared_server, namespace, fail_on_odd, partitions=partitions):
        async with open_operations(url) as operations:
            with pytest.raises(InvalidFilterError, match=rf"{words}$") as caught:
                await operations.events(before="9:1")
        assert f"로그의 파티션은 {partitions}개입니다" in in_korean(caught.value.reason)


async def test_a_search_that_reaches_its_limit_returns_a_cursor_to_continue_from(
    shared_server: Server, namespace: str
) -> None:
    """The dashboard would hang on a large log, or a partial answer would look complete."""
    await publish_one_by_one(shared_server, namespace, 0, 50)
    inspector = GroupInspector(shared_server.url, namespace=namespace, most=20)
    async with Operations(GroupSource(inspector)) as operations:
        rare = EventFilter(aggregate_id="k3")
        expected = list(range(47, -1, -11))
        page = await operations.events(rare, payloads=True)
        assert numbers(page.events) == expected[:2]
        assert page.older is not None
        assert await page_through(operations, 50, rare) == expected
        nothing = await operations.events(EventFilter(aggregate_id="k99"))
        assert nothing.events == ()
        assert nothing.older is not None
        upwards = await operations.events(EventFilter(aggregate_id="k99"), after=nothing.older)
        assert upwards.newer is None
        assert numbers([event async for event in operations.read(rare)]) == expected[::-1]


async def test_an_event_is_shown_with_the_state_of_its_delivery(
    shared_server: Server, namespace: str
) -> None:
    """An operator with an id from a log file could not find out where the event failed, and why."""
    async with make_bus(shared_server, namespace, fail_on_odd) as bus:
        even, odd = Moved("a", 2), Moved("b", 3)
        await bus.publish_batch([even, odd])
        await bus.drain(timeout=30)
    async with open_operations(url_of(shared_server, namespace)) as operations:
        shown = await operations.event(odd.event_id)
        [delivery] = shown.deliveries
        assert (shown.event.payload, delivery.state, delivery.attempts) == (
            {"key": "b", "number": 3},
            "parked",
            2,
        )
        assert [failure.error_type for failure in delivery.failures] == ["ValueError", "ValueError"]
        assert delivery.dead_letter_id is not None
        [finished] = (await operations.event(even.event_id)).deliveries
        assert (finished.state, finished.attempts) == ("finished", 0)
        await operations.retry(delivery.dead_letter_id)
        assert (await operations.event(odd.event_id)).deliveries[0].state == "retrying"
        async with make_bus(shared_server, namespace) as publisher:
            later = Moved("b", 4)
            await publisher.publish(later)
        assert (await operations.event(later.event_id)).deliveries[0].state == "pending"
        for unknown in (Moved("a", 1).event_id, "no id"):
            with pytest.raises(EventNotFoundError):
                await operations.event(unknown)


async def test_listings_skip_trimmed_events_and_reject_cursors_below_the_trim(
    shared_server: Server, namespace: str
) -> None:
    """If the log is trimmed meanwhile, an operator could see events twice, or silently miss some."""
    events = await publish_one_by_one(shared_server, namespace, 0, 40)
    link = Link(shared_server.url, loads_scripts=False)
    await link.open()
    async with open_operations(url_of(shared_server, namespace)) as operations:
        whole = (await operations.events(limit=1000)).events
        for name in await link.call("KEYS", f"{{{namespace}}}:log:*"):
            await link.call("XTRIM", name, "MAXLEN", 1)
        await link.close()
        left = (await operations.events(limit=1000)).events
        assert 0 < len(left) < 12
        assert [event.cursor for event in left] == [one.cursor for one in whole if one in left]
        assert [event.cursor async for event in operations.read()] == [one.cursor for one in reversed(left)]
        with pytest.raises(InvalidFilterError, match="no longer goes back that far"):
            await operations.events(before=whole[-1].cursor)
        with pytest.raises(InvalidFilterError, match="no longer goes back that far"):
            await operations.events(after=whole[-1].cursor)
        with pytest.raises(EventNotFoundError):
            await operations.event(events[0].event_id)


async def test_a_damaged_entry_raises_corrupt_log_error(shared_server: Server, namespace: str) -> None:
    """Otherwise an operator could act on an event that was never published."""
    await publish_one_by_one(shared_server, namespace, 0, 1)
    link = Link(shared_server.url, loads_scripts=False)
    await link.open()
    [name] = await link.call("KEYS", f"{{{namespace}}}:log:*")
    await link.call("XADD", name, "2-1", "t", "1", "e", "damaged")
    await link.close()
    async with open_operations(url_of(shared_server, namespace)) as operations:
        with pytest.raises(CorruptLogError):
            await operations.events()


async def test_follow_yields_new_events_of_all_partitions(shared_server: Server, namespace: str) -> None:
    """An operator who follows the log could miss events, see some twice, or see one partition only."""
    await publish_one_by_one(shared_server, namespace, 0, 30)
    async with open_operations(url_of(shared_server, namespace)) as operations:
        whole = (await operations.events(limit=1000)).events
        seen: dict[str, list[EventView]] = {"new": [], "behind": [], "all": [], "chosen": []}

        async def follow(name: str, wanted: EventFilter, after: str | None) -> None:
            async with aclosing(operations.follow(wanted, after=after)) as coming:
                async for event in coming:
                    seen[name].append(event)

        tasks = [
            asyncio.create_task(follow("new", EventFilter(), None)),
            asyncio.create_task(follow("behind", EventFilter(), whole[5].cursor)),
            asyncio.create_task(follow("all", EventFilter(), "0")),
            asyncio.create_task(follow("chosen", EventFilter(aggregate_id="k3"), None)),
        ]
        source = operations._source
        assert isinstance(source, GroupSource)
        inspector = source._group
        assert isinstance(inspector, GroupInspector)
        await until(lambda: sum(link.is_connected for link in inspector._followers) == 4)
        await publish_one_by_one(shared_server, namespace, 30, 30)
        await until(lambda: len(seen["new"]) == 30 and len(seen["all"]) == 60 and len(seen["chosen"]) == 3)
        await until(lambda: len(seen["behind"]) == 35)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        assert inspector._followers == set()
    assert sorted(numbers(seen["new"])) == list(range(30, 60))
    assert numbers(seen["all"])[:30] == list(range(30))
    assert numbers(seen["behind"])[:5] == list(range(25, 30))
    assert sorted(numbers(seen["behind"])) == list(range(25, 60))
    assert numbers(seen["chosen"]) == [36, 47, 58]
    for key in range(11):
        of_key = [event.payload["number"] for event in seen["all"] if event.aggregate_id == f"k{key}"]
        assert of_key == list(range(key, 60, 11))


async def test_follow_continues_when_the_server_comes_back(own_server: Server, namespace: str) -> None:
    """Otherwise an operator would have to notice that no events arrive, and start again."""
    await publish_one_by_one(own_server, namespace, 0, 1)
    seen: list[int] = []
    inspector = GroupInspector(own_server.url, namespace=namespace)
    async with Operations(GroupSource(inspector)) as operations:

        async def follow() -> None:
            async with aclosing(operations.follow()) as coming:
                async for event in coming:
                    seen.append(event.payload["number"])  # noqa: PERF401

        task = asyncio.create_task(follow())
        await until(lambda: any(link.is_connected for link in inspector._followers))
        await own_server.restart()
        await publish_one_by_one(own_server, namespace, 1, 3)
        await until(lambda: seen == [1, 2, 3])
        task.cancel()
        await asyncio.wait([task])


async def test_listing_and_following_events_change_nothing_on_the_server(
    shared_server: Server, namespace: str
) -> None:
    """Looking must not join the group, take a lease or move the log to another incarnation."""
    async with group_with_dead_letters(shared_server, namespace) as operations:
        before = await dump_namespace(shared_server, namespace)
        page = await operations.events()
        await operations.types()
        await operations.events(after=page.events[-1].cursor)
        await operations.event(page.events[0].event_id)
        await operations.trace(page.events[0].event_id)
        coming = operations.follow(after="0")
        assert len([await anext(coming) for _ in range(6)]) == 6
        waiting = asyncio.ensure_future(anext(coming))
        source = operations._source
        assert isinstance(source, GroupSource)
        inspector = source._group
        assert isinstance(inspector, GroupInspector)
        await until(lambda: any(link.is_connected for link in inspector._followers))
        assert await dump_namespace(shared_server, namespace) == before
        waiting.cancel()
        await asyncio.wait([waiting])
        await coming.aclose()


async def test_the_commands_list_show_and_follow_events_on_a_server(
    shared_server: Server, namespace: str
) -> None:
    """The commands must not be limited to the events of a file."""
    events = await publish_one_by_one(shared_server, namespace, 0, 12)
    url = url_of(shared_server, namespace)

    def calls() -> list[tuple[int, str]]:
        return [
            run_cli("events", "list", url, "--limit", "5", "--json"),
            run_cli("events", "list", url, "--limit", "5"),
            run_cli("events", "show", url, events[3].event_id),
            run_cli("events", "export", url),
            run_cli("tail", url, "--since", "1h", "--count", "12"),
        ]

    as_json, listed, shown, exported, tailed = await asyncio.to_thread(calls)
    page = msgspec.json.decode(as_json[1])
    assert (as_json[0], numbers_in_json(page["events"])) == (0, [11, 10, 9, 8, 7])
    assert (listed[0], f"older: --before {page['older']}" in listed[1]) == (0, True), listed
    assert (shown[0], '"number": 3' in shown[1]) == (0, True), shown
    assert (exported[0], exported[1].count(Moved.event_type)) == (0, 12), exported
    assert (tailed[0], tailed[1].count(Moved.event_type)) == (0, 12), tailed


def numbers_in_json(events: list[dict[str, Any]]) -> list[int]:
    return [event["payload"]["number"] for event in events]


def test_a_log_reader_examines_at_most_100000_events() -> None:
    """The documentation must state the limit that searches have."""
    assert LogReader.__init__.__kwdefaults__ == {"most": 100_000}
