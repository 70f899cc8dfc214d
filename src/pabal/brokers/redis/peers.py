"""Notice that other processes of a group do not handle a subscription that this process has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from pabal.brokers.redis.keys import GroupKeys
from pabal.brokers.redis.link import Link
from pabal.brokers.redis.membership import View
from pabal.domain.counting import counted


class Peers:
    """Find partitions whose owner lacks a subscription: its events wait there, which nothing else shows.

    It takes two looks in a row: after one, the owner may just be taking the partition.
    """

    def __init__(self, link: Link, keys: GroupKeys, member: str) -> None:
        self._link = link
        self._keys = keys
        self._member = member
        self._suspected: set[tuple[str, int, str]] = set()
        self._missing: set[tuple[str, int, str]] = set()

    async def check(self, names: Iterable[str], view: View) -> None:
        """Check which of these names other living processes hold in their partitions. Raises BrokerError."""
        theirs = [
            (partition, lease.owner, self._link.call("HKEYS", self._keys.of(partition).epochs))
            for partition, lease in enumerate(view.leases)
            if lease.owner != self._member and lease.owner in view.living
        ]
        marks = {name: f"{name}\0held".encode() for name in names}
        missing: set[tuple[str, int, str]] = set()
        for partition, owner, call in theirs:
            held = set(await call)
            missing.update((name, partition, owner) for name, mark in marks.items() if mark not in held)
        self._missing = missing & self._suspected
        self._suspected = missing

    def remarks(self) -> list[str]:
        """Return a sentence for each subscription that waits in some partition."""
        return [
            f"subscription {name!r} makes no progress in "
            + counted(count, "partition whose process does not", "partitions whose processes do not")
            + " have it; all processes of a group need the same subscriptions"
            for name, count in sorted(Counter(name for name, _, _ in self._missing).items())
        ]
