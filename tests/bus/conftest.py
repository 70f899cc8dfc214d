"""Fixtures of the bus's tests: every statement is tried without a log, and on each kind of log."""

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
    """Turn a test that hangs into one that fails: a lost wake-up is what these tests look for."""
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
    """Give a server; nothing in these tests harms it."""
    server = Server()
    server.start()
    yield server
    server.remove()


@pytest.fixture(params=["memory", "memory storage", "sqlite", "valkey"])
async def backend(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Backend]:
    """Give every kind of bus in turn."""
    server = request.getfixturevalue("valkey") if request.param == "valkey" else None
    made = Backend(request.param, tmp_path, server)
    yield made
    await made.close()


@pytest.fixture(params=["memory", "memory storage", "sqlite"])
async def local(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Backend]:
    """Give the buses that deliver from one log in this process, for a look at what is inside."""
    made = Backend(request.param, tmp_path)
    yield made
    await made.close()


@pytest.fixture(params=["memory storage", "sqlite"])
async def stored(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Backend]:
    """Give the buses that have a log."""
    made = Backend(request.param, tmp_path)
    yield made
    await made.close()


@pytest.fixture
async def memory(tmp_path: Path) -> AsyncIterator[Backend]:
    """Give the bus without a log."""
    made = Backend("memory", tmp_path)
    yield made
    await made.close()


@pytest.fixture
async def on_disk(tmp_path: Path) -> AsyncIterator[Backend]:
    """Give the buses on one file, each as if in a process of its own."""
    made = Backend("sqlite", tmp_path)
    yield made
    await made.close()


@pytest.fixture
def clock() -> VirtualClock:
    """Give a clock that only the test moves."""
    return VirtualClock()
