"""The in-memory storage's methods for subscriptions: cursors, control and dead letters."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import msgspec

from pabal.delivery.dead_letters import MemoryDeadLetters
from pabal.domain.envelope import StoredRecord
from pabal.ports.arguments import check_bounds
from pabal.ports.storage import (
    Committed,
    Control,
    Cursor,
    DeadLetterGroup,
    DeadLetterRecord,
    PendingRetry,
    Progress,
    Replay,
    Start,
    SubscriptionRecord,
)
from pabal.storage.memory.subscriptions import MemorySubscriptions

_log = logging.getLogger("pabal")
T = TypeVar("T")


class MemorySubscriptionCalls:
    """Methods that buses and operators call about subscriptions; a part of ``InMemoryEventStorage``."""

    path: str

    def __init__(self) -> None:
        super().__init__()
        self._rows: list[StoredRecord] = []
        self._letters = MemoryDeadLetters()
        self._subscriptions = MemorySubscriptions(self._rows, self._letters)
        self._control_listeners: list[Callable[[], None]] = []

    # -- subscriptions --------------------------------------------------------------------------------

    def open_subscription(
        self, name: str, start: Start, *, epoch: int | None = None
    ) -> Awaitable[Cursor | None]:
        """Take a subscription, or take it again with its ``epoch``; None while another bus holds it."""
        future: asyncio.Future[Cursor | None] = asyncio.get_running_loop().create_future()
        future.set_result(self._subscriptions.take(name, start, epoch))
        return future

    async def release_subscription(self, name: str, epoch: int) -> None:
        """Release a subscription, so that another bus can take it."""
        self._subscriptions.release(name, epoch)

    async def renew_leases(self) -> list[str]:
        """Return an empty list: a subscription held here cannot be taken by another process."""
        return []

    def poll_head(self) -> int | None:
        """Return None: no other process appends to this log."""
        return None

    def listen_to_others(self, heard: Callable[[], object]) -> Callable[[], None]:
        """Do nothing: no other process appends to this log."""
        return lambda: None

    async def save_progress(self, changes: Sequence[Progress]) -> list[str]:
        """Save progress; return the names of subscriptions whose epoch is over."""
        return [change.name for change in changes if not self._subscriptions.save(change)]

    async def list_subscriptions(self) -> list[SubscriptionRecord]:
        """Return every durable subscription, including those that no bus handles at present."""
        return self._subscriptions.list_records()

    async def queued_positions(self, name: str, key: str, limit: int) -> list[int]:
        """Return the first ``limit`` positions that queue behind a parked event of ``key``."""
        check_bounds(limit)
        return self._subscriptions.queue_of(name, key)[:limit]

    async def parked_positions(self, name: str, after: int, upto: int) -> list[int]:
        """Return the positions in (after, upto] of its dead letters, and of what queues behind them."""
        check_bounds(after=after, upto=upto)
        parked = {*self._letters.positions_of(name), *self._subscriptions.queued_positions_of(name)}
        return sorted(p for p in parked if after < p <= upto)

    # -- control --------------------------------------------------------------------------------------

    async def pause_subscription(self, name: str) -> bool:
        """Stop deliveries to a subscription until it is resumed; False if it is paused already."""
        return self._notify_controls(self._subscriptions.pause(name))

    async def note_halt(self, name: str, epoch: int, reason: str) -> bool:
        """Record why a subscription has halted; False if ``epoch`` is over."""
        return self._subscriptions.note_halt(name, epoch, reason)

    async def resume_subscription(self, name: str) -> bool:
        """Continue deliveries to a paused or halted subscription; False if it is neither."""
        return self._notify_controls(self._subscriptions.resume(name))

    async def reset_subscription(self, name: str, start: Start, *, epoch: int | None = None) -> int:
        """Move a cursor and return its new position; everything above it is delivered (again).

        Raises SubscriptionNotFoundError, and SubscriptionInUseError if the subscription is held in an epoch
        other than ``epoch``.
        """
        return self._notify_controls(self._subscriptions.reset(name, start, epoch))

    async def request_replay(self, name: str, first: int, last: int) -> Replay:
        """Request that positions ``first`` to ``last``, inclusive, are delivered to a subscription again."""
        return self._notify_controls(self._subscriptions.request_replay(name, first, last))

    async def cancel_replays(self, name: str) -> int:
        """Cancel the undelivered rest of a subscription's replays; return how many replays it had."""
        return self._notify_controls(self._subscriptions.cancel_replays(name))

    async def forget_subscription(self, name: str) -> bool:
        """Delete a subscription that no bus handles; its dead letters stay. False if it is unknown."""
        return self._subscriptions.forget(name)

    async def read_controls(self, names: Sequence[str]) -> list[Control]:
        """Return the state requested for each of these subscriptions; unknown names are left out."""
        return self._subscriptions.controls(names)

    def poll_controls(self) -> bool:
        """Return False: no other process makes control requests here."""
        return False

    def add_control_listener(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call ``listener`` after each control request; return a function that removes it."""
        self._control_listeners.append(listener)
        return lambda: self._control_listeners.remove(listener)

    def _notify_controls(self, result: T) -> T:
        for listener in tuple(self._control_listeners):
            self._call(listener)
        return result

    def _call(self, listener: Callable[..., None], *arguments: Committed) -> None:
        try:
            listener(*arguments)
        except Exception:
            # The change that it is told of has been made, so its failure is not the caller's.
            _log.exception("a commit listener of %s failed: %r", self.path, listener)

    # -- dead letters ---------------------------------------------------------------------------------

    async def list_dead_letters(self, **filters: Any) -> list[DeadLetterRecord]:
        """Return dead letters by ascending id; the filters are those of ``DeadLetterStore``."""
        return [self._with_queue(letter) for letter in await self._letters.list_dead_letters(**filters)]

    async def count_dead_letters(self) -> int:
        """Return how many dead letters there are, those of forgotten subscriptions included."""
        return len(self._letters)

    async def group_dead_letters(self) -> list[DeadLetterGroup]:
        """Count dead letters by subscription and type of their last error, largest group first."""
        return await self._letters.group_dead_letters()

    async def get_dead_letter(self, dead_letter_id: int) -> DeadLetterRecord:
        """Return one dead letter. Raises DeadLetterNotFoundError."""
        return self._with_queue(await self._letters.get_dead_letter(dead_letter_id))

    def _with_queue(self, letter: DeadLetterRecord) -> DeadLetterRecord:
        if letter.key is None:
            return letter
        queued = len(self._subscriptions.queue_of(letter.subscription, letter.key))
        return msgspec.structs.replace(letter, queued=queued)

    async def begin_retry(
        self, dead_letter_id: int, payload: bytes | None, now: float
    ) -> DeadLetterRecord | None:
        """Mark a dead letter as being retried, and return it; None if it is being retried already."""
        letter = await self._letters.begin_retry(dead_letter_id, payload, now)
        if letter is not None:
            retry = PendingRetry(letter.position, 0, now, letter.failures, from_dead_letter=True)
            self._subscriptions.add_retry(letter.subscription, retry)
        return letter

    async def discard_dead_letter(self, dead_letter_id: int) -> DeadLetterRecord:
        """Delete a dead letter and return it. Raises DeadLetterNotFoundError."""
        letter = await self._letters.discard_dead_letter(dead_letter_id)
        self._subscriptions.drop_retry(letter.subscription, letter.position)
        return letter
