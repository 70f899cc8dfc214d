"""How far a log and its readers have come, counted over all partitions and without what was never given."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from pabal.brokers.redis.cursors import as_pairs
from pabal.brokers.redis.keys import LogKeys
from pabal.brokers.redis.link import Link
from pabal.brokers.redis.scripts import script


class Extent(NamedTuple):
    """Hold how far one partition has come. ``first`` is 0 where nothing lies there any more."""

    head: int
    first: int
    since: int | None
    """The position below the first event of the time that was asked for; None if there is none."""
    gaps: tuple[tuple[int, int], ...]
    """Positions, from and to, that were never given: an incarnation of the log begins above them."""
    floor: int = 0
    """Up to here events were trimmed, as every group had finished them."""

    def given(self, after: int, upto: int) -> int:
        """Return how many positions were given above ``after`` and up to ``upto``.

        >>> Extent(110, 1, None, ((11, 100),)).given(8, 110)
        12
        """
        if upto <= after:
            return 0
        missing = 0
        for first, last in self.gaps:
            missing += max(0, min(last, upto) - max(first, after + 1) + 1)
        return upto - after - missing

    def passed(self, position: int) -> int:
        """Return a position, or where what is still there begins: below it, nothing comes to anybody.

        >>> Extent(110, 61, None, ()).passed(8), Extent(110, 0, None, ()).passed(8)
        (60, 110)
        """
        return max(position, self.first - 1 if self.first else self.head)

    @property
    def below(self) -> int:
        """Return the highest position that entered before the time that was asked for."""
        return self.head if self.since is None else self.since


async def measured(
    link: Link, keys: LogKeys, partitions: Iterable[int], since: int | None = None
) -> list[Extent]:
    """Return how far partitions have come, and where a time (microseconds) lies in each."""
    names = [name for part in partitions for name in (keys.log(part), keys.part(part))]
    answer = await link.run(script("extent"), tuple(names), "" if since is None else str(since))
    return [
        extent_of(as_pairs(facts), int(first), below)
        for facts, first, below in zip(answer[::3], answer[1::3], answer[2::3], strict=True)
    ]


def extent_of(facts: Mapping[bytes, bytes], first: int = 0, since: bytes = b"") -> Extent:
    """Return what a partition's hash says, and what more is known of its entries."""
    gaps = sorted(
        (int(before) + 1, int(name[5:])) for name, before in facts.items() if name.startswith(b"jump:")
    )
    head, floor = (int(facts.get(name, 0)) for name in (b"head", b"floor"))
    return Extent(head, first, int(since) if since else None, tuple(gaps), floor)
