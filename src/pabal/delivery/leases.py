"""Open subscriptions in the storage, resume them, renew their leases, and release them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from pabal.delivery.bookkeeping import Block, Failing, Unsaved
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
"""How many subscriptions a start opens in one commit; the event loop runs between two commits."""
_STANDBY_PAUSE = 0.5
_RENEW_EVERY = 3.0
"""Seconds; a lease lasts ten."""


class Leases:
    """Hold subscriptions for this process, from opening them to releasing them."""

    def __init__(self, engine: Engine, storage: EventStorage, feed: Feed) -> None:
        self._engine = engine
        self._storage = storage
        self._feed = feed
        self._openings: dict[asyncio.Future[Cursor | None], str] = {}
        """Open requests to the storage, with their names, until the result has been taken over."""
        self._closing: dict[str, asyncio.Future[None]] = {}
        """Names that are being released; another opening of one waits for that."""
        self._being_opened: dict[Consumer, asyncio.Future[None]] = {}
        self._replaying = Replaying(engine, storage, feed)
        self.has_begun = False
        """Whether ``start`` has begun to open; subscriptions added later are opened one by one."""
        self.leaving: list[Consumer] = []
        """Removed subscriptions, until they are saved and released."""
        self.unclaimed: list[WorkUnclaimed] = []

    # -- opening --------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Open every subscription, and look for unfinished work under names that nothing subscribes to."""
        await self._engine.tally.count()  # first: an open consumer asks whether there is room
        self.has_begun = True
        consumers = list(self._engine.consumers.values())
        for first in range(0, len(consumers), _TOGETHER):
            await self._open_all(consumers[first : first + _TOGETHER])
        if self._engine.parked and any(consumer.epoch == 1 for consumer in consumers):
            await self._engine.tally.count()  # a new one drops dead letters of the events that it gets again
        await self._look_for_unclaimed()
        if self._storage.capabilities.shared:
            self._engine.timers.add(_RENEW_EVERY, self._renew)

    async def _open_all(self, consumers: Sequence[Consumer]) -> None:
        for finish in [self._begin_opening(consumer) for consumer in consumers]:
            await finish()  # if one raises, ``release`` gives back what was requested for the others

    def _begin_opening(self, consumer: Consumer, held: int | None = None) -> Callable[[], Awaitable[None]]:
        """Request a subscription from the storage; return what takes it over, or stands by for it.

        The position of a new one is fixed at the call, before anything published after it. With ``held``, the
        epoch in which this process holds it, it is opened again without being released: it cannot be
        forgotten in between.
        """
        closing = self._closing.get(consumer.name)
        if closing is not None:
            return partial(self._open_after, closing, consumer)
        opening = asyncio.ensure_future(
            self._storage.open_subscription(consumer.name, consumer.subscription.start, epoch=held)
        )
        self._openings[opening] = consumer.name
        self._being_opened[consumer] = asyncio.get_running_loop().create_future()
        return partial(self._opened, consumer, opening, self._feed.controls.request_count)

    def open_or_stand_by(self, consumer: Consumer) -> Awaitable[None]:
        """Open a subscription while the bus runs: on storage trouble, stand by and try again."""
        return self._finish_opening(consumer, self._begin_opening(consumer))

    async def _finish_opening(self, consumer: Consumer, finish: Callable[[], Awaitable[None]]) -> None:
        try:
            await finish()
        except StorageClosedError:
            return
        except StorageError as error:
            self._engine.report(StorageTrouble(consumer.name, error))
            self._stand_by(consumer, f"cannot be opened: {error}")
        if consumer.tracker is not None:
            self._engine.tally.recount()  # the previous holder may have changed the number

    async def _open_after(self, closing: asyncio.Future[None], consumer: Consumer) -> None:
        await asyncio.wait([closing])
        if consumer.state != CLOSED:
            await self._begin_opening(consumer)()

    async def wait_until_opened(self, consumer: Consumer) -> None:
        """Wait for an opening to end, if one is under way: two at once would take each other for ended."""
        opening = self._being_opened.get(consumer)
        if opening is not None:
            await asyncio.wait([opening])

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
            consumer.epoch = max(1, consumer.epoch)  # it exists, so a later epoch 1 means a new one
            self._stand_by(consumer)
        elif cursor is not None and wanted:
            await self._resume(consumer, cursor)
            if self._feed.controls.request_count != asked:
                self._feed.controls.poll()  # a request may have come after the cursor was read

    def _stand_by(self, consumer: Consumer, trouble: str = "") -> None:
        consumer.state, consumer.reason = STANDBY, trouble
        consumer.release_followers()
        self._engine.background.spawn_later(_STANDBY_PAUSE, partial(self._try_again, consumer))
        self._engine.background.notify_observers()

    async def _try_again(self, consumer: Consumer) -> None:
        await self.wait_until_opened(consumer)
        if consumer.state == STANDBY:
            with suppress(StorageClosedError):  # the call itself raises it, too
                await self.open_or_stand_by(consumer)
            if consumer.state == ACTIVE:
                self._engine.report(SubscriptionResumed(consumer.name))

    async def _resume(self, consumer: Consumer, cursor: Cursor) -> None:
        """Load the unfinished deliveries of the cursor, then let the feed continue above its frontier."""
        forgotten = cursor.epoch <= consumer.epoch or consumer.number not in (0, cursor.number)
        last_saved = consumer.saved
        consumer.number = cursor.number
        consumer.epoch = cursor.epoch
        consumer.journal = self._storage.journal
        consumer.unsaved = Unsaved()
        consumer.redelivering.clear()
        consumer.blocked = {key: Block() for key in cursor.blocked_keys}
        tracker = consumer.tracker = WatermarkTracker.resume(cursor.frontier, cursor.unfinished)
        consumer.saved = cursor.frontier
        consumer.moves = False
        consumer.reason = ""
        # Set before the first delivery: a worker in the middle of a slice does not check again.
        consumer.replay = ReplayRun(cursor.replays[0], cursor.frontier) if cursor.replays else None
        consumer.replays = frozenset(replay.id for replay in cursor.replays)
        consumer.reopenings = cursor.reopenings
        if forgotten:
            self._engine.halt(consumer, _forgotten_reason(cursor.frontier, last_saved))
            return
        if cursor.paused:
            self._feed.controls.pause(consumer)
            return
        for retry in cursor.retries:
            if not retry.from_dead_letter:
                self._restore_retry(consumer, retry)
        consumer.release_followers()  # lanes that waited for the opening check again
        if consumer.followed:
            consumer.unattempted.update(p for p in cursor.unfinished if p not in consumer.failing)
        consumer.state = ACTIVE
        for start in range(0, len(cursor.unfinished), _PAGE):
            await self._feed.requeue(consumer, cursor.unfinished[start : start + _PAGE])
            if not consumer.is_open(tracker):
                return
        await self._resume_dead_letters(consumer, cursor)
        if not consumer.is_open(tracker):
            return
        if cursor.replays:
            # In the background of the start: a replay needs the workers, which begin last.
            self._engine.background.spawn(self._replay(consumer, cursor))
        else:
            self._start_feeding(consumer)

    async def _replay(self, consumer: Consumer, cursor: Cursor) -> None:
        if await self._replaying.run(consumer, cursor):  # if the bus stops, the next start continues it
            self._start_feeding(consumer)

    def _start_feeding(self, consumer: Consumer) -> None:
        # Not earlier: events after the frontier must not overtake those left unfinished below it.
        consumer.is_loaded = True
        self._feed.look()
        if self._engine.quarantine.active:
            self._engine.quarantine.release_if_quiet()

    def _restore_retry(self, consumer: Consumer, retry: PendingRetry) -> None:
        clock = self._engine.clock
        # A clock that was ahead, or an earlier policy with long delays, could have set a due time years away.
        wait = min(max(0.0, retry.due_at - clock.time()), consumer.subscription.retry.max_delay)
        due = clock.monotonic() + wait
        failing = Failing(retry.attempts, retry.failures, due, retry.from_dead_letter)
        consumer.failing[retry.position] = failing
        self._engine.quarantine.suspect_if_died(consumer, retry.position, failing)

    async def _resume_dead_letters(self, consumer: Consumer, cursor: Cursor) -> None:
        """Resume retries of dead letters, and release queues whose dead letter is gone."""
        tracker = consumer.tracker
        under_way = {retry.position: retry for retry in cursor.retries if retry.from_dead_letter}
        unblocked = set(cursor.blocked_keys)
        after = 0
        while under_way or unblocked:
            page = partial(self._storage.list_dead_letters, subscription=consumer.name, after=after)
            letters = await self._engine.background.call_with_retry(consumer, page)
            if letters is None or not consumer.is_open(tracker):
                return
            if not letters:
                break
            after = letters[-1].id
            for letter in letters:
                if letter.key in unblocked:
                    unblocked.discard(letter.key)
                    self._note_blocker(consumer, letter.key, letter.position)
                retry = under_way.pop(letter.position, None)
                if retry is None or letter.state != "retrying":
                    continue
                if self._engine.redelivery.redeliver(consumer, letter):
                    self._restore_retry(consumer, retry)
        if under_way:
            # Their dead letters were discarded, and a failure before that was saved after it.
            consumer.unsaved.cleared.update(under_way)
            self._engine.settlement.mark(consumer)
        for key in unblocked:
            self._note_blocker(consumer, key, 0)
            self._engine.redelivery.release_key(consumer, key)

    def _note_blocker(self, consumer: Consumer, key: str, position: int) -> None:
        """Record what blocks a key, unless a discard has released it meanwhile."""
        block = consumer.blocked.get(key)
        if block is not None and block.position is None:
            block.position = position

    async def _look_for_unclaimed(self) -> None:
        """Report durable names that have unfinished work but no subscriber."""
        engine = self._engine
        for record in await self._storage.list_subscriptions():
            unfinished = record.unfinished + max(0, self._feed.head - record.frontier)
            if record.name not in engine.consumers and record.owner is None and unfinished:
                report = WorkUnclaimed(record.name, unfinished)
                self.unclaimed.append(report)
                engine.report(report)

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
                self.on_lease_lost(consumer)
        if self._storage.capabilities.shared:
            self._engine.tally.recount()  # other processes park, retry and discard, too

    def on_lease_lost(self, consumer: Consumer) -> None:
        """Let go of a subscription that another process took over, and stand by for it."""
        if consumer.tracker is None:
            return
        self._forget(consumer)
        self._stand_by(consumer)
        self._engine.tally.recount()  # dead letters that were not saved are lost with the lease

    # -- giving up ------------------------------------------------------------------------------------

    def _forget(self, consumer: Consumer) -> None:
        consumer.live = consumer.is_loaded = False
        consumer.tracker = None
        consumer.replay = None
        self._engine.pending -= consumer.drop_lanes()

    async def reopen(self, consumer: Consumer) -> None:
        """Open a subscription that was set aside again, from what is saved of it."""
        if consumer.state == CLOSED or self._engine.halting:
            return  # removed in the meantime, or the bus stops: it is released, and must not be taken again
        self._forget(consumer)
        consumer.state = STARTING
        await self._finish_opening(consumer, self._begin_opening(consumer, held=consumer.epoch))

    def release_removed(self, consumer: Consumer) -> None:
        """Save and release a subscription that was removed: now, or by ``release`` if the bus is stopping."""
        if consumer.tracker is None:
            # The task that opens it finds out at the end, and releases it.
            closing = self._being_opened.get(consumer)
            if closing is None:
                return
        else:
            self.leaving.append(consumer)
            if self._engine.halting:
                return
            closing = asyncio.ensure_future(self._close(consumer))
            self._engine.background.spawn(closing)
        self._closing[consumer.name] = closing
        # The next opening of the name waits for this, so a name is never released twice at once.
        closing.add_done_callback(lambda _: self._closing.pop(consumer.name, None))

    async def _close(self, consumer: Consumer) -> None:
        try:
            await self._engine.background.wait_until(lambda: not consumer.in_flight)
            # An earlier save holds changes that are no longer in this one, so it must be finished first.
            await self._engine.settlement.flush()
        except BusNotRunningError:
            return  # the bus is stopping: ``release`` does it once the handlers have ended
        await self._engine.background.call_with_retry(consumer, partial(self._save_and_release, consumer))

    async def _save_and_release(self, consumer: Consumer) -> None:
        """Save what a removed subscription has finished; the rest stays unfinished in its cursor."""
        async with self._engine.tally.change():
            if not consumer.moves:
                await self._storage.save_progress([progress_of(consumer, consumer.unsaved, last=True)])
                consumer.unsaved = Unsaved()
        await self._storage.release_subscription(consumer.name, consumer.epoch)
        self.leaving.remove(consumer)

    def discard_closed_loop(self) -> None:
        """Forget openings and releases of a closed event loop, so that their names can be opened again."""
        self._openings.clear()
        self.leaving.clear()

    async def release(self) -> None:
        """Release every subscription, so that other processes can take over at once."""
        ended = await asyncio.gather(
            *(self._release_opening(opening, name) for opening, name in tuple(self._openings.items())),
            *(self._release_leaving(consumer) for consumer in tuple(self.leaving)),
            *(
                self._storage.release_subscription(consumer.name, consumer.epoch)
                for consumer in self._engine.consumers.values()
                if consumer.tracker is not None
            ),
            return_exceptions=True,
        )
        for error in ended:
            if error is not None and not isinstance(error, StorageError):  # that lease expires
                raise error

    async def _release_leaving(self, consumer: Consumer) -> None:
        """Save and release a removed subscription; release it even if what it has finished cannot be saved.

        The next start may use the same storage object, on which the lease would not expire.
        """
        try:
            await self._save_and_release(consumer)
        except StorageError:
            await self._storage.release_subscription(consumer.name, consumer.epoch)
            raise

    async def _release_opening(self, opening: asyncio.Future[Cursor | None], name: str) -> None:
        """Release a subscription that was requested but not taken over before the bus stopped."""
        if not opening.done():
            opening.cancel()  # the storage then releases what it has opened
        elif not opening.cancelled() and opening.exception() is None:
            cursor = opening.result()
            if cursor is not None:
                await self._storage.release_subscription(name, cursor.epoch)


def _forgotten_reason(begins: int, last_saved: int) -> str:
    """Say why a forgotten subscription halts: starting again at ``begins`` would skip events silently."""
    reason = f"position {begins}, where it starts again, because it was forgotten while in use"
    if last_saved:
        reason += f" and had reached position {last_saved}"
    return f"{reason} (reset it to have earlier events delivered)"
