"""Cursors, retries and queues of an in-memory storage."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import count

import msgspec

from pabal.delivery.dead_letters import MemoryDeadLetters
from pabal.domain.envelope import StoredRecord, to_microseconds
from pabal.errors import SubscriptionInUseError, SubscriptionNotFoundError, UsageError
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
    """Hold what a storage remembers of one durable name."""

    def __init__(self, number: int, watermark: int) -> None:
        self.number = number
        self.watermark = self.frontier = watermark
        self.unfinished: tuple[int, ...] = ()
        self.retries: dict[int, PendingRetry] = {}
        self.queued: dict[str, set[int]] = {}
        self.epoch = 0
        self.held = False
        self.paused = False
        self.halted = ""
        self.move: Move | None = None
        self.reopenings = 0
        self.replays: dict[int, Replay] = {}
        self.created_at = self.updated_at = datetime.now(UTC)

    def forget_called_off(self) -> None:
        """Forget retries that are left over from replays which were cancelled."""
        alive = {*self.unfinished, *(p for positions in self.queued.values() for p in positions)}
        for position, retry in list(self.retries.items()):
            replayed = any(r.watermark < position <= r.last for r in self.replays.values())
            if (
                position <= self.frontier
                and position not in alive
                and not (replayed or retry.from_dead_letter)
            ):
                del self.retries[position]

    def clear(self, position: int) -> None:
        """Forget the retry and the place in a queue of a position."""
        self.retries.pop(position, None)
        for positions in self.queued.values():
            positions.discard(position)


class MemorySubscriptions:
    """Keep every durable name of a storage; ``rows`` is its log, ``letters`` its dead letters."""

    def __init__(self, rows: list[StoredRecord], letters: MemoryDeadLetters) -> None:
        self._rows = rows
        self._letters = letters
        self._by_name: dict[str, MemorySubscription] = {}
        self._numbers = count(1)
        self._replay_ids = count(1)
        self._recovered: deque[tuple[str, RecoveredDelivery]] = deque(maxlen=RECOVERIES_KEPT)

    def of(self, name: str) -> MemorySubscription:
        """Return what is known of a name that was opened once."""
        return self._by_name[name]

    def queue_of(self, name: str, key: str) -> list[int]:
        """Return what queues behind a key, ascending; nothing for a name that was forgotten."""
        known = self._by_name.get(name)
        return [] if known is None else sorted(known.queued.get(key, ()))

    def add_retry(self, name: str, retry: PendingRetry) -> None:
        """Note that a dead letter is to be delivered again; for a forgotten name nobody will."""
        if name in self._by_name:
            self._by_name[name].retries[retry.position] = retry

    def drop_retry(self, name: str, position: int) -> None:
        """Forget that a delivery is to be made again."""
        if name in self._by_name:
            self._by_name[name].retries.pop(position, None)

    def take(self, name: str, start: Start, epoch: int | None = None) -> Cursor | None:
        """Hold a subscription, new if need be; None while it is held in another epoch."""
        known = self._by_name.get(name)
        if known is None:
            known = self._by_name[name] = MemorySubscription(next(self._numbers), self._start_position(start))
        if known.held and known.epoch != epoch:
            return None
        known.held = True
        known.halted = ""
        if known.move is not None:
            self._move(name, known, self._start_position(known.move.start))
        known.epoch += 1
        known.forget_called_off()
        waiting = {key for key, positions in known.queued.items() if positions}
        blocked = waiting | self._letters.blocking_keys(name)
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
        if start == "now":
            return head
        if start == "beginning":
            return 0
        if isinstance(start, datetime):
            since = to_microseconds(start)
            return next((row.position - 1 for row in self._rows if row.recorded_at >= since), head)
        return max(0, min(int(start), head))

    def release(self, name: str, epoch: int) -> None:
        """Hold a subscription no longer, unless somebody else does by now."""
        known = self._by_name.get(name)
        if known is not None and known.epoch == epoch:
            known.held = False
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
                # One that is parked again may have been edited, which the log does not know.
                earlier = self._letters.find(change.name, parked.position)
                record = earlier.record if earlier is not None else self._rows[parked.position - 1]
                parked = msgspec.structs.replace(parked, record=record, event=None)
            self._letters.park(change.name, parked)
            known.clear(parked.position)
        for retry in change.retries:
            known.retries[retry.position] = retry
        for key, position in change.queued:
            known.queued.setdefault(key, set()).add(position)
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
        """Write down why a subscription has halted; False if ``epoch`` is over."""
        known = self._by_name.get(name)
        if known is None or not known.held or known.epoch != epoch:
            return False
        known.halted = reason
        return True

    def resume(self, name: str) -> bool:
        """Let a paused or halted subscription go on; False if it is neither."""
        known = self._known(name)
        stood = known.paused or bool(known.halted)
        known.paused, known.halted = False, ""
        return stood

    def reset(self, name: str, start: Start, epoch: int | None) -> int:
        """Move a cursor, unless somebody else than the holder of ``epoch`` handles it."""
        known = self._known(name)
        if known.held and known.epoch != epoch:
            raise SubscriptionInUseError(name=name)
        position = self._start_position(start)
        self._move(name, known, position)
        return position

    def request_reset(self, name: str, start: Start) -> int | None:
        """Move a cursor, or have its holder do it; return its position, None where it is only asked for."""
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
        known.queued.clear()
        known.replays.clear()
        known.move = None
        known.updated_at = datetime.now(UTC)
        self._letters.settle(name, position)

    def request_replay(self, name: str, first: int, last: int) -> Replay:
        """Note that a range is to be delivered again."""
        known = self._known(name)
        first, last = max(1, first), min(last, known.frontier)
        if first > last:
            raise UsageError(
                f"positions {first} to {last} hold nothing to replay: "
                f"{name!r} has come as far as {known.frontier}, and what follows is delivered anyway"
            )
        replay = Replay(next(self._replay_ids), name, first, last, first - 1)
        known.replays[replay.id] = replay
        return replay

    def cancel_replays(self, name: str) -> int:
        """Forget every replay of a subscription; return how many there were."""
        known = self._known(name)
        cancelled = len(known.replays)
        known.replays.clear()
        return cancelled

    def forget(self, name: str) -> bool:
        """Remove a subscription that nobody handles; its dead letters stay."""
        known = self._by_name.get(name)
        if known is not None and known.held:
            raise SubscriptionInUseError(name=name)
        kept = [(owner, one) for owner, one in self._recovered if owner != name]
        self._recovered = deque(kept, RECOVERIES_KEPT)
        return self._by_name.pop(name, None) is not None

    def request_reopening(self, name: str) -> bool:
        """Ask the holder of a subscription to take it up anew; False if the name is unknown."""
        known = self._by_name.get(name)
        if known is None:
            return False
        known.reopenings += 1
        return True

    def controls(self, names: Sequence[str]) -> list[Control]:
        """Return what is asked of subscriptions."""
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

    # -- looking --------------------------------------------------------------------------------------

    def list_records(self) -> list[SubscriptionRecord]:
        """Return every durable subscription."""
        return [self._record(name, known) for name, known in sorted(self._by_name.items())]

    def _record(self, name: str, known: MemorySubscription) -> SubscriptionRecord:
        queued = sum(map(len, known.queued.values()))
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
        """Return what is known of a position at every durable name."""
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
        if any(position in positions for positions in known.queued.values()):
            return DeliveryRecord(name, "queued")
        return DeliveryRecord(name, state_of(position, known.frontier, known.unfinished))

    def unfinished_positions(self) -> set[int] | None:
        """Return every position that some subscription has not finished; None without any subscription."""
        if not self._by_name:
            return None
        positions: set[int] = set()
        for known in self._by_name.values():
            positions.update(known.unfinished, known.retries)
            positions.update(*known.queued.values())
            positions.update(range(known.frontier + 1, len(self._rows) + 1))
        return positions
