"""Carry out requests for subscriptions: pause, resume, move the cursor, replay a range."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from pabal.delivery.consumer import ACTIVE, HALTED, PAUSED, STARTING, Consumer
from pabal.errors import BusNotRunningError, StorageClosedError, StorageError
from pabal.ports.storage import Control, EventStorage, Start
from pabal.ports.telemetry import StorageTrouble, SubscriptionPaused, SubscriptionResumed

if TYPE_CHECKING:
    from pabal.delivery.engine import Engine
    from pabal.delivery.leases import Leases

_PAUSE = 0.5


class Controls:
    """Compare the requests in the storage with the state of the consumers here, and act on the difference.

    Requests may come from any process, and reading them more than once does no harm.
    """

    def __init__(self, engine: Engine, storage: EventStorage, leases: Leases) -> None:
        self._engine = engine
        self._storage = storage
        self._leases = leases
        self._remove_listener: Callable[[], None] | None = None
        self._has_ended = False
        """The bus has stopped; calls that are still waiting must not act on subscriptions of its next run."""
        self._rerun = False
        self._is_reading = False
        self._recorded_halts: dict[str, int] = {}
        """For each name, the epoch in which the storage has a record that it halted here."""
        self._reopening: set[Consumer] = set()
        self.request_count = 0
        """Grows with each possible request, so that an opening notices one made while the cursor was read."""

    def start(self) -> None:
        """Listen for requests made through this storage object; those of other processes are polled for."""
        loop = asyncio.get_running_loop()

        def asked() -> None:
            try:
                loop.call_soon_threadsafe(self.poll)
            except RuntimeError:
                pass  # the loop is closed: the next opening reads the request from the cursor

        self._remove_listener = self._storage.add_control_listener(asked)

    def stop(self) -> None:
        """Stop listening, and act on nothing from now on."""
        self._has_ended = True
        remove, self._remove_listener = self._remove_listener, None
        if remove is not None:
            remove()

    def poll(self) -> None:
        """Read the requests in the background."""
        if not self._engine.halting:
            self._engine.background.spawn(self.apply_requests())

    async def wait_until_open(self, consumer: Consumer) -> None:
        """Wait until a subscription is open; not in a handler, since the opening may wait for its end."""
        if self._engine.in_handler():
            return
        await self._engine.background.wait_until(
            lambda: consumer.state != STARTING and consumer not in self._reopening
        )

    async def apply_requests(self) -> None:
        """Act on all requests made before the call; return once that has begun for each."""
        self.request_count += 1
        self._rerun = True
        while self._is_reading:
            await self._engine.background.wait_until(lambda: not self._is_reading)
            if not self._rerun:
                return
        self._is_reading = True
        try:
            while self._rerun:
                self._rerun = False
                # The answer lacks halts recorded while it is on its way.
                recorded_halts = dict(self._recorded_halts)
                for control in await self._storage.read_controls(list(self._engine.consumers)):
                    consumer = self._engine.consumers.get(control.name)
                    if consumer is not None:
                        self._apply(consumer, control, recorded_halts.get(control.name))
        except StorageClosedError:
            return
        except StorageError as error:
            self._engine.report(StorageTrouble("", error))
            self._engine.timers.add(_PAUSE, self.poll)
        except asyncio.CancelledError:
            self._rerun = True  # a handler whose time is up may have been reading for other callers, too
            raise
        finally:
            self._is_reading = False
            self._engine.background.notify_observers()

    def _apply(self, consumer: Consumer, control: Control, recorded_epoch: int | None) -> None:
        if self._has_ended or consumer.tracker is None or consumer in self._reopening:
            return  # it is about to be opened, and reads the request from its cursor then
        if control.move is not None:
            if consumer.state == ACTIVE:
                self._engine.set_aside(consumer, PAUSED)
            self._start_reopening(consumer, resumes=False)  # the opening finds the cursor moved
        elif consumer.state == HALTED:
            if recorded_epoch == consumer.epoch and not control.halted:
                self._start_reopening(consumer, resumes=not control.paused)
        elif control.paused:
            if consumer.state == ACTIVE:
                self.pause(consumer)
            elif consumer.state == PAUSED and control.reopenings != consumer.reopenings:
                self._start_reopening(consumer, resumes=False)
        elif consumer.state == PAUSED or (consumer.state == ACTIVE and _has_new_request(consumer, control)):
            resumes = consumer.state == PAUSED
            if not resumes:
                self._engine.set_aside(consumer, PAUSED)
            self._start_reopening(consumer, resumes)

    async def tell_holder(self, name: str) -> None:
        """Have the process that holds a subscription, if another, learn what became of its dead letters."""
        consumer = self._engine.consumers.get(name)
        if consumer is None or consumer.tracker is None:
            await self._storage.request_reopening(name)

    def note_halts(self) -> None:
        """Record in the storage what halted here, so that any process may ask to resume it."""
        for consumer in self._engine.consumers.values() if not self._engine.halting else ():
            if consumer.state == HALTED and self._recorded_halts.get(consumer.name) != consumer.epoch:
                self._engine.background.spawn(self._note_halt(consumer, consumer.epoch))

    async def _note_halt(self, consumer: Consumer, epoch: int) -> None:
        while consumer.state == HALTED and consumer.epoch == epoch:
            try:
                if await self._storage.note_halt(consumer.name, epoch, consumer.reason):
                    self._recorded_halts[consumer.name] = epoch
                    # A resume may have been asked for before the record was known here.
                    await self.apply_requests()
                return
            except StorageClosedError:
                return
            except StorageError as error:
                self._engine.report(StorageTrouble(consumer.name, error))
                await self._engine.background.sleep(_PAUSE)

    def _start_reopening(self, consumer: Consumer, resumes: bool) -> None:
        self._reopening.add(consumer)
        self._engine.background.spawn(self._reopen(consumer, resumes))

    def pause(self, consumer: Consumer) -> None:
        """Stop taking events for a subscription; what it has not finished stays unfinished in its cursor."""
        self._engine.set_aside(consumer, PAUSED)
        self._engine.report(SubscriptionPaused(consumer.name))

    async def _reopen(self, consumer: Consumer, resumes: bool) -> None:
        """Open a subscription again; on storage trouble keep trying, because nothing else would."""
        set_aside = consumer.state
        try:
            while True:
                try:
                    await self._reopen_when_idle(consumer, set_aside, resumes)
                    return
                except StorageClosedError:
                    return
                except StorageError as error:
                    self._engine.report(StorageTrouble(consumer.name, error))
                    await self._engine.background.sleep(_PAUSE)
        except BusNotRunningError:
            return  # the next start opens it
        finally:
            self._reopening.discard(consumer)

    async def _reopen_when_idle(self, consumer: Consumer, set_aside: str, resumes: bool) -> None:
        """Open a subscription again once its handlers have ended and their work is saved."""
        await self._wait_until_idle(consumer)
        if consumer.state == set_aside:
            await self._leases.reopen(consumer)
            if resumes and consumer.state == ACTIVE:
                self._engine.report(SubscriptionResumed(consumer.name))

    async def resume(self, consumer: Consumer) -> None:
        """Open a halted subscription again, and wait for that except in a handler. Raises BusNotRunningError.

        The work has a task of its own: a caller that is cancelled, as by a time limit, must not leave the
        subscription half opened.
        """
        if consumer not in self._reopening:
            self._start_reopening(consumer, resumes=True)
        await self.wait_until_open(consumer)
        if self._engine.halting:
            raise BusNotRunningError(action="wait any longer", state="stopping")

    async def _wait_until_idle(self, consumer: Consumer) -> None:
        await self._leases.wait_until_opened(consumer)
        await self._engine.background.wait_until(lambda: not consumer.in_flight)
        await self._engine.settlement.flush()

    async def reset(self, consumer: Consumer, start: Start) -> int:
        """Move the cursor of a subscription that this process holds, and go on from there."""
        await self.wait_until_open(consumer)
        if consumer.tracker is None:
            return await self._storage.reset_subscription(consumer.name, start)
        self._reopening.add(consumer)
        try:
            if consumer.state == ACTIVE:
                self._engine.set_aside(consumer, PAUSED)
            await self._wait_until_idle(consumer)
            consumer.moves = True  # all it has finished is saved; it may be removed before it is opened again
            position = await self._storage.reset_subscription(consumer.name, start, epoch=consumer.epoch)
        finally:
            # Also if the move was refused: deliveries that were set aside are still unfinished in the cursor.
            if not self._has_ended:
                self._engine.background.spawn(self._open_again(consumer))
        await self._engine.tally.count()
        return position

    async def _open_again(self, consumer: Consumer) -> None:
        if consumer.tracker is not None:
            await self._reopen(consumer, resumes=False)
        self._reopening.discard(consumer)


def _has_new_request(consumer: Consumer, control: Control) -> bool:
    """Return whether there is a request that the opening did not see, or the replay was called off."""
    asked = {replay.id for replay in control.replays}
    running = consumer.replay is not None and len(consumer.replay) > 0
    cancelled = running and consumer.replay.replay.id not in asked  # type: ignore[union-attr]
    reopens = control.reopenings != consumer.reopenings
    return bool(asked - consumer.replays) or cancelled or reopens
