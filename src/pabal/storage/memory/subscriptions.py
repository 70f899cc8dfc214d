"""Cursors, retries and queues of the in-memory storage."""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import count

import msgspec

from pabal.delivery.dead_letters import MemoryDeadLetters
from pabal.domain.envelope import StoredRecord, to_microseconds
from pabal.errors import SubscriptionInUseError, SubscriptionNotFoundError, UsageError
from pabal.ports.arguments import checked_start
from pabal.ports.inspection import DeliveryRecord, state_of, with_recoveries
from pabal.ports.records import Move
from pabal.ports.storage import (
    RECOVERIES_KEPT,
    Control,
    Cursor,
    PendingRetry,
    Progress,
    RecoveredDelivery,
    Replay,
    Start,
    SubscriptionRecord,
)


class MemorySubscription:
    """The stored state of one durable subscription."""

    def __init__(self, number: int, watermark: int) -> None:
        self.number = number
        self.watermark = self.frontier = watermark
        self.unfinished: tuple[int, ...] = ()
        self.retries: dict[int, PendingRetry] = {}
        self.queued: dict[str, set[int]] = {}
        """The positions that queue behind each parked key; no key without any."""
        self.key_of: dict[int, str] = {}
        """The key behind which each of these positions queues."""
        self.epoch = 0
        self.holder: asyncio.AbstractEventLoop | None = None
        """The event loop of the bus that holds it."""
        self.paused = False
        self.halted = ""
        self.move: Move | None = None
        self.reopenings = 0
        self.replays: dict[int, Replay] = {}
        self.created_at = self.updated_at = datetime.now(UTC)

    @property
    def held(self) -> bool:
        """Return whether a bus holds it; one whose loop was closed before it was stopped does so no more."""
        return self.holder is not None and not self.holder.is_closed()

    def drop_cancelled_replays(self) -> None:
        """Delete retries left over from cancelled replays, which nothing delivers any more."""
        alive = {*self.unfinished, *self.key_of}
        for position, retry in list(self.retries.items()):
            replayed = any(r.watermark < position <= r.last for r in self.replays.values())
            if (
                position <= self.frontier
                and position not in alive
                and not (replayed or retry.from_dead_letter)
            ):
                del self.retries[position]

    def clear(self, position: int) -> None:
        """Delete a position's retry, and remove it from the queues behind parked keys."""
        self.retries.pop(position, None)
        key = self.key_of.pop(position, None)
        if key is not None:
            self.queued[key].discard(position)
            if not self.queued[key]:
                del self.queued[key]

    def queue(self, key: str, position: int) -> None:
        """Add a position to the queue behind a parked key."""
        self.queued.setdefault(key, set()).add(position)
        self.key_of[position] = key

    def clear_queues(self) -> None:
        """Empty all queues."""
        self.queued.clear()
        self.key_of.clear()


