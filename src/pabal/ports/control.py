"""Requests that operators and applications can make of a subscription, wherever it is handled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from pabal.ports.records import Control, Replay, Start, SubscriptionRecord


class SubscriptionAdmin(Protocol):
    """List and control durable subscriptions, whichever process handles them.

    Requests are stored. The process that handles the subscription carries one out as soon as it learns of it:
    at once if it shares this object, otherwise when it next looks at what other processes wrote. A name that
    was never subscribed raises SubscriptionNotFoundError.
    """

    async def list_subscriptions(self) -> list[SubscriptionRecord]:
        """Return every durable subscription that was ever made and not removed."""
        ...

    async def pause_subscription(self, name: str) -> bool:
        """Stop a subscription from taking events until it is resumed; False if it is already paused."""
        ...

    async def resume_subscription(self, name: str) -> bool:
        """Resume a paused or halted subscription; False if it is neither."""
        ...

    async def reset_subscription(self, name: str, start: Start, *, epoch: int | None = None) -> int:
        """Move a cursor, so that everything above is delivered (again); return its new position.

        Retries, replays and queues behind parked keys are dropped, and so are dead letters of events that
        will be delivered again; other dead letters stay but block their keys no longer. Raises
        SubscriptionInUseError while a process handles it, unless ``epoch`` is that of the holder.
        """
        ...

    async def request_replay(self, name: str, first: int, last: int) -> Replay:
        """Have positions ``first`` to ``last``, both included, delivered to a subscription once more.

        Positions above its frontier, unfinished ones and parked ones are left out: they are delivered, or
        were given up, anyway. Newer events wait until the replay is over, so each key keeps its order. Raises
        UsageError for an empty range.
        """
        ...

    async def cancel_replays(self, name: str) -> int:
        """Cancel its replays, as far as they are not delivered yet; return how many there were."""
        ...

    async def forget_subscription(self, name: str) -> bool:
        """Remove a subscription that is no longer used, so that it holds nothing back; False if unknown.

        Its dead letters stay, and block no key any more. Raises SubscriptionInUseError while a process
        handles it.
        """
        ...


class SubscriptionControl(SubscriptionAdmin, Protocol):
    """Learn of requests for the subscriptions handled here, and record why one has halted."""

    async def note_halt(self, name: str, epoch: int, reason: str) -> bool:
        """Record why a subscription has halted, for every process to see; False if ``epoch`` is over.

        The record stays until the subscription is resumed, released or opened again.
        """
        ...

    async def request_reopening(self, name: str) -> None:
        """Ask the process that holds a subscription, if any, to open it again from what is stored.

        Needed after a change that the holder does not know of: a dead letter was marked for a retry, or
        discarded.
        """
        ...

    async def read_controls(self, names: Sequence[str]) -> list[Control]:
        """Return the requests for each of these subscriptions; unknown names are left out."""
        ...

    def poll_controls(self) -> bool:
        """Return whether another process made a request since the last call, as far as ``poll_head`` saw."""
        ...

    def add_control_listener(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call ``listener``, in any thread, when a request is made here; return its remover."""
        ...
