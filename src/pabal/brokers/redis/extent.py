"""How far a log and its readers have come, counted over all partitions and without what was never given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pabal.brokers.redis.cursors import as_pairs


class Extent(NamedTuple):
    """Hold how far one partition has come. ``first`` is 0 where nothing lies there any more."""

    head: int
    first: int
    since: int | None
    """The position below the first event of the time that was asked for; None if there is none."""
    gaps: tuple[tuple[int, int], ...]
    """Positions, from and to, that were never given: an incarnation of the log begins above them."""

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


def extents(answer: Sequence[Any]) -> list[Extent]:
    """Return what the script ``extent`` has answered."""
    return [
        _extent(as_pairs(facts), int(first), since)
        for facts, first, since in zip(answer[::3], answer[1::3], answer[2::3], strict=True)
    ]


def _extent(facts: Mapping[bytes, bytes], first: int, since: bytes) -> Extent:
    gaps = sorted(
        (int(before) + 1, int(name[5:])) for name, before in facts.items() if name.startswith(b"jump:")
    )
    return Extent(int(facts.get(b"head", 0)), first, int(since) if since else None, tuple(gaps))