class MemorySubscriptions:
    """All durable subscriptions of a storage; ``rows`` is its log, ``letters`` its dead letters."""

    def __init__(self, rows: list[StoredRecord], letters: MemoryDeadLetters) -> None:
        self._rows = rows
        self._letters = letters
        self._by_name: dict[str, MemorySubscription] = {}
        self._numbers = count(1)
        self._replay_ids = count(1)
        self._recovered: deque[tuple[str, RecoveredDelivery]] = deque(maxlen=RECOVERIES_KEPT)

    def of(self, name: str) -> MemorySubscription:
        """Return the state of a subscription that exists."""
        return self._by_name[name]

    def queue_of(self, name: str, key: str) -> list[int]:
        """Return the positions that queue behind a parked key, ascending; none for an unknown name."""
        known = self._by_name.get(name)
        return [] if known is None else sorted(known.queued.get(key, ()))

    def queued_positions_of(self, name: str) -> list[int]:
        """Return the positions that queue behind any parked key; none for an unknown name."""
        known = self._by_name.get(name)
        return [] if known is None else list(known.key_of)

    def add_retry(self, name: str, retry: PendingRetry) -> None:
        """Store the retry of a dead letter, unless the subscription was deleted."""
        if name in self._by_name:
            self._by_name[name].retries[retry.position] = retry

    def drop_retry(self, name: str, position: int) -> None:
        """Delete a retry, if there is one."""
        if name in self._by_name:
            self._by_name[name].retries.pop(position, None)

    def take(self, name: str, start: Start, epoch: int | None = None) -> Cursor | None:
        """Take a subscription, created if new; None while it is held in another epoch."""
        known = self._by_name.get(name)
        if known is None:
            known = self._by_name[name] = MemorySubscription(next(self._numbers), self._start_position(start))
            # Of a deleted subscription of this name, dead letters that are delivered again go, as after a
            # reset, and the others block no key of the new one.
            self._letters.settle(name, known.frontier)
        if known.held and known.epoch != epoch:
            return None
        known.holder = asyncio.get_running_loop()
        known.halted = ""
        if known.move is not None:
            self._move(name, known, self._start_position(known.move.start))
        known.epoch += 1
        known.drop_cancelled_replays()
        blocked = known.queued.keys() | self._letters.blocking_keys(name)
        return Cursor(
            name,
            known.number,
            known.epoch,
            known.watermark,
            known.frontier,
            known.unfinished,
            tuple(known.retries[position] for position in sorted(known.retries)),
            tuple(sorted(blocked)),
            known.paused,
            tuple(known.replays.values()),
            known.reopenings,
        )

    def _start_position(self, start: Start) -> int:
        head = len(self._rows)
        if isinstance(start, int):
            return max(0, min(start, head))
        start = checked_start(start)
        if isinstance(start, datetime):
            since = to_microseconds(start)
            return next((row.position - 1 for row in self._rows if row.recorded_at >= since), head)
        return head if start == "now" else 0

    def release(self, name: str, epoch: int) -> None:
        """Release a subscription, unless it has since been taken in another epoch."""
        known = self._by_name.get(name)
        if known is not None and known.epoch == epoch:
            known.holder = None
            known.halted = ""

    def save(self, change: Progress) -> bool:
        """Save progress; False if its epoch is over."""
        known = self._by_name.get(change.name)
        if known is None or known.epoch != change.epoch or not known.held:
            return False
        known.watermark, known.frontier = change.watermark, change.frontier
        known.unfinished = change.unfinished
        known.updated_at = datetime.now(UTC)
        for position in change.cleared:
            known.clear(position)
            self._letters.finish_retry(change.name, position)
        self._recovered.extend((change.name, one) for one in change.recovered)
        for parked in change.parked:
            if parked.record is None and 0 < parked.position <= len(self._rows):
                # Keep the record of a dead letter that is parked again: its payload may have been edited.
                earlier = self._letters.find(change.name, parked.position)
                record = earlier.record if earlier is not None else self._rows[parked.position - 1]
                parked = msgspec.structs.replace(parked, record=record, event=None)
            self._letters.park(change.name, parked)
            known.clear(parked.position)
        for retry in change.retries:
            known.retries[retry.position] = retry
        for key, position in change.queued:
            known.queue(key, position)
        for identity, upto in change.replayed:
            replay = known.replays.pop(identity, None)
            if replay is not None and upto < replay.last:
                known.replays[identity] = msgspec.structs.replace(replay, watermark=upto)
                known.replays = dict(sorted(known.replays.items()))
        return True

    # -- control --------------------------------------------------------------------------------------

    def _known(self, name: str) -> MemorySubscription:
        if name not in self._by_name:
            raise SubscriptionNotFoundError(name=name, known=", ".join(sorted(self._by_name)) or "none")
        return self._by_name[name]

    def pause(self, name: str) -> bool:
        """Pause a subscription; False if it is paused already."""
        known = self._known(name)
        paused, known.paused = known.paused, True
        return not paused

    def note_halt(self, name: str, epoch: int, reason: str) -> bool:
        """Record why a subscription has halted; False if ``epoch`` is over."""
        known = self._by_name.get(name)
        if known is None or not known.held or known.epoch != epoch:
            return False
        known.halted = reason
        return True

    def resume(self, name: str) -> bool:
        """Continue a paused or halted subscription; False if it is neither."""
        known = self._known(name)
        stood = known.paused or bool(known.halted)
        known.paused, known.halted = False, ""
        return stood

    def reset(self, name: str, start: Start, epoch: int | None) -> int:
        """Move a cursor and return its position. Raises SubscriptionInUseError if held in another epoch."""
        known = self._known(name)
        if known.held and known.epoch != epoch:
            raise SubscriptionInUseError(name=name)
        position = self._start_position(start)
        self._move(name, known, position)
        return position

    def request_reset(self, name: str, start: Start) -> int | None:
        """Move a cursor and return its position; if it is held, ask the holder to move it and return None."""
        known = self._known(name)
        if not known.held:
            return self.reset(name, start, None)
        known.move = Move(None if start == "now" else self._start_position(start))
        known.reopenings += 1
        return None

    def _move(self, name: str, known: MemorySubscription, position: int) -> None:
        known.watermark = known.frontier = position
        known.unfinished = ()
        known.retries.clear()
        known.clear_queues()
        known.replays.clear()
        known.move = None
        known.updated_at = datetime.now(UTC)
        self._letters.settle(name, position)

    def request_replay(self, name: str, first: int, last: int) -> Replay:
        """Store a request to deliver positions ``first`` to ``last`` again. Raises UsageError if empty."""
        known = self._known(name)
        first, last = max(1, first), min(last, known.frontier)
        if first > last:
            raise UsageError(
                f"positions {first} to {last} hold nothing to replay: "
                f"{name!r} has reached position {known.frontier}, and later events are delivered anyway"
            )
        replay = Replay(next(self._replay_ids), name, first, last, first - 1)
        known.replays[replay.id] = replay
        return replay

    def cancel_replays(self, name: str) -> int:
        """Delete all replays of a subscription; return how many there were."""
        known = self._known(name)
        cancelled = len(known.replays)
        known.replays.clear()
        return cancelled

    def forget(self, name: str) -> bool:
        """Delete a subscription; its dead letters stay. Raises SubscriptionInUseError if it is held."""
        known = self._by_name.get(name)
        if known is not None and known.held:
            raise SubscriptionInUseError(name=name)
        kept = [(owner, one) for owner, one in self._recovered if owner != name]
        self._recovered = deque(kept, RECOVERIES_KEPT)
        self._letters.settle(name, sys.maxsize)
        return self._by_name.pop(name, None) is not None

    def request_reopening(self, name: str) -> bool:
        """Ask the holder of a subscription to take it again; False if the name is unknown."""
        known = self._by_name.get(name)
        if known is None:
            return False
        known.reopenings += 1
        return True

    def controls(self, names: Sequence[str]) -> list[Control]:
        """Return the state requested for each of these subscriptions; unknown names are left out."""
        found = [(name, self._by_name.get(name)) for name in names]
        return [
            Control(
                name,
                known.paused,
                tuple(known.replays.values()),
                known.reopenings,
                known.move,
                bool(known.halted),
            )
            for name, known in found
            if known is not None
        ]

    # -- queries --------------------------------------------------------------------------------------

    def list_records(self) -> list[SubscriptionRecord]:
        """Return every durable subscription with its progress and counts, by name."""
        return [self._record(name, known) for name, known in sorted(self._by_name.items())]

    def _record(self, name: str, known: MemorySubscription) -> SubscriptionRecord:
        queued = len(known.key_of)
        return SubscriptionRecord(
            name=name,
            watermark=known.watermark,
            frontier=known.frontier,
            unfinished=len(known.unfinished) + queued,
            retries=len(known.retries),
            parked=self._letters.count_of(name),
            queued=queued,
            owner="this object" if known.held else None,
            epoch=known.epoch,
            updated_at=known.updated_at,
            paused=known.paused,
            replays=tuple(known.replays.values()),
            created_at=known.created_at,
            halted=known.halted,
        )

    def count_retries(self) -> int:
        """Return how many deliveries wait for a retry."""
        return sum(len(known.retries) for known in self._by_name.values())

    def deliveries_at(self, position: int) -> list[DeliveryRecord]:
        """Return the state of one event at every durable subscription, ordered by subscription name."""
        recovered = [(name, one) for name, one in self._recovered if one.position == position]
        return [
            with_recoveries(
                self._delivery(name, known, position), [one for owner, one in recovered if owner == name]
            )
            for name, known in sorted(self._by_name.items())
        ]

    def _delivery(self, name: str, known: MemorySubscription, position: int) -> DeliveryRecord:
        letter = self._letters.find(name, position)
        retry = known.retries.get(position)
        if letter is not None:
            due_at = retry.due_at if retry is not None and letter.state == "retrying" else None
            failures = letter.failures
            return DeliveryRecord(name, letter.state, len(failures), due_at, failures, letter.id)
        if retry is not None:
            return DeliveryRecord(name, "retrying", retry.attempts, retry.due_at, retry.failures)
        if position in known.key_of:
            return DeliveryRecord(name, "queued")
        return DeliveryRecord(name, state_of(position, known.frontier, known.unfinished))

    def unfinished_positions(self) -> set[int] | None:
        """Return all positions that some subscription has not finished; None if there is no subscription."""
        if not self._by_name:
            return None
        positions: set[int] = set()
        for known in self._by_name.values():
            positions.update(known.unfinished, known.retries, known.key_of)
            positions.update(range(known.frontier + 1, len(self._rows) + 1))
        return positions
