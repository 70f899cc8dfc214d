"""Run a bus with a Starlette or FastAPI application; this module imports neither."""

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
"""The type of ``lifespan`` in Starlette and FastAPI: a function that takes the application."""


_use_counts: WeakKeyDictionary[BaseEventBus, int] = WeakKeyDictionary()
"""How many running applications use each bus."""
_stopping: WeakKeyDictionary[BaseEventBus, asyncio.Event] = WeakKeyDictionary()
"""The buses that are stopping, each with an event that is set when it has stopped."""


@asynccontextmanager
async def _use(bus: BaseEventBus) -> AsyncIterator[None]:
    while bus in _stopping:
        await _stopping[
            bus
        ].wait()  # starting it now would let the pending stop end it under this application
    _use_counts[bus] = _use_counts.get(bus, 0) + 1
    try:
        await bus.start()
    except BaseException:
        _use_counts[bus] -= 1
        raise
    async with AsyncExitStack() as stack:
        stack.push_async_exit(partial(_release, bus))
        yield


async def _release(
    bus: BaseEventBus,
    kind: type[BaseException] | None,
    error: BaseException | None,
    trace: TracebackType | None,
) -> None:
    _use_counts[bus] -= 1
    if not _use_counts[bus]:
        ended = _stopping[bus] = asyncio.Event()
        try:
            await bus.__aexit__(kind, error, trace)
        finally:
            del _stopping[bus]
            ended.set()


def bus_lifespan(bus: BaseEventBus, inner: Lifespan | None = None) -> Lifespan:
    """Return a ``lifespan`` that starts ``bus`` before the first request and stops it after the last.

    If several applications share a bus, it is stopped when the last of them ends. While they run, the bus is
    ``app.state.bus``. ``inner``, the application's own lifespan, runs inside and may publish. On stopping,
    retries that are due later stay stored if the bus has storage; without storage, they are awaited.

    >>> from pabal import InMemoryEventBus
    >>> lifespan = bus_lifespan(InMemoryEventBus())  # FastAPI(lifespan=lifespan)
    """

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[Any]:
        async with _use(bus):
            app.state.bus = bus
            if inner is None:
                yield
            else:
                async with inner(app) as state:
                    yield state

    return lifespan
