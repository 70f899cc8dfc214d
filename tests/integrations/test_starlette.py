"""Buses that start and stop with applications."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, ClassVar

import pytest
from starlette.applications import Starlette

from pabal import DomainEvent, InMemoryEventBus
from pabal.integrations.starlette import bus_lifespan


class Opened(DomainEvent):
    event_type: ClassVar[str] = "starlette.opened"


def _is_running(bus: InMemoryEventBus) -> bool:
    return bool(bus.get_statistics()["is_running"])


async def test_a_bus_shared_by_two_applications_runs_until_the_last_one_ends() -> None:
    """Restarting only the operators' application would stop the bus of the shop beside it."""
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


async def test_an_application_that_starts_while_the_last_one_ends_has_a_running_bus() -> None:
    """Each of its requests would fail, because the draining bus was stopped under it."""
    bus = InMemoryEventBus()
    handling, resume = asyncio.Event(), asyncio.Event()

    async def handle(event: Opened) -> None:
        handling.set()
        await resume.wait()

    bus.subscribe(Opened, handle, name="open")
    lifespan = bus_lifespan(bus)
    first, second = lifespan(Starlette()), lifespan(Starlette())
    await first.__aenter__()
    await bus.publish(Opened())
    await handling.wait()
    ending = asyncio.create_task(first.__aexit__(None, None, None))
    await asyncio.sleep(0)
    starting = asyncio.create_task(second.__aenter__())
    await asyncio.sleep(0)
    resume.set()
    await asyncio.gather(ending, starting)
    assert _is_running(bus)
    await second.__aexit__(None, None, None)
    assert not _is_running(bus)


@pytest.mark.parametrize("fails_at", ["startup", "shutdown"])
async def test_a_failing_application_stops_its_bus(fails_at: str) -> None:
    """The bus's workers would outlive the server, and the next start find the bus in use."""
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


async def test_a_bus_that_cannot_start_fails_the_application_and_starts_with_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The application would serve requests without a bus, or its successor never stop the bus."""
    bus = InMemoryEventBus()

    async def refuse() -> None:
        raise ConnectionError("no disk")

    with monkeypatch.context() as patched:
        patched.setattr(bus, "start", refuse)
        with pytest.raises(ConnectionError, match="no disk"):
            async with bus_lifespan(bus)(Starlette()):
                raise AssertionError
    async with bus_lifespan(bus)(Starlette()):
        assert _is_running(bus)
    assert not _is_running(bus)


async def test_the_state_of_the_applications_own_lifespan_is_passed_on() -> None:
    """Requests would not find what the application has opened for them."""
    bus = InMemoryEventBus()

    @asynccontextmanager
    async def own(app: Any) -> AsyncIterator[dict[str, bool]]:
        yield {"was_running": _is_running(app.state.bus)}

    async with bus_lifespan(bus, own)(Starlette()) as state:
        assert state == {"was_running": True}
