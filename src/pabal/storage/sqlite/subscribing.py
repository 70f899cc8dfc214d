"""The storage's methods for subscriptions, dead letters and scheduled events."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from pabal.domain.envelope import encode_event
from pabal.domain.event import DomainEvent
from pabal.ports.arguments import check_bounds, check_time
from pabal.ports.storage import (
    Control,
    Cursor,
    DeadLetterGroup,
    DeadLetterRecord,
    Progress,
    Replay,
    Start,
    SubscriptionRecord,
)
from pabal.storage.sqlite import control, cursors, dead_letters, schedule
from pabal.storage.sqlite.file import DatabaseFile
from pabal.storage.sqlite.statements import numbered, statements
from pabal.storage.sqlite.transaction import Transaction

T = TypeVar("T")


class SubscriptionCalls(DatabaseFile):
    """Methods that buses and operators call about subscriptions; a part of ``SqliteEventStorage``."""

    # -- subscriptions --------------------------------------------------------------------------------

    def open_subscription(
        self, name: str, start: Start, *, epoch: int | None = None
    ) -> Awaitable[Cursor | None]:
        """Take a subscription; None while another process, or another bus of this object, holds it.

        With its own ``epoch``, the holder takes it again, and nobody can forget it in between.
        """
        return self._leases.open(name, start, epoch)

    async def release_subscription(self, name: str, epoch: int) -> None:
        """Release a subscription, so that another process can take it at once."""
        await self._leases.release(name, epoch)

    async def renew_leases(self) -> list[str]:
        """Renew the leases of all subscriptions held by this object; return the names of those lost."""
        return await self._leases.renew()

    async def save_progress(self, changes: Sequence[Progress]) -> list[str]:
        """Save progress in one transaction; return the names of subscriptions whose lease is lost."""
        return await self._leases.save(changes)

    async def list_subscriptions(self) -> list[SubscriptionRecord]:
        """Return every durable subscription, including those that no bus handles at present."""
        return await self._reader.run(cursors.list_records)

    async def queued_positions(self, name: str, key: str, limit: int) -> list[int]:
        """Return the first ``limit`` positions that queue behind a parked event of ``key``."""
        check_bounds(limit)
        sql = statements()["queued_positions"]
        return await self._reader.run(lambda c: [row[0] for row in c.execute(sql, (name, key, limit))])

    async def list_abandoned(self, idle: timedelta) -> list[SubscriptionRecord]:
        """Return subscriptions that no bus handles and that made no progress for longer than ``idle``.

        They hold back ``trim`` until a bus subscribes under their name or ``forget_subscription`` is called.
        """
        records = await self.list_subscriptions()
        now = datetime.now(UTC)
        return [one for one in records if one.owner is None and now - one.updated_at > idle]

    async def parked_positions(self, name: str, after: int, upto: int) -> list[int]:
        """Return the positions in (after, upto] of its dead letters, and of what queues behind them."""
        check_bounds(after=after, upto=upto)
        sql = statements()["parked_within"]
        return await self._reader.run(
            lambda c: [row[0] for row in c.execute(sql, numbered(name, after, upto))]
        )

    # -- control --------------------------------------------------------------------------------------

    async def pause_subscription(self, name: str) -> bool:
        """Stop deliveries to a subscription until it is resumed; False if it is paused already.

        This works across processes. Raises SubscriptionNotFoundError.
        """
        return await self._submit_control(lambda tx: control.pause(tx, name))

    async def note_halt(self, name: str, epoch: int, reason: str) -> bool:
        """Record why a subscription has halted, for all processes; False if ``epoch`` is over."""
        return await self._leases.note_halt(name, epoch, reason)

    async def resume_subscription(self, name: str) -> bool:
        """Continue deliveries to a paused or halted subscription; False if it is neither.

        This works across processes. Raises SubscriptionNotFoundError.
        """
        return await self._submit_control(lambda tx: control.resume(tx, name))

    async def reset_subscription(self, name: str, start: Start, *, epoch: int | None = None) -> int:
        """Move a cursor and return its new position; everything above it is delivered (again).

        ``start`` is ``"beginning"``, ``"now"``, a position (the last one to skip) or an aware datetime.
        Retries, replays and queues behind parked keys are deleted, and so are dead letters whose events will
        be delivered again. Raises SubscriptionNotFoundError, and SubscriptionInUseError while a bus handles
        the subscription, unless ``epoch`` is that holder's own.
        """
        return await self._submit_control(lambda tx: control.reset(tx, self._path, name, start, epoch))

    async def request_replay(self, name: str, first: int, last: int) -> Replay:
        """Request that positions ``first`` to ``last``, inclusive, are delivered to a subscription again.

        The request survives restarts. Raises SubscriptionNotFoundError, UsageError for an empty range.
        """
        return await self._submit_control(lambda tx: control.request_replay(tx, name, first, last))

    async def cancel_replays(self, name: str) -> int:
        """Cancel the undelivered rest of a subscription's replays; return how many replays it had."""
        return await self._submit_control(lambda tx: control.cancel_replays(tx, name))

    async def forget_subscription(self, name: str) -> bool:
        """Delete an abandoned subscription, so that it no longer holds back ``trim``; False if unknown.

        Its dead letters stay. Raises SubscriptionInUseError while a bus handles it.
        """
        return await self._do(lambda tx: control.forget(tx, self._path, name))

    async def read_controls(self, names: Sequence[str]) -> list[Control]:
        """Return the state requested for each of these subscriptions; unknown names are left out."""
        return await self._reader.run(lambda c: control.read(c, names))

    def poll_controls(self) -> bool:
        """Return whether ``poll_head`` has seen a new control request since the last call of this."""
        moved, self._watch.controls_moved = self._watch.controls_moved, False
        return moved

    def add_control_listener(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call ``listener`` in the writer thread after each control request made through this object."""
        self._control_listeners.append(listener)
        return lambda: self._control_listeners.remove(listener)

    async def _submit_control(self, action: Callable[[Transaction], T]) -> T:
        def ask(tx: Transaction) -> T:
            result = action(tx)
            tx.after_commit.append(self._notify_controls)
            return result

        return await self._do(ask)

    # -- dead letters ---------------------------------------------------------------------------------

    async def list_dead_letters(
        self,
        *,
        subscription: str | None = None,
        event_type: str | None = None,
        error_type: str | None = None,
        after: int = 0,
        limit: int = 100,
    ) -> list[DeadLetterRecord]:
        """Return up to ``limit`` dead letters by ascending id, above the id ``after``.

        ``error_type`` is that of the last attempt. A filter that is None matches everything.
        """
        return await self._reader.run(
            lambda c: dead_letters.list_letters(
                c, self.path, subscription, event_type, error_type, after, limit
            )
        )

    async def count_dead_letters(self) -> int:
        """Return how many dead letters there are, those of forgotten subscriptions included."""
        return await self._reader.run(dead_letters.count_letters)

    async def group_dead_letters(self) -> list[DeadLetterGroup]:
        """Count dead letters by subscription and type of their last error, largest group first."""
        return await self._reader.run(dead_letters.group_letters)

    async def get_dead_letter(self, dead_letter_id: int) -> DeadLetterRecord:
        """Return one dead letter. Raises DeadLetterNotFoundError."""
        return await self._reader.run(lambda c: dead_letters.get_letter(c, self.path, dead_letter_id))

    async def begin_retry(
        self, dead_letter_id: int, payload: bytes | None, now: float
    ) -> DeadLetterRecord | None:
        """Mark a dead letter as being retried, and return it; None if it is being retried already.

        ``payload`` is JSON that replaces its own; ``now`` is when the retry is due, in seconds since 1970.
        Raises DeadLetterNotFoundError.
        """
        return await self._do(
            lambda tx: dead_letters.begin_retry(tx, self.path, dead_letter_id, payload, now)
        )

    async def discard_dead_letter(self, dead_letter_id: int) -> DeadLetterRecord:
        """Delete a dead letter and return it. Raises DeadLetterNotFoundError."""
        return await self._do(lambda tx: dead_letters.discard(tx, self.path, dead_letter_id))

    # -- scheduled events -----------------------------------------------------------------------------

    async def schedule_event(self, event: DomainEvent, due_at: float) -> None:
        """Store an event that enters the log at ``due_at`` (seconds since 1970)."""
        check_time(due_at)
        record = encode_event(event, self.max_payload_bytes)
        await self._do(lambda tx: schedule.schedule(tx, record, due_at))

    async def release_due(self, now: float) -> float | None:
        """Append all scheduled events that are due; return when the next one is due, or None."""
        return await self._do(lambda tx: schedule.release_due(tx, self.path, now))
