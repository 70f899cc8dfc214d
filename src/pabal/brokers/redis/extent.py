"""The extent of partitions: which positions were assigned, and which are still stored.

When the server may have forgotten events, positions jump (see ``join.lua``); those in between are never
assigned.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from pabal.brokers.redis.cursors import as_pairs
from pabal.brokers.redis.keys import LogKeys
from pabal.brokers.redis.link import Link
from pabal.brokers.redis.scripts import script


class Extent(NamedTuple):
    """The extent of one partition. ``first`` is the first position still stored, or 0 if there is none."""

    head: int
    first: int
    since: int | None
    """The position below the first event at or after the requested time; None if there is no such event."""
    gaps: tuple[tuple[int, int], ...]
    """Ranges of positions, both ends included, that were never assigned; an incarnation begins above each."""
    floor: int = 0
    """The position up to which events were trimmed, because every group had finished them."""

    def count_assigned(self, after: int, upto: int) -> int:
        """Return how many positions were assigned above ``after`` and up to ``upto``.

        >>> Extent(110, 1, None, ((11, 100),)).count_assigned(8, 110)
        12
        """
        if upto <= after:
            return 0
        missing = 0
        for first, last in self.gaps:
            missing += max(0, min(last, upto) - max(first, after + 1) + 1)
        return upto - after - missing

    def skip_trimmed(self, position: int) -> int:
        """Return a position, moved up to the last trimmed one if lower: no event up to there is delivered.

        >>> Extent(110, 61, None, ()).skip_trimmed(8), Extent(110, 0, None, ()).skip_trimmed(8)
        (60, 110)
        """
        return max(position, self.first - 1 if self.first else self.head)

    @property
    def below(self) -> int:
        """Return the highest position recorded before the requested time."""
        return self.head if self.since is None else self.since


async def measure_extents(
    link: Link, keys: LogKeys, partitions: Iterable[int], since: int | None = None
) -> list[Extent]:
    """Return the extents of partitions, with the place of a time (microseconds since 1970) in each."""
    names = [name for part in partitions for name in (keys.log(part), keys.part(part))]
    answer = await link.run(script("extent"), tuple(names), "" if since is None else str(since))
    return [
        extent_of(as_pairs(facts), int(first), below)
        for facts, first, below in zip(answer[::3], answer[1::3], answer[2::3], strict=True)
    ]


def extent_of(facts: Mapping[bytes, bytes], first: int = 0, since: bytes = b"") -> Extent:
    """Return an extent from a partition's hash, its first stored position, and a ``since``."""
    gaps = sorted(
        (int(before) + 1, int(name[5:])) for name, before in facts.items() if name.startswith(b"jump:")
    )
    head, floor = (int(facts.get(name, 0)) for name in (b"head", b"floor"))
    return Extent(head, first, int(since) if since else None, tuple(gaps), floor)
