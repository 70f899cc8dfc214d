"""Control requests to a group's subscriptions: stored on the server, seen by every process of the group."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

from pabal.brokers.redis.cursors import as_pairs
from pabal.brokers.redis.keys import GroupKeys, LogKeys
from pabal.brokers.redis.link import Link
from pabal.brokers.redis.log import RedisLog
from pabal.brokers.redis.scripts import script
from pabal.domain.envelope import StoredRecord
from pabal.errors import SubscriptionInUseError, SubscriptionNotFoundError, UsageError
from pabal.ports.storage import Control

_VERSION = b"\0version"
"""The field that counts the control requests to the group."""
PAUSED = b"1"
"""The value of a subscription's field while it is paused."""
HELD = b"1"
"""The mark that a subscription is held in a partition; if it has halted, the reason takes its place."""


class Group(NamedTuple):
    """How to reach a group: the connection, the keys, and the number of partitions."""

    link: Link
    log: LogKeys
    keys: GroupKeys
    partitions: int


class StoredControls:
    """Pause, resume and forget subscriptions, and cancel replays; refuse queries that need an index."""

    async def _resolve_group(self) -> Group:
        """Return how to reach the group, with an open connection."""
        raise NotImplementedError

    async def pause_subscription(self, name: str) -> bool:
        """Stop deliveries to a subscription in all partitions; False if it is paused already."""
        return await self._set_paused(name, True)

    async def resume_subscription(self, name: str) -> bool:
        """Continue a subscription that is paused, or has halted in any partition; False if it is neither."""
        return await self._set_paused(name, False)

    async def _set_paused(self, name: str, paused: bool) -> bool:
        group = await self._resolve_group()
        epochs = (group.keys.of(part).epochs for part in range(group.partitions))
        keys = (group.keys.names, group.keys.controls, *epochs)
        changed = await group.link.run(script("pause"), keys, name, int(paused))
        if changed < 0:
            raise await unknown(group, name)
        if changed:
            self._notify_controls()
        return bool(changed)

    async def read_controls(self, names: Sequence[str]) -> list[Control]:
        """Return the state requested for each of these subscriptions; unknown names are left out."""
        if not names:
            return []
        link, _, keys, _ = await self._resolve_group()
        fields = [field for name in names for field in (name, f"{name}\0moves")]
        known, asked = link.call("HMGET", keys.names, *names), link.call("HMGET", keys.controls, *fields)
        numbers, values = await known, await asked
        return [
            Control(name, paused == PAUSED, (), int(moves or 0))
            for name, number, paused, moves in zip(names, numbers, values[::2], values[1::2], strict=True)
            if number is not None
        ]

    def poll_controls(self) -> bool:
        """Return False: the coordinator tells of control requests, so there is nothing to poll."""
        return False

    async def cancel_replays(self, name: str) -> int:
        """Cancel the undelivered rest of a subscription's replays; return how many replays it had."""
        group = await self._resolve_group()
        keys = replay_keys(group)
        count = await group.link.run(script("cancel"), keys, group.keys.group, name)
        if count < 0:
            raise await unknown(group, name)
        if count:
            self._notify_controls()
        return int(count)

    async def forget_subscription(self, name: str) -> bool:
        """Delete a subscription from every partition; False if unknown. Its dead letters stay.

        Raises SubscriptionInUseError while a process holds it in any partition.
        """
        group = await self._resolve_group()
        of_group = group.keys
        keys = [of_group.names, of_group.controls, of_group.letter_states, of_group.letter_index]
        for part in range(group.partitions):
            of = group.keys.of(part)
            keys += (of.lease, of.epochs, of.cursors, of.retries, of.queued, of.queue, of.moves, of.replays)
            keys += (group.log.marks(part), group.log.held(part), of.blocking)
        gone = await group.link.run(script("forget"), tuple(keys), group.keys.group, name)
        if gone < 0:
            raise SubscriptionInUseError(name=name)
        return bool(gone)

    def _notify_controls(self) -> None:
        """Do nothing: processes notice a request at their next look."""

    async def find_events(self, wanted: Any, **where: Any) -> list[StoredRecord]:
        """Raise UsageError: the log on the server has no index to search."""
        _refuse("search the log", "keep a local storage and feed the bus with relay(storage, bus)")

    async def list_event_types(self) -> list[str]:
        """Raise UsageError: the log on the server has no index of types."""
        _refuse("list event types", "keep a local storage and feed the bus with relay(storage, bus)")


class ControlListeners:
    """Tell listeners in this process about control requests."""

    def __init__(self) -> None:
        self._listeners: list[Callable[[], None]] = []

    def add(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Add a listener; return a function that removes it."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def notify(self) -> None:
        """Call all listeners."""
        for listener in tuple(self._listeners):
            listener()


class ControlWatch:
    """Notice control requests to the group, and write them again if the server has forgotten them.

    Every request increases one number (the version), which each look of a process returns anyway.
    """

    def __init__(self, log: RedisLog, keys: GroupKeys) -> None:
        self._log = log
        self._key = keys.controls
        self._seen = 0
        self._known: Mapping[bytes, bytes] = {}

    @property
    def paused(self) -> frozenset[str]:
        """Return the names of paused subscriptions, as of the last look."""
        return frozenset(
            name.decode() for name, value in self._known.items() if value == PAUSED and b"\0" not in name
        )

    async def refresh(self, version: int) -> bool:
        """Return whether there are new requests since the last look; ``version`` is the server's."""
        if version == self._seen:
            return False
        link = self._log.link
        if version < self._seen:
            facts = [part for pair in self._known.items() for part in pair]
            await link.run(script("recall"), (self._key,), self._seen, *facts)
        known = as_pairs(await link.call("HGETALL", self._key))
        self._seen = int(known.pop(_VERSION, 0))
        self._known = known
        return True


def replay_keys(group: Group) -> tuple[str, ...]:
    """Return the keys that requesting or cancelling a replay uses."""
    keys: list[str] = [group.keys.names, group.keys.controls]
    for part in range(group.partitions):
        keys += (group.keys.of(part).replays, group.log.held(part))
    return tuple(keys)


async def unknown(group: Group, name: str) -> SubscriptionNotFoundError:
    """Return the error for an unknown subscription; it lists the known ones."""
    names = await group.link.call("HKEYS", group.keys.names)
    known = sorted(one.decode() for one in names if not one.startswith(b"\0"))
    return SubscriptionNotFoundError(name=name, known=", ".join(known) or "none")


def _refuse(what: str, instead: str) -> NoReturn:
    raise UsageError(f"cannot {what} on a log on Redis; {instead}")
