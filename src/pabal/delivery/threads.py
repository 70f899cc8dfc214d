"""The threads of sync handlers. A thread cannot be interrupted, so it may outlive a stop of the bus."""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor, ThreadPoolExecutor


class HandlerThreads:
    """Start threads when a sync handler needs one, at most ``most`` at a time."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._executor: ThreadPoolExecutor | None = None
        self._left: list[ThreadPoolExecutor] = []
        """Executors of earlier runs, whose handlers may still be running."""

    def executor(self) -> Executor:
        """Return what runs the handlers of this run."""
        if self._executor is None:
            self._executor = ThreadPoolExecutor(self._most, "pabal-handler")
        return self._executor

    def stop(self) -> None:
        """Begin no further handler; those that run go on to their end."""
        executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown(wait=False, cancel_futures=True)
            self._left.append(executor)

    async def wait_until_ended(self) -> None:
        """Wait for the handlers of earlier runs, so that none handles an event beside a new one."""
        while self._left:
            await asyncio.to_thread(self._left[-1].shutdown)
            self._left.pop()
