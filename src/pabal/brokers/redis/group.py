"""The delivery engines of a process: one per partition it owns, all sharing one set of workers."""

from __future__ import annotations

import asyncio
import logging
import math
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

from pabal.brokers.redis.partition import PartitionStorage
from pabal.delivery.consumer import ACTIVE, Consumer
from pabal.delivery.engine import Engine
from pabal.delivery.subscription import Subscription
from pabal.delivery.watermark import WatermarkTracker
from pabal.errors import SubscriptionError
from pabal.ports.clock import Clock
from pabal.ports.storage import DeadLetterRecord

_log = logging.getLogger("pabal")
_ID = re.compile(r"[1-9][0-9]{0,18}")
"""The id of a dead letter as pabal writes it: the call of another number could not be deleted by its id."""
_COUNT_LAG = 0.5
"""Seconds after which the server's count is assumed to include what this process has parked."""
_SAVED_WITHIN = 0.3
"""Seconds that a look waits for a save. Longer would hold up the look that ends the trouble with saving."""


class Running:
    """A partition that this process handles: its storage and its engine."""

    def __init__(self, partition: int, epoch: int, storage: PartitionStorage, engine: Engine) -> None:
        self.partition = partition
        self.epoch = epoch
        self.storage = storage
        self.engine = engine
        self.ending: asyncio.Task[None] | None = None
        """The task that hands the partition over or lets it go, once begun."""
        self.is_open = False
        """Whether taking the partition is complete; one that is still being taken is not let go."""
        self.has_jumped = False
        """Whether the log has a new incarnation whose head the engine does not know yet."""
        self._waiting: dict[int, Consumer] = {}
        """Retried dead letters whose subscription is being opened or replayed, by id."""

    def count_unassigned(self, consumer: Consumer) -> int:
        """Return how many positions ahead of a subscription hold no event: those between two incarnations."""
        feed, tracker = self.engine.feed, consumer.tracker
        if feed is None or tracker is None or feed.head <= tracker.seen:
            return 0
        return feed.head - tracker.seen - self.storage.pages.extent.count_assigned(tracker.seen, feed.head)

    async def answer(self, calls: Sequence[str]) -> set[str]:
        """Act on calls: ids of retried dead letters, and name, position and key of discarded ones.

        Returns those it is done with. The others have to be made again later: their subscription is being
        opened or replayed, or it is not certain yet that a retry has still to be made.
        """
        ids = {int(call): call for call in calls if _ID.fullmatch(call)}
        answered = {call for call in calls if not _ID.fullmatch(call) and self._note_discarded(call)}
        for dead_letter_id, waiting_for in tuple(self._waiting.items()):
            if waiting_for.is_opening:  # not read again at every look, for as long as a replay takes
                ids.pop(dead_letter_id, None)
            else:
                del self._waiting[dead_letter_id]
        if not ids:
            return answered
        # Openings load retries, too. One that has ended by now must be saved before the dead letters are
        # read, and one that ends from now on may still be read as if it had not.
        consumers = self.engine.consumers.items()
        before = {name: _under_way(consumer) for name, consumer in consumers if not consumer.is_opening}
        try:
            async with asyncio.timeout(_SAVED_WITHIN):
                await self.engine.settlement.flush()
        except TimeoutError:
            return answered  # the next look tries again; it may be the one that ends the trouble
        found = await self.storage.find_dead_letters(list(ids))
        letters = [letter for letter in found if letter.state == "retrying"]
        over = ids.keys() - {letter.id for letter in letters}
        if over:
            await self.storage.delete_calls(over)
            for dead_letter_id in over:
                del ids[dead_letter_id]
        for letter in letters:
            consumer = self.engine.consumers.get(letter.subscription)
            if consumer is None:
                continue
            if consumer.is_opening:
                self._waiting[letter.id] = consumer
                del ids[letter.id]
            elif consumer.state == ACTIVE and letter.position not in consumer.failing:
                tracker, under_way = before.get(letter.subscription, (None, ()))
                if consumer.tracker is tracker and letter.position not in under_way:
                    self.engine.redelivery.redeliver(consumer, letter)
                else:
                    del ids[letter.id]
            # Otherwise it is under way, or the stored retry is loaded when the subscription is opened.
        return answered | set(ids.values())

    def _note_discarded(self, call: str) -> bool:
        """Act on a discarded dead letter; False if an opening is still looking for what blocks its key."""
        name, _, rest = call.partition("\0")
        position, _, key = rest.partition("\0")
        consumer = self.engine.consumers.get(name)
        block = None if consumer is None or not consumer.is_opening else consumer.blocked.get(key)
        if block is not None and block.position is None:
            return False
        self.engine.parked = max(0, self.engine.parked - 1)  # there is room for another
        if consumer is not None and consumer.tracker is not None and position.isdecimal():
            gone = DeadLetterRecord(
                0, name, int(position), None, None, "", (), datetime.now(UTC), "parked", key or None, 0
            )
            self.engine.redelivery.discarded(consumer, gone)
        return True

    async def release_lost_keys(self) -> None:
        """Release the keys of dead letters that the server has lost: nobody can retry or discard those."""
        engine = self.engine
        for consumer in tuple(engine.consumers.values()):
            blocked = set(consumer.blocked)
            if not blocked:
                continue
            await engine.settlement.flush()  # what was parked a moment ago may not be saved yet
            kept = await engine.background.call_with_retry(
                consumer, partial(self.storage.blocked_keys, consumer.name)
            )
            if kept is not None and consumer.tracker is not None:
                for key in blocked - kept:
                    engine.redelivery.release_key(consumer, key)


