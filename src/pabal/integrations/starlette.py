"""Run a bus for as long as a Starlette or FastAPI application runs; needs neither to be imported here."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from pabal.bus.in_memory import InMemoryEventBus

__all__ = ["Lifespan", "bus_lifespan"]

Lifespan = Callable[[Any], AbstractAsyncContextManager[Any]]
"""What Starlette and FastAPI take as ``lifespan``: a function of the application."""


def bus_lifespan(bus: InMemoryEventBus, inner: Lifespan | None = None) -> Lifespan:
    """Return a ``lifespan`` that starts ``bus`` before the first request and stops it after the last.

    The bus is ``app.state.bus`` meanwhile. ``inner``, a lifespan of the application's own, runs inside: it
    may publish. With storage, retries that are due later stay stored; without, they are waited for.

    >>> from pabal import InMemoryEventBus
    >>> lifespan = bus_lifespan(InMemoryEventBus())  # FastAPI(lifespan=lifespan)
    """

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[Any]:
        async with bus:
            app.state.bus = bus
            if inner is None:
                yield
            else:
                async with inner(app) as state:
                    yield state

    return lifespan
