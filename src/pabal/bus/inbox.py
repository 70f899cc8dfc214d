"""``publish_threadsafe``: a queue for other threads, emptied by one task on the bus's loop."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from concurrent.futures import Future
from contextvars import Context
from typing import Any

from pabal.bus.intake import Intake
from pabal.delivery.context import Mark, with_cause
from pabal.delivery.engine import Engine
from pabal.delivery.shutdown import close_dead_tasks, is_dead
from pabal.domain.envelope import Receipt
from pabal.domain.event import DomainEvent, adopt
from pabal.errors import BusNotRunningError, UsageError, WrongLoopError

Entry = tuple[Any, Mark, "Future[Receipt]"]
_BATCH = 256
FORKED = "this process was forked while the bus ran; make another bus here, or start it after the fork"


def running_loop() -> asyncio.AbstractEventLoop | None:
    """Return the event loop that runs in this thread, or None."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


class Inbox:
    """Publish the events that other threads put in, in order and in batches.

    One call across threads wakes the loop for all events that came in the meantime; no event needs its own
    task.
    """

    def __init__(self, engine: Engine, intake: Intake) -> None:
        self._engine = engine
        self._intake = intake
        self._loop: asyncio.AbstractEventLoop | None = None
        self._entries: deque[Entry] = deque()
        self._from_handlers: deque[tuple[Mark, Future[Receipt]]] = deque()
        """The entries put in by handlers, in order; some may be published already."""
        self._pump: asyncio.Task[None] | None = None
        self._process = 0
        self._waiter: asyncio.Future[None] | None = None
        """The future on which the pump waits while the bus is full."""

    def open(self) -> None:
        """Begin to take entries for the running loop."""
        self.close()  # drop entries for a closed loop: their callers were told that they failed
        self._loop = asyncio.get_running_loop()
        self._process = os.getpid()

    def refusal(self, action: str) -> UsageError:
        """Return the error for a call from a thread or process where the bus does not run."""
        return UsageError(FORKED) if self._is_inherited else WrongLoopError(action=action)

    @property
    def _is_inherited(self) -> bool:
        """Return whether this process was forked while the bus ran; only the parent has its workers."""
        return self._loop is not None and self._process != os.getpid()

    def put(self, event: Any, mark: Mark) -> Future[Receipt]:
        """Queue an event; can be called from any thread."""
        if self._is_inherited:
            raise UsageError(FORKED)
        future: Future[Receipt] = Future()
        loop = self._loop
        # While the bus stops, a handler in a thread may still publish, like any other handler.
        if loop is None or not (self._intake.is_open or self._engine.is_handling(mark)):
            raise BusNotRunningError(
                action="publish_threadsafe", state="stopped" if loop is None else "stopping"
            )
        future.set_running_or_notify_cancel()
        if mark is not None:
            self._from_handlers.append((mark, future))
        self._entries.append((event, mark, future))
        try:
            # An empty context: events the pump publishes must not name the caller's event as their cause.
            loop.call_soon_threadsafe(self._start_pump, mark, context=Context())
        except RuntimeError as error:
            raise BusNotRunningError(action="publish_threadsafe", state="stopped") from error
        return future

    @property
    def is_empty(self) -> bool:
        """Return whether everything that was put in has been published."""
        return not self._entries and self._pump is None

    async def flush(self, deadline: float) -> None:
        """Publish the queued entries, until ``deadline`` (monotonic) at the latest."""
        if self._pump is not None and is_dead(self._pump):
            close_dead_tasks(self._pump)
            self._pump = self._waiter = None
        if self._pump is not None:
            remaining = max(0.0, deadline - self._engine.clock.monotonic())
            await asyncio.wait([self._pump], timeout=remaining)

    def close(self) -> None:
        """Take no more entries, and refuse those still queued."""
        self._loop = None
        while self._entries:
            _, _, future = self._entries.popleft()
            future.set_exception(BusNotRunningError(action="publish_threadsafe", state="stopped"))
        self._forget_published()

    def _start_pump(self, mark: Mark = None) -> None:
        if self._loop is None:
            self.close()  # put in just as the bus stopped
        elif self._pump is None and self._entries:
            self._pump = asyncio.get_running_loop().create_task(self._run(), name="pabal-inbox")
            self._pump.add_done_callback(self._on_pump_done)
        elif self._waiter is not None and not self._waiter.done() and self._engine.is_handling(mark):
            self._engine.admission.let_in(self._waiter)

    def _is_urgent(self) -> bool:
        """Return whether a handler may be waiting for an entry.

        If such an entry waited for room, the two would wait for each other: only handlers make room. The
        entries ahead of it are published with it, to keep the order of each thread.
        """
        waiting = self._from_handlers.copy()  # one atomic step: other threads append to it
        return any(self._engine.is_handling(mark) for mark, future in waiting if not future.done())

    def _forget_published(self) -> None:
        while self._from_handlers and self._from_handlers[0][1].done():
            self._from_handlers.popleft()

    def _on_pump_done(self, task: asyncio.Task[None]) -> None:
        self._pump = None
        if self._loop is None:
            self.close()
        elif self._entries:
            self._start_pump()
        self._engine.background.notify_observers()

    async def _run(self) -> None:
        while self._entries:
            batch = [self._entries.popleft() for _ in range(min(_BATCH, len(self._entries)))]
            await self._publish(batch)
            self._forget_published()

    async def _publish(self, batch: list[Entry]) -> None:
        """Publish a batch, in one step if the storage allows; one bad event fails alone."""
        intake = self._intake
        accepted: list[tuple[DomainEvent, Future[Receipt]]] = []
        for event, mark, future in batch:
            try:
                accepted.append((with_cause(adopt(event), mark), future))
            except Exception as error:
                future.set_exception(error)
        if not accepted:
            return
        try:
            if intake.is_full and not self._is_urgent():
                self._waiter = asyncio.get_running_loop().create_future()
                await intake.wait_for_admission(self._waiter)
            receipts = await intake.publish_stamped([event for event, _ in accepted])
        except BusNotRunningError as error:
            self._refuse(accepted, error)
            return
        except Exception:
            await self._publish_singly(accepted)
            return
        except BaseException:
            self._refuse(accepted, BusNotRunningError(action="publish_threadsafe", state="stopping"))
            raise
        finally:
            self._waiter = None
        for (_, future), receipt in zip(accepted, receipts, strict=True):
            future.set_result(receipt)

    @staticmethod
    def _refuse(accepted: list[tuple[DomainEvent, Future[Receipt]]], error: BusNotRunningError) -> None:
        for _, future in accepted:
            future.set_exception(error)

    async def _publish_singly(self, accepted: list[tuple[DomainEvent, Future[Receipt]]]) -> None:
        for event, future in accepted:
            try:
                receipts = await self._intake.publish_stamped([event])
                future.set_result(receipts[0])
            except Exception as error:
                future.set_exception(error)
