"""One partition as the storage of a delivery engine: events, cursors, retries, dead letters."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from pabal.brokers.redis import cursors
from pabal.brokers.redis.control import HELD
from pabal.brokers.redis.controlled_partition import ControlledPartition
from pabal.brokers.redis.cursors import as_pairs, encode_cursor, encode_letter, encode_retry
from pabal.brokers.redis.dead_letters import GroupDeadLetters
from pabal.brokers.redis.declaring import create_cursors
from pabal.brokers.redis.group_control import move
from pabal.brokers.redis.keys import GroupKeys
from pabal.brokers.redis.log import RedisLog
from pabal.brokers.redis.pages import Lost
from pabal.brokers.redis.schedule import Schedule
from pabal.brokers.redis.scripts import script
from pabal.brokers.redis.subscription_reading import read_subscriptions
from pabal.delivery.bookkeeping import Unsaved
from pabal.delivery.consumer import HALTED, Consumer
from pabal.delivery.settlement import progress_of
from pabal.domain.envelope import (
    StoredRecord,
    encode_event,
    to_microseconds,
)
from pabal.domain.event import DomainEvent
from pabal.errors import BrokerUnavailableError, StorageClosedError
from pabal.ports.storage import (
    AttemptJournal,
    Capabilities,
    Cursor,
    DeadLetterGroup,
    DeadLetterRecord,
    ParkedDelivery,
    PendingRetry,
    Progress,
    Start,
    SubscriptionRecord,
)

GONE = "\0gone"
"""The answer of the script ``save``, in place of names, if the server has forgotten the lease."""

_SAVE_PAUSE = 0.025
"""Seconds between two saves of a partition's progress."""


