"""Replays of a group: each request has a separate range in every partition."""

from __future__ import annotations

from collections.abc import Mapping

from pabal.brokers.redis.control import Group, replay_keys, unknown
from pabal.brokers.redis.cursors import as_pairs
from pabal.brokers.redis.scripts import script

Range = tuple[int, int]


async def read_replays(group: Group, part: int) -> Mapping[bytes, bytes]:
    """Return all replays of a partition as they are stored."""
    return as_pairs(await group.link.call("HGETALL", group.keys.of(part).replays))


async def ask_for_replay(group: Group, name: str, ranges: Mapping[int, Range]) -> int:
    """Request a replay of a range in some partitions; return its number. Raises SubscriptionNotFoundError."""
    arguments: list[int | str] = []
    for part in range(group.partitions):
        arguments += ranges.get(part, ("", ""))
    keys = replay_keys(group)
    number = await group.link.run(script("replay"), keys, group.keys.group, name, *arguments)
    if number < 0:
        raise await unknown(group, name)
    return int(number)
