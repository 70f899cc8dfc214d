"""Control requests to the subscriptions of one partition, as its delivery engine sees and obeys them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from pabal.brokers.redis.control import HELD, ControlListeners, Group, StoredControls, unknown
from pabal.brokers.redis.cursors import decode_cursor, field, replays_of
from pabal.brokers.redis.group_control import move, places_of
from pabal.brokers.redis.keys import GroupKeys
from pabal.brokers.redis.log import RedisLog
from pabal.brokers.redis.pages import Lost
from pabal.brokers.redis.partition_log import PartitionLog
from pabal.brokers.redis.replays import ask_for_replay, read_replays
from pabal.brokers.redis.scripts import script
from pabal.errors import SubscriptionInUseError, UsageError
from pabal.ports.storage import Control, Cursor, Replay, Start


class ControlledPartition(PartitionLog, StoredControls):
    """Control subscriptions in one partition, where they are handled; positions are the partition's."""

    def __init__(
        self, log: RedisLog, keys: GroupKeys, partition: int, *, on_lost: Lost | None = None
    ) -> None:
        super().__init__(log, keys, partition, on_lost=on_lost)
        self.control_listeners = ControlListeners()

    async def _resolve_group(self) -> Group:
        return Group(self.log.link, self.log.keys, self._group_keys, self.log.partitions)

    def _notify_controls(self) -> None:
        self.control_listeners.notify()

    def add_control_listener(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call ``listener`` after a control request, made here or by another process; return its remover."""
        return self.control_listeners.add(listener)

    async def read_controls(self, names: Sequence[str]) -> list[Control]:
        """Return the state requested for each of these subscriptions; unknown names are left out."""
        controls = await super().read_controls(names)
        stored = await read_replays(await self._resolve_group(), self.partition)
        if not controls:
            return []
        held = [field(control.name, "held") for control in controls]
        marks = await self.log.link.call("HMGET", self._keys.epochs, *held)
        return [
            msgspec.structs.replace(control, replays=replays_of(stored, control.name), halted=mark != HELD)
            for control, mark in zip(controls, marks, strict=True)
        ]

    # -- halts ----------------------------------------------------------------------------------------

    async def note_halt(self, name: str, epoch: int, reason: str) -> bool:
        """Record why a subscription has halted here, in place of the mark that it is held.

        If a reset was requested meanwhile, the mark stays, because the reset ends the halt.
        """
        keys = (self._keys.epochs, self._keys.moves)
        return bool(await self.log.link.run(script("halt"), keys, name, epoch, reason))

    async def request_reopening(self, name: str) -> None:
        """Do nothing: the holder learns of retries and discards from the calls that it looks for."""

    # -- places ---------------------------------------------------------------------------------------

    async def place(self, start: Start) -> int | str:
        """Return the position after which a new subscription begins in this partition."""
        return (await places_of(self.log.link, self.log.keys, [self.partition], start))[0]

    async def reset_subscription(self, name: str, start: Start, *, epoch: int | None = None) -> int:
        """Move the cursor in this partition only. Raises SubscriptionInUseError if another epoch holds it."""
        group = await self._resolve_group()
        if not await group.link.call("HEXISTS", group.keys.names, name):
            raise await unknown(group, name)
        place = await move(group, self.partition, name, await self.place(start), epoch or "")
        if place == -1:
            raise SubscriptionInUseError(name=name)
        self._notify_controls()
        return int(place)

    # -- replays --------------------------------------------------------------------------------------

    async def request_replay(self, name: str, first: int, last: int) -> Replay:
        """Request that a range of this partition is delivered again. Raises UsageError if it is empty."""
        group = await self._resolve_group()
        saved = await group.link.call("HGET", self._keys.cursors, name)
        if saved is None:
            raise await unknown(group, name)
        frontier = decode_cursor(saved).frontier
        first, last = max(1, first), min(last, frontier)
        if first > last:
            raise UsageError(
                f"positions {first} to {last} hold nothing to replay: "
                f"{name!r} has reached position {frontier}, and later events are delivered anyway"
            )
        number = await ask_for_replay(group, name, {self.partition: (first, last)})
        self._notify_controls()
        return Replay(number, name, first, last, first - 1)

    async def parked_positions(self, name: str, after: int, upto: int) -> list[int]:
        """Return the positions in (after, upto] of its dead letters, and of what queues behind them."""
        own = field(name, "").encode()
        found: set[int] = set()
        for key, prefix in (
            (self._group_keys.letter_index, b"%d\0%s" % (self.partition, own)),
            (self._keys.queued, own),
        ):
            fields = await self.log.link.call("HKEYS", key)
            found.update(int(at[len(prefix) :]) for at in fields if at.startswith(prefix))
        return sorted(position for position in found if after < position <= upto)

    async def _without_cancelled_replays(self, cursor: Cursor) -> Cursor:
        """Delete retries left over from cancelled replays, which nothing delivers any more."""
        left = [
            retry.position
            for retry in cursor.retries
            if retry.position <= cursor.frontier
            and not retry.from_dead_letter
            and retry.position not in cursor.unfinished
            and not any(one.watermark < retry.position <= one.last for one in cursor.replays)
        ]
        if not left:
            return cursor
        fields = [field(cursor.name, position) for position in left]
        queued = await self.log.link.call("HMGET", self._keys.queued, *fields)
        over = {position for position, key in zip(left, queued, strict=True) if key is None}
        for position in over:
            await self.log.link.call("HDEL", self._keys.retries, field(cursor.name, position))
        kept = tuple(retry for retry in cursor.retries if retry.position not in over)
        return msgspec.structs.replace(cursor, retries=kept)