class RemoteRedelivery:
    """Replace an engine's redelivery of dead letters: the partition's owner is told through the server."""

    def __init__(self, engine: GroupEngine) -> None:
        self._engine = engine

    def redeliver(self, consumer: Consumer, letter: DeadLetterRecord) -> None:
        """Make this process look at the server at once, in case it is the owner."""
        self._engine.nudge()

    def discarded(self, consumer: Consumer, letter: DeadLetterRecord) -> None:
        """Let the owner look at once, if it is this process."""
        self._engine.nudge()


class GroupEngine(Engine):
    """The engine that owns the workers and the list of subscriptions; the partitions' engines deliver.

    Its own consumers never get an event. They represent the subscriptions, and accumulate the figures of
    partitions that were handed over.
    """

    def __init__(self, *, worker_count: int, clock: Clock | None = None, seed: int | None = None) -> None:
        self.running: dict[int, Running] = {}
        super().__init__(worker_count=worker_count, clock=clock, seed=seed)
        self.redelivery: Any = RemoteRedelivery(self)
        self._noted_at = self._counted_at = -math.inf
        self.detach()

    def detach(self) -> None:
        """Tell nobody about changes, because this process is not a member of its group (yet or any more)."""
        self.nudge: Callable[[], None] = _nothing
        self.announce: Callable[[Subscription], None] = _nothing

    # -- subscriptions --------------------------------------------------------------------------------

    def add(self, subscription: Subscription) -> Consumer:
        """Add a subscription, here and in every partition that is owned. Raises SubscriptionError."""
        if "\0" in subscription.name:  # it ends the name where what belongs to a subscription is kept
            raise SubscriptionError(f"name is {subscription.name!r}; on a server it cannot contain a NUL")
        consumer = super().add(subscription)
        for running in self.running.values():
            running.engine.add(subscription)
        self.announce(subscription)
        self.nudge()
        return consumer

    def remove(self, identity: str) -> bool:
        """Remove a subscription, here and in every partition that is owned; False if it is unknown."""
        for running in self.running.values():
            running.engine.remove(identity)
        return super().remove(identity)

    def is_halted(self, name: str) -> bool:
        """Return whether a subscription has halted in a partition that is owned."""
        return any(engine.is_halted(name) for engine in self.engines())

    def rewire(self) -> None:
        """Recompute what depends on subscriptions and middleware, in every partition."""
        super().rewire()
        self.router.stored = True  # every event goes through the server
        self.router.forget()
        for running in self.running.values():
            running.engine.middleware = self.middleware
            running.engine.rewire()

    def note_parked(self, change: int) -> None:
        """Count dead letters at once: the server's next count may be too early to include them."""
        super().note_parked(change)
        self._noted_at = self.clock.monotonic()

    def count_parked(self, total: int) -> None:
        """Adopt the server's count of the group's dead letters, unless our own is more recent."""
        now = self.clock.monotonic()
        if now - self._noted_at >= _COUNT_LAG or now - self._counted_at >= 4 * _COUNT_LAG:
            self.parked, self._counted_at = total, now

    # -- partitions -----------------------------------------------------------------------------------

    async def take(
        self, partition: int, epoch: int, storage: PartitionStorage, numbers: Mapping[str, int]
    ) -> Running:
        """Start delivering from a partition; ``numbers`` are the subscriptions' numbers on the server."""
        engine = Engine(worker_count=self.worker_count, clock=self.clock, host=self)
        engine.listeners = self.listeners
        engine.middleware = self.middleware
        engine.random = self.random
        running = self.running[partition] = Running(partition, epoch, storage, engine)
        for consumer in self.consumers.values():
            engine.add(consumer.subscription).number = numbers.get(consumer.name, 0)
        try:
            await engine.start(storage)
        except BaseException:
            del self.running[partition]
            await engine.stop(self.clock.monotonic())  # otherwise the parts that did start would go on
            raise
        running.is_open = True
        return running

    async def hand_over(self, running: Running, deadline: float = math.inf) -> None:
        """Stop delivering from a partition, after running handlers end or at ``deadline`` (monotonic)."""
        await running.engine.stop(deadline)
        self._forget(running)

    async def abandon(self, running: Running) -> None:
        """Stop delivering from a partition that another process may own by now; save nothing more."""
        running.storage.abandon()
        for consumer in running.engine.consumers.values():
            consumer.tracker = None
        await running.engine.stop(self.clock.monotonic())
        self._forget(running)

    def _forget(self, running: Running) -> None:
        if self.running.get(running.partition) is running:
            del self.running[running.partition]
        for name, consumer in running.engine.consumers.items():
            mine = self.consumers.get(name)
            if mine is not None:
                for figure in ("handled", "filtered", "failed_attempts", "retried", "parked", "skipped"):
                    total = getattr(mine.figures, figure) + getattr(consumer.figures, figure)
                    setattr(mine.figures, figure, total)
                mine.figures.timed += consumer.figures.timed
                mine.figures.busy_seconds += consumer.figures.busy_seconds

    async def stop_handlers(self, deadline: float) -> None:
        """Start no more handlers; let running ones end until ``deadline`` (monotonic), then cancel them."""
        self.halting = True
        for running in self.running.values():
            running.engine.halting = True
            for consumer in running.engine.consumers.values():
                consumer.end_slices()
        if self._loop is None or self._loop.is_closed():
            return  # its loop is closed, so no worker runs any more
        while self.resting:
            self.wake()
        tasks = [worker.task for worker in self.workers]
        if not tasks:
            return
        await asyncio.wait(tasks, timeout=max(0.0, deadline - self.clock.monotonic()))
        self.cancelling = True
        for running in self.running.values():
            running.engine.cancelling = True
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=0.25)

    def engines(self) -> list[Engine]:
        """Return the engines of the partitions that are owned."""
        return [running.engine for running in self.running.values()]


def _under_way(consumer: Consumer) -> tuple[WatermarkTracker | None, frozenset[int]]:
    """Return which opening of a subscription this is, and its failed and retried deliveries now."""
    return consumer.tracker, frozenset(consumer.failing)


def _nothing(_: Subscription | None = None) -> None:
    """Do nothing: there is no coordinator to wake."""
