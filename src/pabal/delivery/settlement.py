"""Save progress: all changes since the last save go out in one transaction, one save at a time."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from pabal.delivery.bookkeeping import Unsaved
from pabal.delivery.buffers import SAVED_LAST, SAVED_OFTEN
from pabal.delivery.consumer import ACTIVE, CLOSED, HALTED, PAUSED, Consumer
from pabal.delivery.sampling import Sampler
from pabal.delivery.shutdown import close_dead_tasks, end_tasks
from pabal.errors import BusNotRunningError, StorageClosedError, StorageError
from pabal.ports.storage import RECOVERIES_KEPT, Progress, SubscriptionStore
from pabal.ports.telemetry import StorageTrouble

if TYPE_CHECKING:
    from pabal.delivery.engine import Engine

_log = logging.getLogger("pabal")
_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 5.0
_SAVE_INTERVAL = 1.0
"""Seconds until a watermark is saved that has only moved past events for other subscriptions."""
_SAVE_EVERY = 1000
"""Positions after which such a watermark is saved at once."""


class Settlement:
    """Save progress; while one save is under way, changes gather for the next.

    So a slow disk sync carries the progress of everything that finished during the one before, and a quiet
    bus saves at once.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._sampler = Sampler(engine)
        self._store: SubscriptionStore | None = None
        self.dirty: dict[Consumer, None] = {}
        """The consumers that have changes to save."""
        self._passed: dict[Consumer, None] = {}
        self._wake: asyncio.Future[None] | None = None
        self._pausing: asyncio.Future[None] | None = None
        """Resolved to end the pause between two tries, while saving fails."""
        self._task: asyncio.Task[None] | None = None
        self._flushers: list[asyncio.Future[None]] = []
        self._saving = False
        self._stopping = False
        self.trouble: Exception | None = None
        """The error of the last save; None once a save succeeds."""

    def start(self, store: SubscriptionStore) -> None:
        """Begin saving to ``store``."""
        self._store = store
        self._stopping = False
        self._task = asyncio.create_task(self._run(), name="pabal-settlement")
        self._sampler.start(store)

    def mark(self, consumer: Consumer) -> None:
        """Record that a consumer has changes to save."""
        self.dirty[consumer] = None
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    def mark_passed(self, consumer: Consumer) -> None:
        """Record that a consumer moved past events for others, which need not be saved at once."""
        tracker = consumer.tracker
        if tracker is None or tracker.seen == consumer.saved or consumer in self.dirty:
            return
        if tracker.seen - consumer.saved >= _SAVE_EVERY:
            self.mark(consumer)
        elif not self._passed:
            self._engine.timers.add(_SAVE_INTERVAL, self._save_passed)
        self._passed[consumer] = None

    def _save_passed(self) -> None:
        mark_passed, self._passed = self._passed, {}
        for consumer in mark_passed:
            self.mark(consumer)

    @property
    def is_saving(self) -> bool:
        """Return whether a save is under way."""
        return self._saving

    @property
    def idle(self) -> bool:
        """Return whether everything is saved."""
        return not self.dirty and not self._saving

    def check(self) -> None:
        """Raise the error that ended saving for good: the storage was closed underneath."""
        if self._task is not None and self._task.done() and self.trouble is not None:
            raise self.trouble.with_traceback(None)  # each raise would add its frames to it

    async def flush(self) -> None:
        """Wait until all changes made before the call are saved."""
        if self.idle or self._task is None or self._task.done():
            return
        future = asyncio.get_running_loop().create_future()
        self._flushers.append(future)
        await future

    async def stop(self) -> None:
        """Save what is left, once, and stop."""
        task, self._task = self._task, None
        if task is None:
            return
        self._stopping = True
        self._save_passed()
        for consumer in self._engine.consumers.values():
            if consumer.tracker is not None and len(consumer.tracker) > SAVED_OFTEN:
                self.mark(consumer)  # regular saves may have left out some of what it finished
        for future in (self._wake, self._pausing):
            if future is not None:
                _resolve(future)
        try:
            await asyncio.wait([task])
            # ``asyncio.run`` cancels all tasks at its end, this one beside the one that stops the bus.
            await (self._run() if task.cancelled() else task)
            await self._sampler.stop()
        finally:
            await end_tasks(task)
            # If the last save was abandoned, nothing else would wake the waiting flushes.
            self._resolve_flushers(BusNotRunningError(action="wait any longer", state="stopping"))
            self._store = None

    def discard_closed_loop(self) -> None:
        """Forget the tasks of an event loop that was closed, and all unsaved changes."""
        close_dead_tasks(self._task)
        self._task = self._wake = self._pausing = None
        self._flushers.clear()
        self.dirty.clear()
        self._passed.clear()
        self._saving = False

    async def _run(self) -> None:
        pause = _FIRST_PAUSE
        while True:
            if not self.dirty:
                self._resolve_flushers()
                if self._stopping:
                    return
                self._wake = asyncio.get_running_loop().create_future()
                await self._wake
                self._wake = None
                # One turn of the loop lets everything that is finishing right now join this save.
                await asyncio.sleep(0)
                continue
            try:
                await self._save()
                pause = _FIRST_PAUSE
                self.trouble = None
            except Exception as error:
                if not isinstance(error, StorageError):
                    _log.exception("progress could not be saved because of a bug in pabal; please report it")
                self.trouble = error
                self._engine.report(StorageTrouble("", error))
                if self._stopping or isinstance(error, StorageClosedError):
                    self._resolve_flushers(error)
                    self._engine.background.notify_observers()  # ``drain`` must not wait for ever
                    return
                await self._pause(pause)
                pause = min(_LONGEST_PAUSE, pause * 2)

    async def _pause(self, seconds: float) -> None:
        """Wait before the next try; ``stop`` ends the wait, since the engine's timers are cleared by then."""
        future = self._pausing = asyncio.get_running_loop().create_future()
        self._engine.timers.add(seconds, lambda: _resolve(future))
        await future
        self._pausing = None

    async def _save(self) -> None:
        assert self._store is not None
        await self._engine.tally.wait_until_counted()
        consumers = list(self.dirty)
        self.dirty.clear()
        taken: list[tuple[Consumer, Unsaved]] = []
        changes: list[Progress] = []
        for consumer in consumers:
            if consumer.tracker is None or consumer.moves or consumer.state not in (ACTIVE, HALTED, PAUSED):
                continue
            unsaved, consumer.unsaved = consumer.unsaved, Unsaved()
            taken.append((consumer, unsaved))
            changes.append(progress_of(consumer, unsaved, last=self._stopping))
        if not changes:
            return
        if self._engine.feed is not None:
            self._engine.feed.look()  # there is room now for more dead letters
        self._saving = True
        try:
            lost = await self._store.save_progress(changes)
        except BaseException:
            for consumer, unsaved in taken:
                _restore(consumer, unsaved)
                self.dirty[consumer] = None
            raise
        finally:
            self._saving = False
        for (consumer, _), change in zip(taken, changes, strict=True):
            # A consumer that was removed or reopened since then has another lease, or needs none.
            if change.name in lost and change.epoch == consumer.epoch and consumer.state != CLOSED:
                self._engine.on_lease_lost(consumer)
        self._engine.background.notify_observers()

    def _resolve_flushers(self, error: BaseException | None = None) -> None:
        flushers, self._flushers = self._flushers, []
        for future in flushers:
            if not future.done():
                if error is None:
                    future.set_result(None)
                else:
                    future.set_exception(error)


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def progress_of(consumer: Consumer, unsaved: Unsaved, *, last: bool) -> Progress:
    """Return the progress of a consumer for a save; the ``last`` one lists more unfinished positions."""
    assert consumer.tracker is not None
    consumer.saved = consumer.tracker.seen
    watermark, frontier, unfinished = consumer.tracker.snapshot(SAVED_LAST if last else SAVED_OFTEN)
    return Progress(
        name=consumer.name,
        epoch=consumer.epoch,
        watermark=watermark,
        frontier=frontier,
        unfinished=unfinished,
        retries=tuple(unsaved.retries.values()),
        cleared=tuple(unsaved.cleared - unsaved.retries.keys()),
        recovered=tuple(unsaved.recovered),
        parked=tuple(unsaved.parked),
        queued=tuple(unsaved.queued),
        replayed=() if consumer.replay is None else (consumer.replay.progress,),
    )


def _restore(consumer: Consumer, unsaved: Unsaved) -> None:
    """Put back changes that could not be saved, below newer ones."""
    later = consumer.unsaved
    retries = {p: retry for p, retry in unsaved.retries.items() if p not in later.cleared}
    consumer.unsaved = Unsaved(
        retries={**retries, **later.retries},
        cleared=unsaved.cleared | later.cleared,
        recovered=(unsaved.recovered + later.recovered)[-RECOVERIES_KEPT:],
        parked=unsaved.parked + later.parked,
        queued=unsaved.queued + later.queued,
        letters=unsaved.letters + later.letters,
        left_queue=unsaved.left_queue + later.left_queue,
    )
