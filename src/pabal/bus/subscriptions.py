"""``bus.subscriptions``: list and control the durable subscriptions of a bus's log."""

from __future__ import annotations

import warnings
from collections.abc import Callable

from pabal.delivery.engine import Engine
from pabal.delivery.subscription import Subscription
from pabal.errors import (
    DuplicateSubscriptionError,
    InsideHandlerError,
    PatternMatchesNothingWarning,
    SubscriptionError,
    SubscriptionNotFoundError,
    UsageError,
)
from pabal.ports.arguments import MAX_POSITION, checked_start
from pabal.ports.control import SubscriptionAdmin
from pabal.ports.records import Replay, Start, SubscriptionRecord

_TAKEN = "pass the one that subscribe() returned or subscriptions.attached() holds, or its id"


class Subscriptions:
    """Pause, resume, reset and replay subscriptions by durable name, in whatever process they are handled.

    Requests are stored, so they also hold after a restart. All calls but ``attached`` and ``resume`` need
    storage, and raise UsageError on a bus without it. Unknown names raise SubscriptionNotFoundError.
    """

    def __init__(
        self, engine: Engine, storage: SubscriptionAdmin | None, check_running: Callable[[str], None]
    ) -> None:
        self._engine = engine
        self._store = storage
        self._check_running = check_running

    async def list(self) -> list[SubscriptionRecord]:
        """Return every durable subscription of the log, by name, whether or not it is being handled."""
        return await self._storage("list durable subscriptions").list_subscriptions()

    def attached(self) -> tuple[Subscription, ...]:
        """Return the subscriptions made on this bus object, in that order; works without storage."""
        return tuple(consumer.subscription for consumer in self._engine.consumers.values())

    async def pause(self, name: str) -> bool:
        """Stop a subscription from taking events until it is resumed; False if it is already paused.

        Running handlers finish. If the subscription is handled here, it has paused when the call returns;
        elsewhere it pauses within moments.
        """
        self._check_running("pause a subscription")
        storage = self._storage("pause a subscription")
        consumer = self._engine.consumers.get(name)
        if consumer is not None and self._engine.feed is not None:
            await self._engine.feed.controls.wait_until_open(consumer)
        paused = await storage.pause_subscription(name)
        await self._apply_requests()
        return paused

    async def resume(self, name: str) -> bool:
        """Resume a paused or halted subscription at its watermark; False if it is neither.

        Waits until its running handlers have ended; called in a handler, it returns at once and the
        subscription goes on later. If another process halted it, it is resumed there.
        """
        self._check_running("resume a subscription")
        resumed = False
        if self._store is None and name not in self._engine.consumers:
            raise SubscriptionNotFoundError(
                name=name, known=", ".join(sorted(self._engine.consumers)) or "none"
            )
        epoch = self._engine.halted_in(name)
        if self._store is not None:
            resumed = await self._store.resume_subscription(name)
            await self._apply_requests()
        return await self._engine.resume(name, epoch) or resumed

    async def reset(self, name: str, to: Start) -> int:
        """Move a subscription to a position, a time, the beginning or now; return its new position.

        Everything above is delivered, or delivered again. Its retries, its replays and the queues behind its
        parked keys are dropped, and so are dead letters of events that will be delivered again. Waits until
        its running handlers have ended. Raises SubscriptionInUseError while another process or bus handles
        it.
        """
        self._check_running("reset a subscription")
        checked_start(to, "to")
        if self._engine.in_handler():
            raise InsideHandlerError(action="reset a subscription")
        storage = self._storage("reset a subscription")
        consumer = self._engine.consumers.get(name)
        if consumer is None or self._engine.feed is None:
            position = await storage.reset_subscription(name, to)
            self._engine.tally.recount()  # it may have dropped dead letters
            return position
        return await self._engine.feed.controls.reset(consumer, to)

    async def replay(self, name: str, first: int = 1, last: int | None = None) -> Replay:
        """Deliver the events from position ``first`` to ``last`` once more, to this subscription alone.

        ``last`` defaults to the position it has reached. Each key keeps its order: newer events wait until
        the replay is over. A replay continues after a restart. Events that the subscription has not finished,
        or that are dead letters, are left out. Raises UsageError for an empty range.
        """
        self._check_running("replay events")
        storage = self._storage("replay events")
        await self._engine.settlement.flush()  # the range ends at the saved cursor
        replay = await storage.request_replay(name, first, MAX_POSITION if last is None else last)
        await self._apply_requests()
        return replay

    async def cancel_replays(self, name: str) -> int:
        """Cancel its replays, as far as they are not delivered yet; return how many there were."""
        self._check_running("cancel replays")
        cancelled = await self._storage("cancel replays").cancel_replays(name)
        await self._apply_requests()
        return cancelled

    async def forget(self, name: str) -> bool:
        """Remove a subscription that is no longer used, so that it holds nothing back; False if unknown.

        Its dead letters stay; on a file or in memory, until a new subscription of this name gets their events
        again. Raises SubscriptionInUseError while a process or bus handles it.
        """
        return await self._storage("forget a subscription").forget_subscription(name)

    async def _apply_requests(self) -> None:
        if self._engine.feed is not None:  # the bus may have stopped while the storage answered
            await self._engine.feed.controls.apply_requests()

    def _storage(self, action: str) -> SubscriptionAdmin:
        if self._store is None:
            raise UsageError(f"cannot {action} without a log; give the bus an event_storage")
        return self._store


def add_subscription(engine: Engine, subscription: Subscription, *, is_stored: bool) -> None:
    """Begin a subscription. Raises DuplicateSubscriptionError, or SubscriptionError if it needs a log."""
    matcher, start = subscription.matcher, subscription.start
    if subscription.name in engine.consumers:
        raise DuplicateSubscriptionError(name=subscription.name)
    if not is_stored and start != "now":
        raise SubscriptionError(f"start={start!r} needs a log to read from; give the bus an event_storage")
    if matcher.is_pattern and not matcher.matches_any_known():
        message = f"the pattern {matcher.selector!r} matches no event type registered so far"
        warnings.warn(message, PatternMatchesNothingWarning, stacklevel=3)
    engine.add(subscription)


def end_subscription(engine: Engine, given: Subscription | str) -> bool:
    """End a subscription, given as object or by its id; False if unknown. Raises UsageError for a name."""
    identity = given.id if isinstance(given, Subscription) else given
    if not isinstance(identity, str):
        raise UsageError(f"{given!r} is not a subscription; {_TAKEN}")
    ended = engine.remove(identity)
    if not ended and identity in engine.consumers:
        raise UsageError(f"{identity!r} is the name of a subscription; {_TAKEN}")
    return ended
