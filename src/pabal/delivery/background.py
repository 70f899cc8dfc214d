"""Rare work beside the workers, and waiting for the engine to reach a state."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

from pabal.delivery.consumer import Consumer
from pabal.delivery.shutdown import close_dead_tasks, is_dead
from pabal.errors import BusNotRunningError, CorruptLogError, StorageClosedError, StorageError
from pabal.ports.telemetry import StorageTrouble

if TYPE_CHECKING:
    from pabal.delivery.engine import Engine

T = TypeVar("T")
_PAUSE = 0.5
_log = logging.getLogger("pabal")


class Background:
    """Run the engine's rare tasks, and wake observers when the engine's state has changed."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._tasks: set[asyncio.Future[Any]] = set()
        self.observers: list[asyncio.Future[None]] = []

    # -- tasks ----------------------------------------------------------------------------------------

    @property
    def tasks(self) -> tuple[asyncio.Future[Any], ...]:
        """Return the tasks under way, such as opening a subscription."""
        return tuple(self._tasks)

    def spawn(self, work: Awaitable[Any]) -> None:
        """Run a task beside the workers; it is cancelled when the engine stops."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._on_task_done)

    def spawn_later(self, delay: float, work: Callable[[], Awaitable[Any]]) -> None:
        """Start a task after ``delay`` seconds."""
        self._engine.timers.add(delay, lambda: self.spawn(work()))

    def discard_closed_loop(self) -> None:
        """Forget the tasks and observers of an event loop that was closed."""
        close_dead_tasks(*self._tasks)
        self._tasks = {task for task in self._tasks if not is_dead(task)}
        self.observers = [future for future in self.observers if not is_dead(future)]

    def _on_task_done(self, task: asyncio.Future[Any]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        # A task that was waiting when the bus stopped has not failed: the next start does its work.
        if error is not None and not isinstance(error, BusNotRunningError):
            _log.error("a background task of the bus failed", exc_info=error)
        self.notify_observers()

    async def sleep(self, delay: float) -> None:
        """Sleep by the engine's clock."""
        future = asyncio.get_running_loop().create_future()
        self._engine.timers.add(delay, lambda: None if future.done() else future.set_result(None))
        await future

    async def call_with_retry(self, consumer: Consumer, read: Callable[[], Awaitable[T]]) -> T | None:
        """Read something a consumer cannot go on without; retry for as long as the storage is in trouble.

        Damage is not retried: it halts the consumer. Returns None then, and if the storage is closed.
        """
        while True:
            try:
                return await read()
            except CorruptLogError as error:
                self._engine.halt(consumer, str(error))
                return None
            except StorageClosedError:
                return None
            except StorageError as error:
                self._engine.report(StorageTrouble(consumer.name, error))
                await self.sleep(_PAUSE)

    # -- observers ------------------------------------------------------------------------------------

    def notify_observers(self) -> None:
        """Wake everything that waits in ``wait_until``."""
        observers, self.observers = self.observers, []
        for future in observers:
            if not future.done():
                future.set_result(None)

    def next_notification(self) -> asyncio.Future[None]:
        """Return a future that is done at the next ``notify_observers``."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.observers.append(future)
        return future

    async def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait until ``condition`` holds; it is checked each time ``notify_observers`` is called.

        Raises BusNotRunningError if the engine stops first.
        """
        while not condition():
            if self._engine.halting:
                raise BusNotRunningError(action="wait any longer", state="stopping")
            await self.next_notification()
