"""Callers waiting for a projection's tables to reach a position, to read their own writes."""

from __future__ import annotations

import asyncio


class PositionWaiters:
    """Hold the waiting callers, each with the position it waits for."""

    def __init__(self) -> None:
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []

    async def wait(self, position: int, timeout: float | None) -> None:
        """Wait until the tables reach a position. Raises TimeoutError, or the error given to ``release``."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = (position, future)
        self._waiting.append(waiting)
        limit = asyncio.timeout(timeout)
        try:
            async with limit:
                await future
        except TimeoutError:
            if not limit.expired():
                raise  # the TimeoutError passed to ``release``
            raise TimeoutError(
                f"position {position} was not reached within {timeout} s; projection.position tells what was"
            ) from None
        finally:
            if waiting in self._waiting:
                self._waiting.remove(waiting)

    def notify(self, position: int) -> None:
        """Wake the callers that wait for this position or a lower one."""
        waiting, self._waiting = self._waiting, []
        for wanted, future in waiting:
            if future.done():
                continue
            if wanted <= position:
                future.set_result(None)
            else:
                self._waiting.append((wanted, future))

    def release(self, error: Exception) -> None:
        """Raise the error in all waiting callers: their position will not be reached."""
        waiting, self._waiting = self._waiting, []
        for _, future in waiting:
            if not future.done():
                future.set_exception(error)