class PartitionStorage(ControlledPartition):
    """An event storage on one partition of a log, for one group and one owner (a process of the group).

    The partition's lease is taken with the first subscription, unless the owner holds it already. If
    ``gives_up`` is set, it is released with the last one. Renewing it is the job of ``membership``.
    """

    capabilities = Capabilities(persistent=True, shared=False, versioned=False, searchable=False)
    """Not ``versioned``: a broker carries events, while an event store checks versions. Not ``inspectable``:
    operators inspect a whole group from outside, and the server, which keeps everything in memory, does not
    store the failed attempts of deliveries that succeeded later.
    """
    journal: AttemptJournal | None = None

    def __init__(
        self,
        log: RedisLog,
        keys: GroupKeys,
        partition: int,
        owner: str,
        *,
        group: str,
        gives_up: bool = False,
        on_lost: Lost | None = None,
    ) -> None:
        super().__init__(log, keys, partition, on_lost=on_lost)
        self._owner = owner
        self._group = group
        self._gives_up = gives_up
        self._letters = GroupDeadLetters(log, keys, partition)
        self._schedule = Schedule(log, partition)
        self._save_at = 0.0
        self._held: dict[str, int] = {}
        """The epoch of each subscription that a bus of this object holds, by name; 0 while it is opening."""

    # -- subscriptions --------------------------------------------------------------------------------

    def open_subscription(
        self, name: str, start: Start, *, epoch: int | None = None
    ) -> Awaitable[Cursor | None]:
        """Take a subscription; None if another process has the partition, or a bus of this object holds it.

        With its own ``epoch``, the holder takes it again, and nobody can forget it in between.
        """
        if self._held.get(name, epoch) != epoch:
            taken: asyncio.Future[Cursor | None] = asyncio.get_running_loop().create_future()
            taken.set_result(None)
            return taken
        self._held[name] = 0
        return self.log.hold_appends_for(self._open(name, start))

    async def _open(self, name: str, start: Start) -> Cursor | None:
        epoch = 0
        try:
            place = await self.place(start)
            while True:
                number = await self._declare(name, place)
                opened = await self._take(name)
                if opened is None or opened[0]:
                    break  # otherwise the subscription was forgotten in between: declare it again
            if opened is not None and opened[-1]:
                # A reset was requested, and no other process can be handling the subscription: carry it out.
                await move(await self._resolve_group(), self.partition, name, epoch=opened[0])
                opened = await self._take(name)
            if opened is None:
                return None
            epoch = opened[0]
            cursor = await self._without_cancelled_replays(cursors.opened_cursor(name, number, opened))
            self._held[name] = epoch
            return cursor
        finally:
            if not epoch:
                self._held.pop(name, None)

    async def _take(self, name: str) -> Any:
        keys = self._keys
        return await self.log.link.run(
            script("open"),
            (
                keys.lease,
                keys.epochs,
                keys.cursors,
                keys.retries,
                keys.queue,
                keys.blocking,
                self._group_keys.controls,
                keys.moves,
                keys.replays,
            ),
            self._owner,
            name,
        )

    async def restore(self, epoch: int, consumers: Sequence[Consumer]) -> bool:
        """Write again the state that the server has forgotten; False if another process has the partition."""
        keys = self._keys
        arguments: list[Any] = [self._owner, epoch, self._group]
        held = [consumer for consumer in consumers if consumer.tracker is not None]
        for consumer in held:
            saved = progress_of(consumer, Unsaved(), last=False)
            cursor = encode_cursor(saved.watermark, saved.frontier, saved.unfinished)
            mark = consumer.reason if consumer.state == HALTED else HELD
            arguments += (consumer.name, consumer.number, consumer.epoch, mark, cursor, saved.watermark)
            retries = retries_of(consumer)
            arguments.append(len(retries))
            for retry in retries:
                arguments += (cursors.field(consumer.name, retry.position), encode_retry(retry))
        numbers = await self.log.link.run(
            script("restore"),
            (
                keys.lease,
                keys.epochs,
                keys.cursors,
                keys.retries,
                self.log.keys.marks(self.partition),
                self._group_keys.names,
            ),
            *arguments,
        )
        if numbers is None:
            return False
        for consumer, number in zip(held, numbers, strict=True):
            consumer.number = int(number)  # with another number it would count as removed and added again
        return True

    async def _declare(self, name: str, place: int | str) -> int:
        return await create_cursors(self.log, self._group_keys, name, {self.partition: place})

    async def renew_leases(self) -> list[str]:
        """Return an empty list: leases depend on the heartbeats of the whole process."""
        return []

    async def release_subscription(self, name: str, epoch: int) -> None:
        """Release a subscription, so that another process can take it at once."""
        if self._closed:
            return
        if self._held.get(name) == epoch:
            del self._held[name]
        what = "all" if self._gives_up and not self._held else "one"
        await self.log.link.run(
            script("release"), (self._keys.lease, self._keys.epochs), self._owner, name, epoch, what
        )

    def abandon(self) -> None:
        """Save nothing from now on: another process has the partition."""
        self._closed = True
        self._held.clear()

    async def give_up(self) -> None:
        """Release the partition and all subscriptions held in it."""
        self._held.clear()
        await self.log.link.run(
            script("release"), (self._keys.lease, self._keys.epochs), self._owner, "", 0, "all"
        )

    async def save_progress(self, changes: Sequence[Progress]) -> list[str]:
        """Save progress in one step; return the names of subscriptions whose epoch is over."""
        if self._closed:
            raise StorageClosedError(path=self.path, reason="another process has the partition")
        # Wait a little between saves: events that arrive one by one would each cost a call.
        early = self._save_at - time.monotonic()
        if early > 0:
            await asyncio.sleep(early)
        self._save_at = time.monotonic() + _SAVE_PAUSE
        operations: list[Any] = []
        for change in changes:
            operations += await self._operations(change)
        group, keys = self._group_keys, self._keys
        lost = await self.log.link.run(
            script("save"),
            (
                keys.lease,
                keys.epochs,
                keys.cursors,
                keys.retries,
                keys.queued,
                keys.queue,
                keys.blocking,
                self.log.keys.marks(self.partition),
                self.log.keys.held(self.partition),
                group.letters,
                group.letter_rows,
                group.letter_states,
                group.letter_index,
                group.letter_ids,
                group.letter_counter,
                keys.replays,
            ),
            self._owner,
            self._group,
            self.partition,
            *operations,
        )
        names = [name.decode() for name in lost]
        if names == [GONE]:
            raise BrokerUnavailableError(path=self.path, reason="the server no longer has the group")
        for change in changes:
            if change.name in names and self._held.get(change.name) == change.epoch:
                del self._held[change.name]
        return names

    async def _operations(self, change: Progress) -> list[Any]:
        saved = encode_cursor(change.watermark, change.frontier, change.unfinished)
        operations: list[Any] = ["C", change.name, change.epoch, saved, change.watermark]
        for position in change.cleared:
            operations += ("X", position)
        asked = [parked.position for parked in change.parked if parked.record is None]
        rows = {row.position: row for row in await self.pages.find(asked)}
        for parked in change.parked:
            row = _row_of(parked, rows.get(parked.position))
            letter = encode_letter(change.name, self.partition, parked)
            blocked = cursors.queue_key(parked.key or "") if parked.blocks else ""
            operations += ("P", parked.position, letter, row, blocked)
        for retry in change.retries:
            operations += ("R", retry.position, encode_retry(retry))
        for key, position in change.queued:
            operations += ("Q", position, cursors.queue_key(key))
        for number, watermark in change.replayed:
            operations += ("A", number, watermark)
        return operations

    async def list_subscriptions(self) -> list[SubscriptionRecord]:
        """Return every durable subscription of the group as it stands in this partition."""
        [records] = await read_subscriptions(self.log.link, self._group_keys, [self.partition])
        return records

    async def queued_positions(self, name: str, key: str, limit: int) -> list[int]:
        """Return the first ``limit`` positions that queue behind a parked event of ``key``."""
        prefix = f"{name}\0{cursors.queue_key(key)}"
        found = await self.log.link.call(
            "ZRANGEBYLEX", self._keys.queue, f"[{prefix}\0", f"({prefix}\1", "LIMIT", 0, limit
        )
        return [int(member[-16:]) for member in found]

    async def blocked_keys(self, name: str) -> set[str]:
        """Return the keys that dead letters of a subscription block."""
        blocking = as_pairs(await self.log.link.call("HGETALL", self._keys.blocking))
        return {cursors.key_of_queue(key.decode()) for key in cursors.entries_of(blocking, name).values()}

    # -- dead letters and schedules -------------------------------------------------------------------

    async def list_dead_letters(self, **filters: Any) -> list[DeadLetterRecord]:
        """Return dead letters of this partition by ascending id."""
        return await self._letters.list_dead_letters(**filters)

    async def count_dead_letters(self) -> int:
        """Return how many dead letters this partition has, those of forgotten subscriptions included."""
        return await self._letters.count()

    async def group_dead_letters(self) -> list[DeadLetterGroup]:
        """Count dead letters by subscription and type of their last error, largest group first."""
        return await self._letters.group_dead_letters()

    async def get_dead_letter(self, dead_letter_id: int) -> DeadLetterRecord:
        """Return one dead letter. Raises DeadLetterNotFoundError."""
        return await self._letters.get_dead_letter(dead_letter_id)

    async def find_dead_letters(self, dead_letter_ids: Sequence[int]) -> list[DeadLetterRecord]:
        """Return those of some dead letters of this partition that there are, in this order."""
        return await self._letters.find_dead_letters(dead_letter_ids)

    async def delete_calls(self, dead_letter_ids: Iterable[int]) -> None:
        """Delete the calls to retry some dead letters, except for those that are to be retried by now."""
        keys = (self._keys.calls, self._group_keys.letter_states)
        await self.log.link.run(script("answered"), keys, *dead_letter_ids)

    async def begin_retry(
        self, dead_letter_id: int, payload: bytes | None, now: float
    ) -> DeadLetterRecord | None:
        """Mark a dead letter as being retried, and return it; None if it is being retried already."""
        return await self._letters.begin_retry(dead_letter_id, payload, now)

    async def discard_dead_letter(self, dead_letter_id: int) -> DeadLetterRecord:
        """Delete a dead letter and return it. Raises DeadLetterNotFoundError."""
        return await self._letters.discard_dead_letter(dead_letter_id)

    async def schedule_event(self, event: DomainEvent, due_at: float) -> None:
        """Store an event that enters the partition at ``due_at`` (seconds since 1970)."""
        await self._schedule.add(event, due_at)

    async def release_due(self, now: float) -> float | None:
        """Append all scheduled events that are due; return when the next one is due, or None."""
        return await self._schedule.release(now)

    # -- life -----------------------------------------------------------------------------------------

    def open(self) -> None:
        """Accept appends again after ``aclose()``."""
        self._closed = False

    async def aclose(self) -> None:
        """Refuse further appends; the log itself stays open, and its opener closes it."""
        self._closed = True


def retries_of(consumer: Consumer) -> list[PendingRetry]:
    """Return all pending retries of a consumer."""
    clock = consumer.engine.clock
    return [
        PendingRetry(
            position,
            failing.attempts,
            clock.time() + max(0.0, failing.due - clock.monotonic()),
            failing.failures,
            failing.from_dead_letter,
        )
        for position, failing in consumer.failing.items()
    ]


def _row_of(parked: ParkedDelivery, in_log: StoredRecord | None) -> bytes:
    """Return the encoded row of a parked event: as given, from the log, or encoded from the event."""
    record = parked.record or in_log
    if record is None and parked.event is not None:
        # The server has lost the row, but this process still has the event.
        encoded = encode_event(parked.event, 1 << 30)
        record = StoredRecord(parked.position, *encoded, None, to_microseconds(datetime.now(UTC)))
    return b"" if record is None else cursors.encode_row(record)
