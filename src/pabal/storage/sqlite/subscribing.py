"""The half of a storage that looks after subscriptions: cursors, dead letters, schedules, control."""

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
from pabal.storage.sqlite import control, cursors, letters
from pabal.storage.sqlite.file import DatabaseFile
from pabal.storage.sqlite.statements import statements
from pabal.storage.sqlite.transaction import Transaction

T = TypeVar("T")


class SubscriptionCalls(DatabaseFile):
    """Answer what a bus, and who steers one, asks about subscriptions."""

    # -- subscriptions --------------------------------------------------------------------------------

    def open_subscription(
        self, name: str, start: Start, *, epoch: int | None = None
    ) -> Awaitable[Cursor | None]:
        """Take a subscription; None while another process, or another bus of this object, holds it.

        With the ``epoch`` of who holds it here it is taken anew, and nobody can forget it in between.
        """
        return self._leases.open(name, start, epoch)

    async def release_subscription(self, name: str, epoch: int) -> None:
        """Give a subscription up, so that another process can take it at once."""
        await self._leases.release(name, epoch)

    async def renew_leases(self) -> list[str]:
        """Prolong the leases of everything held here; return the names that were lost."""
        return await self._leases.renew()

    async def save_progress(self, changes: Sequence[Progress]) -> list[str]:
        """Save progress in one transaction; return the names whose lease is lost."""
        return await self._leases.save(changes)

    async def list_subscriptions(self) -> list[SubscriptionRecord]:
        """Return every durable subscription, whether or not anything subscribes under its name now."""
        return await self._reader.run(cursors.list_records)

    async def queued_positions(self, name: str, key: str, limit: int) -> list[int]:
        """Return the first positions that queue behind a parked event of ``key``."""
        check_bounds(limit)
        sql = statements()["queued_positions"]
        return await self._reader.run(lambda c: [row[0] for row in c.execute(sql, (name, key, limit))])

    async def list_abandoned(self, idle: timedelta) -> list[SubscriptionRecord]:
        """Return subscriptions that nobody handles and that made no progress for longer than ``idle``.

        They hold back ``trim`` until somebody subscribes under their name, or ``forget_subscription``.
        """
        records = await self.list_subscriptions()
        now = datetime.now(UTC)
        return [one for one in records if one.owner is None and now - one.updated_at > idle]

    async def parked_positions(self, name: str, after: int, upto: int) -> list[int]:
        """Return the positions in (after, upto] that have a dead letter of this subscription."""
        check_bounds(after=after, upto=upto)
        sql = statements()["parked_within"]
        return await self._reader.run(lambda c: [row[0] for row in c.execute(sql, (name, after, upto))])

    # -- control --------------------------------------------------------------------------------------

    async def pause_subscription(self, name: str) -> bool:
        """Let a subscription take no more events until it is resumed; False if it is paused already.

        Whoever handles it obeys, in this process or another. Raises SubscriptionNotFoundError.
        """
        return await self._ask(lambda tx: control.pause(tx, name))

    async def note_halt(self, name: str, epoch: int, reason: str) -> bool:
        """Write down why a subscription has halted, for all to see; False if ``epoch`` is over."""
        return await self._leases.note_halt(name, epoch, reason)

    async def resume_subscription(self, name: str) -> bool:
        """Let a paused or halted subscription go on; False if it is neither.

        Whoever handles it obeys, in this process or another. Raises SubscriptionNotFoundError.
        """
        return await self._ask(lambda tx: control.resume(tx, name))

    async def reset_subscription(self, name: str, start: Start, *, epoch: int | None = None) -> int:
        """Move a cursor, and return the position it stands at: everything above is delivered (again).

        ``start`` is ``"beginning"``, ``"now"``, a position (the last one passed over) or an aware datetime.
        Retries, replays and queues behind parked keys are forgotten, and so are dead letters whose events
        will be delivered again. Raises SubscriptionNotFoundError, and SubscriptionInUseError while somebody
        handles it, unless ``epoch`` is the holder's own.
        """
        return await self._ask(lambda tx: control.reset(tx, self._path, name, start, epoch))

    async def request_replay(self, name: str, first: int, last: int) -> Replay:
        """Ask that positions ``first`` to ``last``, both included, are delivered to a subscription once more.

        It survives restarts. Raises SubscriptionNotFoundError, UsageError for an empty range.
        """
        return await self._ask(lambda tx: control.request_replay(tx, name, first, last))

    async def cancel_replays(self, name: str) -> int:
        """Forget what of a subscription's replays is not delivered yet; return how many it had."""
        return await self._ask(lambda tx: control.cancel_replays(tx, name))

    async def forget_subscription(self, name: str) -> bool:
        """Remove a subscription that was given up, so that it holds back no ``trim``; False if unknown.

        Its dead letters stay. Raises SubscriptionInUseError while somebody handles it.
        """
        return await self._do(lambda tx: control.forget(tx, self._path, name))

    async def read_controls(self, names: Sequence[str]) -> list[Control]:
        """Return what was asked of each of these subscriptions; unknown names are left out."""
        return await self._reader.run(lambda c: control.read(c, names))

    def poll_controls(self) -> bool:
        """Tell whether anybody asked something since the last call, as far as ``poll_head`` saw."""
        moved, self._watch.controls_moved = self._watch.controls_moved, False
        return moved

    def add_control_listener(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call ``listener`` in the writer's thread when something was asked through this object."""
        self._control_listeners.append(listener)
        return lambda: self._control_listeners.remove(listener)

    async def _ask(self, action: Callable[[Transaction], T]) -> T:
        def ask(tx: Transaction) -> T:
            result = action(tx)
            tx.after_commit.append(self._asked)
            return result

        return await self._do(ask)

    # -- dead letters and schedules -------------------------------------------------------------------

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

        ``error_type`` is that of the last attempt; what is None does not restrict.
        """
        return await self._reader.run(
            lambda c: letters.list_letters(c, self.path, subscription, event_type, error_type, after, limit)
        )

    async def group_dead_letters(self) -> list[DeadLetterGroup]:
        """Count dead letters by subscription and type of the last error, largest group first."""
        return await self._reader.run(letters.group_letters)

    async def get_dead_letter(self, dead_letter_id: int) -> DeadLetterRecord:
        """Return one dead letter. Raises DeadLetterNotFoundError."""
        return await self._reader.run(lambda c: letters.get_letter(c, self.path, dead_letter_id))

    async def begin_retry(
        self, dead_letter_id: int, payload: bytes | None, now: float
    ) -> DeadLetterRecord | None:
        """Mark a dead letter as being retried, and return it; None if it is already.

        ``payload`` is JSON to put in place of its own; ``now`` is when it is due, in seconds since 1970.
        Raises DeadLetterNotFoundError.
        """
        return await self._do(lambda tx: letters.begin_retry(tx, self.path, dead_letter_id, payload, now))

    async def discard_dead_letter(self, dead_letter_id: int) -> DeadLetterRecord:
        """Remove a dead letter and return it. Raises DeadLetterNotFoundError."""
        return await self._do(lambda tx: letters.discard(tx, self.path, dead_letter_id))

    async def schedule_event(self, event: DomainEvent, due_at: float) -> None:
        """Store an event that enters the log at ``due_at`` (seconds since 1970)."""
        check_time(due_at)
        record = encode_event(event, self.max_payload_bytes)
        await self._do(lambda tx: letters.schedule(tx, record, due_at))

    async def release_due(self, now: float) -> float | None:
        """Append every scheduled event that is due; return when the next one is, or None."""
        return await self._do(lambda tx: letters.release_due(tx, self.path, now))
