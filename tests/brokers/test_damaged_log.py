"""Reading a log on a server in which entries are damaged."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping

import pytest

from pabal.brokers.redis.keys import LogKeys
from pabal.brokers.redis.link import Link
from pabal.errors import CorruptLogError
from pabal.factory import open_operations
from pabal.ports.operations import EventFilter, EventView
from tests.brokers.events import Moved
from tests.brokers.server import Server
from tests.brokers.support import make_bus, run_cli, url_of
from tests.cli.english import english_in

Change = Callable[[bytes], bytes]


def flip(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


async def rewrite(server: Server, namespace: str, partition: int, changes: Mapping[bytes, Change]) -> None:
    """Change the contents of entries of a partition, given by their ids, as no bus would."""
    link = Link(server.url, loads_scripts=False)
    await link.open()
    key = LogKeys(namespace).log(partition)
    entries = await link.call("XRANGE", key, "-", "+")
    await link.call("DEL", key)
    for entry_id, fields in entries:
        changed = [*fields[:3], changes.get(entry_id, bytes)(fields[3])]
        await link.call("XADD", key, entry_id, *changed)
    await link.close()
    assert changes.keys() <= {entry_id for entry_id, _ in entries}


async def make_log(server: Server, namespace: str) -> list[EventView]:
    """Publish 40 events in two partitions, most of them one by one; return them as they are read."""
    async with make_bus(server, namespace, partitions=2) as bus:
        for number in range(30):
            await bus.publish(Moved(f"k{number % 11}", number))
        await bus.publish_batch([Moved(f"k{number % 11}", number) for number in range(30, 40)])
    async with open_operations(url_of(server, namespace)) as operations:
        return [event async for event in operations.read()]


async def make_damaged_log(server: Server, namespace: str) -> tuple[list[EventView], list[EventView]]:
    """Damage the first entry of partition 0, two in a row in partition 1, and the last ones; return the rest.

    The first list holds the events that are intact, the second one those that are damaged.
    """
    whole = await make_log(server, namespace)
    damaged: list[EventView] = []
    for partition, chosen in ((0, {1}), (1, {3, 4})):
        events = [event for event in whole if event.cursor.startswith(f"{partition}:")]
        batch = [event for event in events if event.payload["number"] >= 30]
        ids = [b"%d-1" % position for position in chosen]
        ids.append(b"%d-%d" % (len(events), len(batch)))
        await rewrite(server, namespace, partition, dict.fromkeys(ids, flip))
        damaged += [event for number, event in enumerate(events, 1) if number in chosen] + batch
    return [event for event in whole if event not in damaged], damaged


async def test_read_passes_over_damaged_entries_and_names_each_damaged_event(
    shared_server: Server, namespace: str
) -> None:
    """One damaged entry would keep back every event of the log, although all others are intact."""
    intact, damaged = await make_damaged_log(shared_server, namespace)
    found: list[CorruptLogError] = []
    async with open_operations(url_of(shared_server, namespace)) as operations:
        assert [event async for event in operations.read(on_damage=found.append)] == intact
        named = [f"{error.path.rpartition(':')[2]}:{error.position}" for error in found]
        assert sorted(named) == sorted(event.cursor for event in damaged)
        assert found[0].path == f"{shared_server.url} {{{namespace}}}:log:0"
        with pytest.raises(CorruptLogError, match="checksum mismatch"):
            [event async for event in operations.read()]
        after = intact[-1].cursor
        found.clear()
        assert [event async for event in operations.read(after=after, on_damage=found.append)] == []
        assert len(found) == 10


async def test_read_reports_no_damage_behind_its_limit(shared_server: Server, namespace: str) -> None:
    """An export of the intact beginning of a log would end as if something were missing in it."""
    intact, _ = await make_damaged_log(shared_server, namespace)
    found: list[CorruptLogError] = []
    async with open_operations(url_of(shared_server, namespace)) as operations:
        limited = operations.read(limit=20, on_damage=found.append)
        assert [event async for event in limited] == intact[:20]
    assert len(found) == 3


async def test_read_passes_over_entries_of_another_client(shared_server: Server, namespace: str) -> None:
    """An entry made by hand, with a time of its own, would hide all events of its partition."""
    whole = await make_log(shared_server, namespace)
    link = Link(shared_server.url, loads_scripts=False)
    await link.open()
    keys = LogKeys(namespace)
    head = int(await link.call("HGET", keys.part(0), "head"))
    await link.call("XADD", keys.log(0), f"{head + 1}-9999999", "t", "1", "e", "by hand")
    await link.call("HINCRBY", keys.part(0), "head", 1)
    await link.call("XADD", keys.log(0), f"{10**15}-{10**15}", "t", "soon")  # beyond the end of the log
    await link.close()
    found: list[CorruptLogError] = []
    async with open_operations(url_of(shared_server, namespace)) as operations:
        assert [event async for event in operations.read(on_damage=found.append)] == whole
    assert [error.position for error in found] == [head + 1]


async def test_read_finds_a_chain_whose_first_event_is_damaged(shared_server: Server, namespace: str) -> None:
    """The effects of a damaged event could not be exported."""
    whole = await make_log(shared_server, namespace)
    first = next(event for event in whole if event.cursor == "0:1")
    await rewrite(shared_server, namespace, 0, {b"1-1": flip})
    found: list[CorruptLogError] = []
    wanted = EventFilter(correlation_id=first.event_id)
    async with open_operations(url_of(shared_server, namespace)) as operations:
        assert [event async for event in operations.read(wanted, on_damage=found.append)] == []
    assert [error.position for error in found] == [1]


async def test_a_list_shows_intact_events_before_it_reaches_a_damaged_one(
    shared_server: Server, namespace: str
) -> None:
    """An operator could look at none of the newest events, because an older one is damaged."""
    whole = await make_log(shared_server, namespace)
    await rewrite(shared_server, namespace, 0, {b"1-1": flip})
    position = whole.index(next(event for event in whole if event.cursor == "0:1"))
    behind = len(whole) - position - 1
    async with open_operations(url_of(shared_server, namespace)) as operations:
        shown = (await operations.events(limit=behind - 1, payloads=True)).events
        assert [event.event_id for event in shown] == [event.event_id for event in whole[: position + 1 : -1]]
        with pytest.raises(CorruptLogError):
            await operations.events(limit=behind + 1)


@pytest.mark.parametrize("form", ["json", "cloudevents"])
async def test_an_export_reports_damaged_events_and_goes_on_behind_them_on_a_server(
    shared_server: Server, namespace: str, form: str
) -> None:
    """A backup made by export would end at the first damaged entry."""
    intact, damaged = await make_damaged_log(shared_server, namespace)
    command = ("events", "export", url_of(shared_server, namespace), "--format", form)
    code, output = await asyncio.to_thread(run_cli, *command)
    events = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    assert code == 3
    assert len(events) == len(intact)
    assert f"{len(damaged)} damaged events left out" in output
    assert len(damaged) == sum("is damaged at position" in line for line in output.splitlines())
    _, output = await asyncio.to_thread(run_cli, *command, lang="ko")
    assert english_in("\n".join(line for line in output.splitlines() if not line.startswith("{"))) == []
