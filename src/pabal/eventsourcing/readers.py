"""Who waits until a projection's tables have come to a position: read your own writes."""

from __future__ import annotations

import asyncio


class Readers:
    """Hold those that wait, each for a position of its own."""

    def __init__(self) -> None:
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []

    async def wait(self, position: int, timeout: float | None) -> None:
        """Return when the tables have come to a position. Raises TimeoutError, and what ``release`` gives."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = (position, future)
        self._waiting.append(waiting)
        limit = asyncio.timeout(timeout)
        try:
            async with limit:
                await future
        except TimeoutError:
            if not limit.expired():
                raise  # what ``release`` gave
            raise TimeoutError(
                f"position {position} was not reached within {timeout} s; projection.position tells what was"
            ) from None
        finally:
            if waiting in self._waiting:
                self._waiting.remove(waiting)

    def arrived(self, position: int) -> None:
        """Let those go on who wait for a position, or for one below it."""
        waiting, self._waiting = self._waiting, []
        for wanted, future in waiting:
            if future.done():
                continue
            if wanted <= position:
                future.set_result(None)
            else:
                self._waiting.append((wanted, future))

    def release(self, error: Exception) -> None:
        """Let nobody wait any longer: what was waited for does not come."""
        waiting, self._waiting = self._waiting, []
        for _, future in waiting:
            if not future.done():
                future.set_exception(error)
