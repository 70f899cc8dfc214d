"""Resets and replays of a group's subscriptions: requested for all partitions, carried out in each.

A subscription has a cursor in each partition, which only the partition's owner moves. So a reset is stored as
a position for each partition. Each owner carries it out once the subscription's handlers have ended, by
taking the subscription again. In partitions where nobody handles it, its cursor is moved at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from pabal.brokers.redis.control import Group, StoredControls, unknown
from pabal.brokers.redis.cursors import decode_cursor
from pabal.brokers.redis.extent import Extent, measure_extents
from pabal.brokers.redis.keys import LogKeys
from pabal.brokers.redis.link import Link
from pabal.brokers.redis.replays import Range, ask_for_replay
from pabal.brokers.redis.scripts import script
from pabal.domain.envelope import to_microseconds
from pabal.errors import UsageError
from pabal.ports.arguments import checked_start
from pabal.ports.storage import Replay, Start

EVERYTHING = 2**63 - 1
"""A position above all others: a range up to it ends where the subscription stands."""


class GroupControl(StoredControls):
    """Reset subscriptions and request replays, in all partitions of a group."""

    async def reset_subscription(self, name: str, start: Start, *, epoch: int | None = None) -> int:
        """Move a subscription in every partition; return its new position, counted over all of them.

        Owners of partitions obey within moments, once the subscription's handlers have ended. Raises
        UsageError for a position if the log has several partitions.
        """
        group = await self._resolve_group()
        _check(group, name, start)
        found = await measure(group, start if isinstance(start, datetime) else None)
        keys: list[str] = [group.keys.names, group.keys.controls]
        for part in range(group.partitions):
            of = group.keys.of(part)
            keys += (of.moves, group.log.held(part), group.log.part(part), of.replays, of.epochs)
        places = [_place(start, extent) for extent in found]
        asked = await group.link.run(script("reset"), tuple(keys), group.keys.group, name, *places)
        if asked is None:
            raise await unknown(group, name)
        await asyncio.gather(*(move(group, part, name) for part in range(group.partitions)))
        return sum(extent.count_assigned(0, int(place)) for extent, place in zip(found, asked, strict=True))

    async def request_replay(self, name: str, first: int | datetime, last: int | datetime | None) -> Replay:
        """Request that a subscription's finished events are delivered again: all, or those between two times.

        Times apply to every partition; ``first`` is included, ``last`` is not. Events no longer on the server
        are left out. Positions of the replay are counted over all partitions. Raises UsageError for an empty
        range, and for positions if the log has several partitions.
        """
        group = await self._resolve_group()
        if group.partitions > 1 and _says_nothing(first, last):
            raise UsageError(
                f"positions have no meaning in a log of {group.partitions} partitions, because "
                f"each has its own positions; replay everything to {name!r}, or a range of time"
            )
        saved = [
            await one
            for one in [
                group.link.call("HGET", group.keys.of(part).cursors, name) for part in range(group.partitions)
            ]
        ]
        found = await measure(group, first if isinstance(first, datetime) else None)
        ends = await measure(group, last) if isinstance(last, datetime) else found
        ranges: dict[int, Range] = {}
        before = count = 0
        for part, (cursor, extent, end) in enumerate(zip(saved, found, ends, strict=True)):
            frontier = 0 if cursor is None else decode_cursor(cursor).frontier
            low, high = _range(first, last, extent, end, frontier)
            before += extent.count_assigned(0, low - 1)
            if low <= high:
                ranges[part] = (low, high)
                count += extent.count_assigned(low - 1, high)
        if not ranges and any(saved):
            raise UsageError(
                f"there is nothing to replay: the range has no event that {name!r} has finished "
                f"and the server still keeps"
            )
        number = await ask_for_replay(group, name, ranges)
        return Replay(number, name, before + 1, before + count, before)

    async def is_moving(self, name: str) -> bool:
        """Return whether a requested reset is still to be carried out in any partition."""
        group = await self._resolve_group()
        calls = [
            group.link.call("HEXISTS", group.keys.of(part).moves, name) for part in range(group.partitions)
        ]
        return any([await one for one in calls])


async def measure(group: Group, since: datetime | None = None) -> list[Extent]:
    """Return the extent of each partition, with the place of a time in it."""
    moment = None if since is None else to_microseconds(since)
    return await measure_extents(group.link, group.log, range(group.partitions), moment)


async def places_of(
    link: Link, keys: LogKeys, partitions: Sequence[int], start: Start
) -> Sequence[int | str]:
    """Return the position after which a new subscription begins in each partition, or "now"."""
    if not isinstance(start, int):
        start = checked_start(start)
    if isinstance(start, datetime):
        return [one.below for one in await measure_extents(link, keys, partitions, to_microseconds(start))]
    return [0 if start == "beginning" else start] * len(partitions)


async def move(group: Group, part: int, name: str, place: int | str = "", epoch: int | str = "") -> Any:
    """Move a subscription in one partition, to a position or ("") as requested.

    Returns the new position, an empty value if no move is requested, or -1 if it is held in another epoch.
    """
    log, keys, of = group.log, group.keys, group.keys.of(part)
    return await group.link.run(
        script("move"),
        (
            of.lease,
            of.epochs,
            of.cursors,
            of.retries,
            of.queued,
            of.queue,
            of.blocking,
            log.marks(part),
            log.held(part),
            keys.letters,
            keys.letter_rows,
            keys.letter_states,
            keys.letter_index,
            keys.letter_ids,
            of.moves,
            log.log(part),
            log.part(part),
            of.replays,
        ),
        keys.group,
        part,
        name,
        place,
        epoch,
    )


def _check(group: Group, name: str, start: Start) -> None:
    if isinstance(start, int) and start > 0 and group.partitions > 1:
        raise UsageError(
            f"a position has no meaning in a log of {group.partitions} partitions, because each "
            f"has its own positions; move {name!r} to the beginning, to now or to a time"
        )


def _says_nothing(first: int | datetime, last: int | datetime | None) -> bool:
    """Return whether one of two bounds is a position other than the start or end of the log."""
    return (isinstance(first, int) and first > 1) or (isinstance(last, int) and last < EVERYTHING)


def _range(
    first: int | datetime, last: int | datetime | None, extent: Extent, end: Extent, frontier: int
) -> Range:
    """Return the part of a partition between two bounds that is still stored and finished; may be empty."""
    low, high = extent.first or extent.head + 1, frontier
    if isinstance(first, datetime):
        low = max(low, extent.head + 1 if extent.since is None else extent.since + 1)
    else:
        low = max(low, first)
    if isinstance(last, datetime):
        high = min(high, end.below)
    elif last is not None:
        high = min(high, last)
    return low, high


def _place(start: Start, extent: Extent) -> int | str:
    if start == "now":
        return "now"
    if isinstance(start, datetime):
        return "now" if extent.since is None else extent.since
    return 0 if start == "beginning" else int(start)
