"""Take subscriptions from the storage, go on where they stopped, keep their leases, and give them back."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Coroutine, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from pabal.delivery.bookkeeping import Failing, Unsaved
from pabal.delivery.consumer import ACTIVE, CLOSED, STANDBY, STARTING, Consumer
from pabal.delivery.replaying import Replaying, ReplayRun
from pabal.delivery.settlement import progress_of
from pabal.delivery.watermark import WatermarkTracker
from pabal.errors import BusNotRunningError, StorageClosedError, StorageError
from pabal.ports.storage import Cursor, EventStorage, PendingRetry
from pabal.ports.telemetry import StorageTrouble, SubscriptionResumed, WorkUnclaimed

if TYPE_CHECKING:
    from pabal.delivery.engine import Engine
    from pabal.delivery.feed import Feed

_PAGE = 256
_TOGETHER = 256
"""Subscriptions that a start opens with one commit, between which the event loop goes on."""
_STANDBY_PAUSE = 0.5
_RENEW_EVERY = 3.0
"""Seconds; leases run for ten."""


class Leases:
    """Own the time a subscription spends with this process, from opening it to giving it up."""

    def __init__(self, engine: Engine, storage: EventStorage, feed: Feed) -> None:
        self._engine = engine
        self._storage = storage
        self._feed = feed
        self._openings: dict[asyncio.Future[Cursor | None], str] = {}
        """What was asked of the storage, by name, until somebody has the answer in hands."""
        self._closing: dict[str, asyncio.Future[None]] = {}
        """Names that are being given up: who wants one of them again waits for that."""
        self._being_opened: dict[Consumer, asyncio.Future[None]] = {}
        self._replaying = Replaying(engine, storage, feed)
        self._leaving: list[Consumer] = []
        self.unclaimed: list[WorkUnclaimed] = []

    # -- opening --------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Open every subscription, and look for work that nobody claims."""
        await self.count_parked()  # before anything can be parked, or find that there is no room for it
        consumers = list(self._engine.consumers.values())
        for first in range(0, len(consumers), _TOGETHER):
            await self._open_together(consumers[first : first + _TOGETHER])
        await self._look_for_unclaimed()
        if self._storage.capabilities.shared:
            self._engine.timers.add(_RENEW_EVERY, self._renew)

    async def _open_together(self, consumers: Sequence[Consumer]) -> None:
        openings: deque[Coroutine[Any, Any, None]] = deque()
        try:
            for consumer in consumers:
                openings.append(self.open(consumer))
            while openings:
                await openings.popleft()
        finally:
            for opening in openings:
                opening.close()  # ``release`` gives back what it has asked for

    def open(self, consumer: Consumer, held: int | None = None) -> Coroutine[Any, Any, None]:
        """Take a subscription and go on where its cursor says, or stand by while another process has it.

        The place of a new one is settled at the call, before anything that is published after it. One that
        is ``held``, in this epoch, is taken anew without giving it up: nobody can forget it in between.
        """
        closing = self._closing.get(consumer.name)
        if closing is not None:
            return self._open_after(closing, consumer)
        opening = asyncio.ensure_future(
            self._storage.open_subscription(consumer.name, consumer.subscription.start, epoch=held)
        )
        self._openings[opening] = consumer.name
        self._being_opened[consumer] = asyncio.get_running_loop().create_future()
        return self._opened(consumer, opening, self._feed.controls.asked)

    def open_or_stand_by(self, consumer: Consumer) -> Awaitable[None]:
        """Do what ``open`` does while the bus runs: trouble of the storage is waited out."""
        return self._waited_out(consumer, self.open(consumer))

    async def _waited_out(self, consumer: Consumer, opening: Awaitable[None]) -> None:
        try:
            await opening
        except StorageClosedError:
            return
        except StorageError as error:
            self._engine.report(StorageTrouble(consumer.name, error))
            self._stand_by(consumer)

    async def _open_after(self, closing: asyncio.Future[None], consumer: Consumer) -> None:
        await asyncio.wait([closing])
        if consumer.state != CLOSED:
            await self.open(consumer)

    async def _opened(self, consumer: Consumer, opening: asyncio.Future[Cursor | None], asked: int) -> None:
        try:
            await self._take_over(consumer, opening, asked)
        finally:
            self._being_opened.pop(consumer).set_result(None)

    async def _take_over(
        self, consumer: Consumer, opening: asyncio.Future[Cursor | None], asked: int
    ) -> None:
        try:
            cursor = await opening
        except Exception:
            del self._openings[opening]
            raise
        wanted = self._engine.consumers.get(consumer.name) is consumer
        if cursor is not None and not wanted:
            await self._storage.release_subscription(consumer.name, cursor.epoch)
        del self._openings[opening]
        if cursor is None and wanted:
            consumer.epoch = max(1, consumer.epoch)  # somebody has it: a new one is another
            self._stand_by(consumer)
        elif cursor is not None and wanted:
            await self._resume(consumer, cursor)
            if self._feed.controls.asked != asked:
                self._feed.controls.look()  # it may have been asked after the cursor was read

    def _stand_by(self, consumer: Consumer) -> None:
        consumer.state = STANDBY
        consumer.release_followers()
        self._engine.background.spawn_later(_STANDBY_PAUSE, partial(self._try_again, consumer))
        self._engine.background.noticed()

    async def _try_again(self, consumer: Consumer) -> None:
        if consumer.state == STANDBY:
            await self.open_or_stand_by(consumer)
            if consumer.state == ACTIVE:
                self._engine.report(SubscriptionResumed(consumer.name))

    async def _resume(self, consumer: Consumer, cursor: Cursor) -> None:
        """Load what the cursor says is unfinished, then let the feed go on above its frontier."""
        forgotten = cursor.epoch <= consumer.epoch or consumer.number not in (0, cursor.number)
        had_come = consumer.saved
        consumer.number = cursor.number
        consumer.epoch = cursor.epoch
        consumer.journal = self._storage.journal
        consumer.unsaved = Unsaved()
        consumer.outside.clear()
        consumer.blocked = dict.fromkeys(cursor.blocked_keys, 0)
        tracker = consumer.tracker = WatermarkTracker.resume(cursor.frontier, cursor.unfinished)
        consumer.saved = cursor.frontier
        consumer.reason = ""
        # From the first delivery on, for a worker in the middle of a slice does not look again.
        consumer.replay = ReplayRun(cursor.replays[0]) if cursor.replays else None
        consumer.replays = frozenset(replay.id for replay in cursor.replays)
        consumer.reopenings = cursor.reopenings
        if forgotten:
            self._engine.halt(consumer, _forgotten(cursor.frontier, had_come))
            return
        if cursor.paused:
            self._feed.controls.pause(consumer)
            return
        for retry in cursor.retries:
            self._take_up(consumer, retry)
        consumer.release_followers()  # who waited for its opening asks anew
        if consumer.followed:
            consumer.unattempted.update(p for p in cursor.unfinished if p not in consumer.failing)
        consumer.state = ACTIVE
        for start in range(0, len(cursor.unfinished), _PAGE):
            await self._feed.enter_again(consumer, cursor.unfinished[start : start + _PAGE])
            if not consumer.is_open(tracker):
                return
        await self._resume_dead_letters(consumer, cursor)
        if not consumer.is_open(tracker):
            return
        if cursor.replays:
            # Beside the start of the bus, for it needs the workers, who begin last.
            self._engine.background.spawn(self._replay(consumer, cursor))
        else:
            self._go_on(consumer)

    async def _replay(self, consumer: Consumer, cursor: Cursor) -> None:
        try:
            if await self._replaying.run(consumer, cursor):
                self._go_on(consumer)
        except BusNotRunningError:
            return  # its progress is saved; the next start goes on with it

    def _go_on(self, consumer: Consumer) -> None:
        # Only now: what comes after the frontier must not overtake what was left unfinished below it.
        consumer.opened = True
        self._feed.look()
        if self._engine.quarantine.active:
            self._engine.quarantine.look()

    def _take_up(self, consumer: Consumer, retry: PendingRetry) -> None:
        clock = self._engine.clock
        # Noted by a clock that was ahead, or under a more patient policy, it would wait for years.
        wait = min(max(0.0, retry.due_at - clock.time()), consumer.subscription.retry.max_delay)
        due = clock.monotonic() + wait
        failing = Failing(retry.attempts, retry.failures, due, retry.from_dead_letter)
        consumer.failing[retry.position] = failing
        self._engine.quarantine.consider(consumer, retry.position, failing)

    async def _resume_dead_letters(self, consumer: Consumer, cursor: Cursor) -> None:
        """Go on with dead letters whose retry was under way, and with queues whose dead letter is gone."""
        tracker = consumer.tracker
        under_way = {retry.position: retry for retry in cursor.retries if retry.from_dead_letter}
        unblocked = set(cursor.blocked_keys)
        after = 0
        while under_way or unblocked:
            page = partial(self._storage.list_dead_letters, subscription=consumer.name, after=after)
            letters = await self._engine.background.insist(consumer, page)
            if letters is None or not consumer.is_open(tracker):
                return
            if not letters:
                break
            after = letters[-1].id
            for letter in letters:
                if letter.key is not None:
                    unblocked.discard(letter.key)
                retry = under_way.pop(letter.position, None)
                if retry is None or letter.state != "retrying":
                    continue
                if self._engine.redelivery.again(consumer, letter):
                    self._take_up(consumer, retry)
        for key in unblocked:
            self._engine.redelivery.release_key(consumer, key)

    async def _look_for_unclaimed(self) -> None:
        """Report durable names with unfinished work that nobody subscribes under."""
        engine = self._engine
        for record in await self._storage.list_subscriptions():
            unfinished = record.unfinished + max(0, self._feed.head - record.frontier)
            if record.name not in engine.consumers and record.owner is None and unfinished:
                report = WorkUnclaimed(record.name, unfinished)
                self.unclaimed.append(report)
                engine.report(report)

    async def count_parked(self) -> None:
        """Count the dead letters there are, and what queues behind them."""
        records = await self._storage.list_subscriptions()
        self._engine.parked = sum(record.parked for record in records)
        self._engine.redelivery.waiting = sum(record.queued for record in records)

    # -- keeping --------------------------------------------------------------------------------------

    def _renew(self) -> None:
        if not self._engine.halting:
            self._engine.background.spawn(self._renew_now())
            self._engine.timers.add(_RENEW_EVERY, self._renew)

    async def _renew_now(self) -> None:
        try:
            lost = await self._storage.renew_leases()
        except StorageError as error:
            self._engine.report(StorageTrouble("", error))
            return
        for name in lost:
            consumer = self._engine.consumers.get(name)
            if consumer is not None:
                self.fenced(consumer)

    def fenced(self, consumer: Consumer) -> None:
        """Let go of a subscription that was taken over, and stand by for it."""
        if consumer.tracker is None:
            return
        self._forget(consumer)
        self._stand_by(consumer)

    # -- giving up ------------------------------------------------------------------------------------

    def _forget(self, consumer: Consumer) -> None:
        consumer.live = consumer.opened = False
        consumer.tracker = None
        consumer.replay = None
        self._engine.pending -= consumer.drop_lanes()

    async def reopen(self, consumer: Consumer) -> None:
        """Take a subscription that was set aside up again from what is saved of it."""
        controls = await self._storage.read_controls([consumer.name])
        await self.count_parked()
        if consumer.state == CLOSED:
            return  # ended meanwhile: ``let_go`` gives it up
        self._forget(consumer)
        consumer.state = STARTING
        await self._waited_out(consumer, self.open(consumer, held=consumer.epoch))
        if any(control.move is not None for control in controls):
            await self.count_parked()  # dead letters of what is delivered again are gone
        for control in controls if consumer.tracker is not None else ():
            if consumer.reopenings != control.reopenings:
                # A dead letter was retried or discarded after they were counted.
                consumer.reopenings = control.reopenings
                self._feed.controls.look()

    def let_go(self, consumer: Consumer) -> None:
        """Save and give up a subscription that was ended while the bus runs."""
        if consumer.tracker is None:
            # Whoever opens it finds out at the end, and gives it back.
            closing = self._being_opened.get(consumer)
            if closing is None:
                return
        else:
            self._leaving.append(consumer)
            closing = asyncio.ensure_future(self._close(consumer))
            self._engine.background.spawn(closing)
        self._closing[consumer.name] = closing
        # Whoever wants the name next waits for it, so it is not given up twice at a time.
        closing.add_done_callback(lambda _: self._closing.pop(consumer.name, None))

    async def _close(self, consumer: Consumer) -> None:
        try:
            await self._engine.background.until(lambda: not consumer.in_flight)
            # A save that is on its way holds what this one has no more: it must not come too late.
            await self._engine.settlement.flush()
        except BusNotRunningError:
            return  # the bus stops meanwhile: ``release`` does it once the handlers have ended
        await self._engine.background.insist(consumer, partial(self._leave, consumer))

    async def _leave(self, consumer: Consumer) -> None:
        """Save what a subscription that was ended had finished; the rest stays unfinished in its cursor."""
        await self._storage.save_progress([progress_of(consumer, consumer.unsaved, last=True)])
        await self._storage.release_subscription(consumer.name, consumer.epoch)
        self._leaving.remove(consumer)

    def bury(self) -> None:
        """Forget what was being opened or given up in a loop that was closed: that may be opened anew."""
        self._openings.clear()
        self._leaving.clear()

    async def release(self) -> None:
        """Give up every subscription held, so that another process can go on at once."""
        ended = await asyncio.gather(
            *(self._give_back(opening, name) for opening, name in tuple(self._openings.items())),
            *(self._leave(consumer) for consumer in tuple(self._leaving)),
            *(
                self._storage.release_subscription(consumer.name, consumer.epoch)
                for consumer in self._engine.consumers.values()
                if consumer.tracker is not None
            ),
            return_exceptions=True,
        )
        for error in ended:
            if error is not None and not isinstance(error, StorageError):  # those leases run out
                raise error

    async def _give_back(self, opening: asyncio.Future[Cursor | None], name: str) -> None:
        """Give up what was asked for, and perhaps given, but taken by nobody before the bus stopped."""
        if not opening.done():
            opening.cancel()  # the storage gives back what nobody is left to take
        elif not opening.cancelled() and opening.exception() is None:
            cursor = opening.result()
            if cursor is not None:
                await self._storage.release_subscription(name, cursor.epoch)


def _forgotten(begins: int, had_come: int) -> str:
    """Say why a subscription does not just begin anew: what lies between would be lost without a word."""
    reason = f"position {begins}, where it begins anew, for somebody forgot it while it was subscribed to"
    if had_come:
        reason += f" and had come to {had_come}"
    return f"{reason} (reset it to have events below delivered)"
