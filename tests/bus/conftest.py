"""Fixtures for the tests of the bus: they run without a log, and on each kind of log."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from pabal.testing import VirtualClock
from tests.brokers.server import Server
from tests.bus.support import Backend

_HERE = Path(__file__).parent
_SECONDS = 60.0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Make a test that hangs fail: a lost wake-up is one of the bugs that these tests look for."""
    for item in items:
        if (
            isinstance(item, pytest.Function)
            and item.path.is_relative_to(_HERE)
            and inspect.iscoroutinefunction(item.obj)
        ):
            item.obj = _bounded(item.obj)


def _bounded(test: Any) -> Any:
    @functools.wraps(test)
    async def run(*arguments: Any, **named: Any) -> None:
        async with asyncio.timeout(_SECONDS):
            await test(*arguments, **named)

    return run


@pytest.fixture(scope="session")
def valkey() -> Iterator[Server]:
    """Return a server; none of these tests damages it."""
    server = Server()
    server.start()
    yield server
    server.remove()


@pytest.fixture(params=["memory", "memory storage", "sqlite", "valkey"])
async def backend(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Backend]:
    """Return each kind of bus in turn."""
    server = request.getfixturevalue("valkey") if request.param == "valkey" else None
    created = Backend(request.param, tmp_path, server)
    yield created
    await created.close()


@pytest.fixture(params=["memory", "memory storage", "sqlite"])
async def local(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Backend]:
    """Return the buses that deliver from a log in this process, so that tests can look inside."""
    created = Backend(request.param, tmp_path)
    yield created
    await created.close()


@pytest.fixture(params=["memory storage", "sqlite"])
async def stored(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Backend]:
    """Return the buses that have a log."""
    created = Backend(request.param, tmp_path)
    yield created
    await created.close()


@pytest.fixture
async def memory(tmp_path: Path) -> AsyncIterator[Backend]:
    """Return the bus without a log."""
    created = Backend("memory", tmp_path)
    yield created
    await created.close()


@pytest.fixture
async def on_disk(tmp_path: Path) -> AsyncIterator[Backend]:
    """Return the buses on a file, each as if in its own process."""
    created = Backend("sqlite", tmp_path)
    yield created
    await created.close()


@pytest.fixture
def clock() -> VirtualClock:
    """Return a clock that only the test moves."""
    return VirtualClock()
