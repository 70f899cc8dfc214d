"""Run a bus for as long as a Starlette or FastAPI application runs; needs neither to be imported here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from types import TracebackType
from typing import Any
from weakref import WeakKeyDictionary

from pabal.bus.base import BaseEventBus

__all__ = ["Lifespan", "bus_lifespan"]

Lifespan = Callable[[Any], AbstractAsyncContextManager[Any]]
"""What Starlette and FastAPI take as ``lifespan``: a function of the application."""


_users: WeakKeyDictionary[BaseEventBus, int] = WeakKeyDictionary()
"""How many applications each bus runs for."""
_ending: WeakKeyDictionary[BaseEventBus, asyncio.Event] = WeakKeyDictionary()
"""The buses whose last application ends, and what is set when they have stopped."""


@asynccontextmanager
async def _running(bus: BaseEventBus) -> AsyncIterator[None]:
    while bus in _ending:
        await _ending[bus].wait()  # it still drains, and would be stopped under this application
    _users[bus] = _users.get(bus, 0) + 1
    try:
        await bus.start()
    except BaseException:
        _users[bus] -= 1
        raise
    async with AsyncExitStack() as stack:
        stack.push_async_exit(partial(_leave, bus))
        yield


async def _leave(
    bus: BaseEventBus,
    kind: type[BaseException] | None,
    error: BaseException | None,
    trace: TracebackType | None,
) -> None:
    _users[bus] -= 1
    if not _users[bus]:
        ended = _ending[bus] = asyncio.Event()
        try:
            await bus.__aexit__(kind, error, trace)
        finally:
            del _ending[bus]
            ended.set()


def bus_lifespan(bus: BaseEventBus, inner: Lifespan | None = None) -> Lifespan:
    """Return a ``lifespan`` that starts ``bus`` before the first request and stops it after the last.

    Where several applications share a bus, it is stopped when the last of them ends. The bus is
    ``app.state.bus`` meanwhile. ``inner``, a lifespan of the application's own, runs inside: it
    may publish. With storage, retries that are due later stay stored; without, they are waited for.

    >>> from pabal import InMemoryEventBus
    >>> lifespan = bus_lifespan(InMemoryEventBus())  # FastAPI(lifespan=lifespan)
    """

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[Any]:
        async with _running(bus):
            app.state.bus = bus
            if inner is None:
                yield
            else:
                async with inner(app) as state:
                    yield state

    return lifespan
