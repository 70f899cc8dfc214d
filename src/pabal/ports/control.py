"""What operators and applications may ask of a subscription, wherever it is handled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from pabal.ports.records import Control, Replay, Start, SubscriptionRecord


class SubscriptionSteering(Protocol):
    """Look at durable subscriptions, and steer them, whoever handles them and wherever.

    What is asked for is stored. The process that handles the subscription obeys as soon as it hears of it:
    at once where it shares this object, with the next look at what others wrote where it does not. Names
    under which nothing ever subscribed raise SubscriptionNotFoundError.
    """

    async def list_subscriptions(self) -> list[SubscriptionRecord]:
        """Return every durable subscription ever made and not removed."""
        ...

    async def pause_subscription(self, name: str) -> bool:
        """Let a subscription take no more events until it is resumed; False if it is paused already."""
        ...

    async def resume_subscription(self, name: str) -> bool:
        """Let a paused or halted subscription go on; False if it is neither."""
        ...

    async def reset_subscription(self, name: str, start: Start, *, epoch: int | None = None) -> int:
        """Move a cursor; everything above is delivered (again), and return the position it stands at now.

        Retries, replays and queues behind parked keys are forgotten, and so are dead letters whose events
        will be delivered again; other dead letters stay, but block nothing any more. Raises
        SubscriptionInUseError while somebody handles it, unless ``epoch`` is the holder's own.
        """
        ...

    async def request_replay(self, name: str, first: int, last: int) -> Replay:
        """Ask that positions ``first`` to ``last``, both included, are delivered to a subscription once more.

        What lies above its frontier, is unfinished or parked is left out: it comes, or came to rest,
        anyway. Newer events wait until the replay is over, so that the order of each key is kept. Raises
        UsageError for an empty range.
        """
        ...

    async def cancel_replays(self, name: str) -> int:
        """Forget what of its replays is not delivered yet; return how many there were."""
        ...

    async def forget_subscription(self, name: str) -> bool:
        """Remove a subscription that was given up, so that it holds nothing back; False if unknown.

        Its dead letters stay. Raises SubscriptionInUseError while somebody handles it.
        """
        ...


class SubscriptionControl(SubscriptionSteering, Protocol):
    """Hear what is asked of the subscriptions that are handled here, and tell why one has halted."""

    async def note_halt(self, name: str, epoch: int, reason: str) -> bool:
        """Write down why a subscription has halted, for all to see; False if ``epoch`` is over.

        It stands there until the subscription is resumed, given up or taken anew.
        """
        ...

    async def read_controls(self, names: Sequence[str]) -> list[Control]:
        """Return what was asked of each of these subscriptions; unknown names are left out."""
        ...

    def poll_controls(self) -> bool:
        """Tell whether another process asked something since the last call, as far as ``poll_head`` saw."""
        ...

    def add_control_listener(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call ``listener`` in any thread when something is asked here; return its remover."""
        ...
