"""Wait for an event anywhere in the log, or for a group to have handled all events."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial

from pabal.brokers.redis.control import HELD, PAUSED
from pabal.brokers.redis.coordinator import Coordinator
from pabal.brokers.redis.cursors import (
    NEW,
    SavedCursor,
    as_pairs,
    decode_cursor,
    decode_retry,
    entries_of,
    field,
    replays_of,
)
from pabal.brokers.redis.extent import measure_extents
from pabal.brokers.redis.group import GroupEngine, Running
from pabal.brokers.redis.keys import GroupKeys
from pabal.brokers.redis.log import RedisLog
from pabal.brokers.redis.pages import Pages
from pabal.bus.draining import is_idle
from pabal.bus.inbox import Inbox
from pabal.bus.log_watch import Found
from pabal.delivery.consumer import Consumer
from pabal.delivery.engine import Engine
from pabal.delivery.lane import Lane
from pabal.domain.envelope import Receipt, StoredRecord, decode_event
from pabal.domain.event import kind_of
from pabal.ports.storage import Replay

_PAUSE = 0.02
_LONGEST_PAUSE = 0.25
_ENTRIES = 64


class GroupSource:
    """A log on a server, for ``LogWatch``: it is asked again and again, less often while nothing comes.

    Events of different partitions are ordered only by time; of several new matches, any may be returned.
    """

    def __init__(self, log: RedisLog) -> None:
        self._log = log
        self._pause = _PAUSE
        self._asked = asyncio.Event()

    async def read(self, places: list[int]) -> Found:
        """Read some entries of each partition."""
        answers = await asyncio.gather(
            *(self._log.read_entries(part, after, _ENTRIES) for part, after in enumerate(places))
        )
        if any(answers):
            self._pause = _PAUSE
        rows = [
            (part, row)
            for part, entries in enumerate(answers)
            for entry in entries
            for row in entry.rows
            if row.position > places[part]
        ]
        reached = [entries[-1].last if entries else places[part] for part, entries in enumerate(answers)]
        return Found(rows, reached, all(len(entries) < _ENTRIES for entries in answers))

    async def wait(self, places: list[int]) -> None:
        """Pause, for longer each time nothing was found."""
        self._asked.clear()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._asked.wait(), self._pause)
        self._pause = min(_LONGEST_PAUSE, self._pause * 1.5)

    def look(self) -> None:
        """Ask the server at once, and often for a while."""
        self._pause = _PAUSE
        self._asked.set()


async def places_after(log: RedisLog, since: Receipt | None) -> list[int]:
    """Return the places in all partitions that a receipt stands for; without one, their heads."""
    places = await log.heads(range(log.partitions))
    if since is None or since.position is None:
        return places
    # In other partitions, positions do not tell which events came after the receipt; their times do.
    partition, position = log.place_of(since.position)
    entries = await log.read_entries(partition, position - 1, 1)
    if entries:  # otherwise the event was trimmed, and none followed it in its partition
        moment = entries[0].rows[0].recorded_at
        extents = await measure_extents(log.link, log.keys, range(log.partitions), moment)
        places = [extent.below for extent in extents]
    places[partition] = position
    return places


async def whole_group_drained(
    log: RedisLog,
    keys: GroupKeys,
    engine: GroupEngine,
    coordinator: Coordinator,
    inbox: Inbox,
    retries: bool,
    appended: Mapping[int, int],
) -> None:
    """Return when each subscription of this process has finished all partitions up to their present heads.

    Retried dead letters, queues of keys that are no longer blocked, and replays are waited for, too.
    ``appended`` is the last position that this process has appended in each partition: events that its
    handlers publish meanwhile are waited for, too.
    """
    pause = 0.001
    while not inbox.is_empty:
        await engine.background.wait_until(lambda: inbox.is_empty)
    parts = range(log.partitions)
    ends = await log.heads(parts)
    while engine.consumers and await coordinator.has_calls():
        engine.nudge()
        await asyncio.sleep(pause)
        pause = min(_LONGEST_PAUSE, pause * 2)

    def head(part: int) -> int:
        return max(ends[part], appended.get(part, 0))

    def is_done(running: Running) -> bool:
        if _is_running(running):
            return is_idle(running.engine, head(running.partition), retries)
        # One that is being taken or handed over is checked by its saved progress, in `_others_drained`. That
        # does not tell of handlers of a subscription that has paused or halted there.
        return not any(consumer.in_flight for consumer in running.engine.consumers.values())

    while True:
        for running in tuple(engine.running.values()):
            await _finish(running.engine, partial(is_done, running))
        heads = list(map(head, parts))
        if await _others_drained(log, keys, engine, heads, retries):
            # A handler may meanwhile have published events to a partition that was at rest before.
            if heads == list(map(head, parts)) and all(map(is_done, engine.running.values())):
                return
            continue
        await asyncio.sleep(pause)
        pause = min(_LONGEST_PAUSE, pause * 2)


def _is_running(running: Running) -> bool:
    """Return whether this process fully runs a partition; else only saved progress tells how far it is."""
    return running.is_open and running.ending is None and not running.engine.halting


async def _finish(engine: Engine, is_done: Callable[[], bool]) -> None:
    while not is_done():
        await asyncio.wait([engine.background.next_notification()], timeout=_LONGEST_PAUSE)
        if engine.feed is not None and not engine.halting:
            await engine.settlement.flush()


async def _others_drained(
    log: RedisLog, keys: GroupKeys, engine: GroupEngine, heads: Sequence[int], retries: bool
) -> bool:
    """Return whether the partitions not run here are finished up to these heads, by their saved progress.

    As in those run here, a subscription that is paused or has halted is not waited for.
    """
    owned = {partition for partition, running in engine.running.items() if _is_running(running)}
    parts = [part for part in range(len(heads)) if part not in owned]
    # Not as of the last look: a subscription that was resumed since then is to be waited for.
    controls = as_pairs(await log.link.call("HGETALL", keys.controls))
    consumers = [one for name, one in engine.consumers.items() if controls.get(name.encode()) != PAUSED]
    if not consumers:
        return True
    names = [consumer.name for consumer in consumers]
    held = [field(name, "held") for name in names]
    asked = [
        (log.link.call("HMGET", of.cursors, *names), log.link.call("HMGET", of.epochs, *held))
        for of in map(keys.of, parts)
    ]
    finished: list[tuple[Consumer, int, SavedCursor]] = []
    for part, (cursors, marks) in zip(parts, asked, strict=True):
        for consumer, data, mark in zip(consumers, await cursors, await marks, strict=True):
            if mark not in (None, HELD):
                continue
            cursor = decode_cursor(data or NEW + b"0")
            if cursor.watermark < heads[part] and (
                retries or not await _only_retries_left(log, keys, consumer, part, cursor, heads[part])
            ):
                return False
            finished.append((consumer, part, cursor))
    return all(await asyncio.gather(*(_is_at_rest(log, keys, *one, retries) for one in finished)))


async def _is_at_rest(
    log: RedisLog, keys: GroupKeys, consumer: Consumer, part: int, cursor: SavedCursor, retries: bool
) -> bool:
    """Return whether nothing that a subscription had passed in a partition is, or will be, delivered again.

    That would be a requested reset, a replay, a retried dead letter, or the queue of a key that is no longer
    blocked. Without ``retries``, what waits for a retry is left out.
    """
    of, name, call = keys.of(part), consumer.name, log.link.call
    moves, queued = call("HEXISTS", of.moves, name), call("ZLEXCOUNT", of.queue, f"[{name}\0", f"({name}\1")
    asked = [call("HGETALL", key) for key in (of.retries, of.blocking, of.replays)]
    pending, blocking, replays = [as_pairs(await one) for one in asked]
    now = consumer.engine.clock.time()
    later: set[int] = set()
    for data in entries_of(pending, name).values():
        retry = decode_retry(data)
        if not retries and retry.due_at > now:
            later.add(retry.position)
        elif retry.from_dead_letter:
            return False
    under_way = replays_of(replays, name)
    if await moves or (under_way and not _waits_for_retry(under_way[0], later, cursor)):
        return False
    if not await queued:
        return True
    held = set(entries_of(blocking, name).values())
    if later:
        held.update(await call("HMGET", of.queued, *(field(name, position) for position in later)))
    ends = [b"%b\0%b" % (name.encode(), key) for key in held - {None}]
    behind = [call("ZLEXCOUNT", of.queue, b"[%b\0" % end, b"(%b\1" % end) for end in ends]
    return sum([int(await one) for one in behind]) == int(await queued)


async def _only_retries_left(
    log: RedisLog, keys: GroupKeys, consumer: Consumer, part: int, cursor: SavedCursor, head: int
) -> bool:
    """Return whether all that is unfinished up to ``head`` waits for a retry, its own or one of its lane."""
    asked = [log.link.call("HGETALL", key) for key in (keys.of(part).retries, keys.of(part).replays)]
    stored, replays = [as_pairs(await one) for one in asked]
    now = consumer.engine.clock.time()
    retries = [decode_retry(data) for data in entries_of(stored, consumer.name).values()]
    waiting = {retry.position for retry in retries if retry.due_at > now}
    under_way = replays_of(replays, consumer.name)
    if under_way and _waits_for_retry(under_way[0], waiting, cursor):
        head = cursor.frontier  # what is above it waits for the end of the replay
    rows = await Pages(log, part, lambda first, last: None).find(cursor.positions())
    after = cursor.frontier
    lanes: set[Lane] = set()
    while True:
        for row in rows:
            lane = _lane_of(consumer, row)
            if lane is None or lane in lanes or row.position > head:
                continue
            if row.position not in waiting:
                return False
            if not lane.shared:
                lanes.add(lane)
        entries = await log.read_entries(part, after, _ENTRIES) if after < head else []
        if not entries:
            return True
        rows = [row for entry in entries for row in entry.rows if row.position > after]
        after = entries[-1].last


def _waits_for_retry(replay: Replay, waiting: set[int], cursor: SavedCursor) -> bool:
    """Return whether a replay, and so any later one, waits for a retry.

    That is so if the first position that it has not finished waits for one; what follows there is unknown.
    """
    return replay.watermark + 1 in waiting.difference(cursor.positions())


def _lane_of(consumer: Consumer, row: StoredRecord) -> Lane | None:
    """Return the lane of an event; None if it is not for this subscription, or will be parked at once."""
    try:
        event = decode_event(row)
        kind = kind_of(event)
        return consumer.lane_for(event, consumer.lanes_of(kind)) if consumer.wants(kind) else None
    except Exception:
        return None
