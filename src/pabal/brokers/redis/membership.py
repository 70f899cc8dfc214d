"""Membership: which processes of a group are alive, and which of them owns which partition.

Each process decides this alone, from a state on the server that all can see. At every look it increments its
own number there, its *heartbeat*. A process whose number has not changed for the length of the lease,
measured on the clock of the process that looks, is dead. So clocks of different machines are never compared,
and a clock that jumps, here or on the server, changes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

from pabal.brokers.redis.cursors import as_pairs
from pabal.brokers.redis.keys import GroupKeys
from pabal.brokers.redis.log import RedisLog
from pabal.brokers.redis.scripts import script


class Lease(NamedTuple):
    """The lease of a partition: its owner ('' for none), and its epoch.

    An epoch of None means that nobody ever had the partition, or that the server has forgotten it.
    """

    owner: str
    epoch: int | None


class View(NamedTuple):
    """The result of one look at the group."""

    same_log: bool
    next_due: float | None
    dead_letters: int
    living: tuple[str, ...]
    dead: tuple[str, ...]
    leases: tuple[Lease, ...]
    called: tuple[int, ...] = ()
    """Partitions with dead letters that were retried or discarded, for their owners to act on."""
    control_version: int = 0
    """The number of control requests made to the group's subscriptions so far."""


class Plan(NamedTuple):
    """What a process has to do about partitions after a look."""

    lost: tuple[int, ...] = ()
    """Own partitions that another process has taken."""
    forgotten: tuple[int, ...] = ()
    """Own partitions whose lease the server has forgotten."""
    take: tuple[tuple[int, str], ...] = ()
    """Free partitions to take, with the dead owner of each ('' for none)."""
    give: tuple[int, ...] = ()
    """Own partitions to hand over, because this process has more than its share."""


def make_plan(member: str, view: View, mine: set[int]) -> Plan:
    """Decide what to do so that partitions are shared evenly; a pure function of the view.

    >>> free, taken = Lease("", 1), Lease("b", 1)
    >>> view = View(True, None, 0, ("a", "b"), (), (free, free, taken, taken))
    >>> make_plan("a", view, set()).take
    ((0, ''), (1, ''))
    """
    lost: list[int] = []
    forgotten: list[int] = []
    own: list[tuple[int, str]] = []
    free: list[tuple[int, str]] = []
    living = sorted({*view.living, member})
    for partition, lease in enumerate(view.leases):
        if partition in mine:
            if lease.epoch is None:
                forgotten.append(partition)
            elif lease.owner != member:
                lost.append(partition)
        elif lease.owner == member:
            # It was let go because heartbeats were overdue, or could not be handed over. Nobody else can take
            # it from a living process, so take it even above the share; the next look hands it over.
            own.append((partition, member))
        elif lease.owner == "" or lease.owner not in living:
            free.append((partition, lease.owner))
    rank = living.index(member)
    share, over = divmod(len(view.leases), len(living))
    quota = share + (rank < over)
    kept = len(mine) - len(lost)
    start = rank * len(free) // len(living)
    wanted = (free[start:] + free[:start])[: max(0, quota - kept - len(own))]
    surplus = sorted(mine.difference(lost), reverse=True)[: max(0, kept - quota)]
    return Plan(tuple(lost), tuple(forgotten), tuple(sorted(own + wanted)), tuple(surplus))


class Membership:
    """Send heartbeats for one process, observe those of others, and take partitions."""

    def __init__(self, log: RedisLog, keys: GroupKeys, member: str, lease: float) -> None:
        self._log = log
        self._keys = keys
        self.member = member
        self._lease = lease
        self._beats: dict[str, tuple[int, float]] = {}
        self.living: tuple[str, ...] = ()

    async def read_view(self) -> View:
        """Send a heartbeat and return the state of the group. Raises BrokerError."""
        keys: tuple[str, ...] = (
            self._keys.members,
            self._log.keys.meta,
            self._log.keys.schedule,
            self._keys.letter_ids,
            self._keys.controls,
            self._log.keys.groups,
        )
        for partition in range(self._log.partitions):
            keys += (self._keys.of(partition).lease, self._keys.of(partition).calls)
        same, due, letters, members, leases, control_version = await self._log.link.run(
            script("survey"), keys, self.member, self._log.token, self._keys.group
        )
        living, dead = self._judge({name.decode(): int(beat) for name, beat in as_pairs(members).items()})
        self.living = living
        return View(
            bool(same),
            float(due) if due else None,
            letters,
            living,
            dead,
            tuple(
                Lease(owner.decode(), int(epoch) if epoch else None)
                for owner, epoch in zip(leases[::3], leases[1::3], strict=True)
            ),
            tuple(partition for partition, calls in enumerate(leases[2::3]) if calls),
            int(control_version),
        )

    async def send_heartbeat(self) -> None:
        """Send a heartbeat without a look. Raises BrokerError."""
        await self._log.link.run(script("heartbeat"), (self._keys.members,), self.member)

    def _judge(self, members: dict[str, int]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        now = time.monotonic()
        beats: dict[str, tuple[int, float]] = {}
        for name, beat in members.items():
            earlier = self._beats.get(name)
            beats[name] = earlier if earlier is not None and earlier[0] == beat else (beat, now)
        self._beats = beats
        living = tuple(
            name
            for name, (_, seen_at) in sorted(beats.items())
            if name == self.member or now - seen_at <= self._lease
        )
        return living, tuple(name for name in beats if name not in living)

    async def take(self, partition: int, taken_from: str, retries: Sequence[str | bytes] = ()) -> int:
        """Take a partition and write retries into it; return its epoch, or 0 if another was quicker."""
        keys = self._keys.of(partition)
        return int(
            await self._log.link.run(
                script("take"),
                (keys.lease, keys.epochs, self._keys.members, keys.retries),
                self.member,
                taken_from,
                *retries,
            )
        )

    async def remove_member(self, member: str) -> None:
        """Remove a dead process that owns no partition any more from the group."""
        await self._log.link.call("HDEL", self._keys.members, member)

    async def leave(self) -> None:
        """Remove this process from the group."""
        await self._log.link.call("HDEL", self._keys.members, self.member)
