"""Buses that live as long as applications."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from starlette.applications import Starlette

from pabal import InMemoryEventBus
from pabal.integrations.starlette import bus_lifespan


def _is_running(bus: InMemoryEventBus) -> bool:
    return bool(bus.get_statistics()["is_running"])


async def test_a_bus_of_two_applications_runs_until_the_last_one_ends() -> None:
    """The pages for operators, restarted alone, would stop the bus of the shop beside them."""
    bus = InMemoryEventBus()
    shop, pages = Starlette(), Starlette()
    lifespan = bus_lifespan(bus)
    for _ in range(2):
        first, second = lifespan(shop), lifespan(pages)
        async with second:
            await first.__aenter__()
            assert shop.state.bus is pages.state.bus is bus
        assert _is_running(bus)
        await first.__aexit__(None, None, None)
        assert not _is_running(bus)


@pytest.mark.parametrize("fails_at", ["startup", "shutdown"])
async def test_an_application_that_fails_leaves_no_bus_running(fails_at: str) -> None:
    """The workers of the bus would outlive the server, and the next start find it in use."""
    bus = InMemoryEventBus()

    @asynccontextmanager
    async def failing(app: Any) -> AsyncIterator[None]:
        if fails_at == "startup":
            raise ConnectionError(fails_at)
        yield
        raise ConnectionError(fails_at)

    for _ in range(2):
        with pytest.raises(ConnectionError, match=fails_at):
            async with bus_lifespan(bus, failing)(Starlette()):
                assert _is_running(bus)
        assert not _is_running(bus)
