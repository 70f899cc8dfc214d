"""A shared server for tests that do not disturb it, and a new namespace for each test."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from uuid import uuid4

import pytest

from tests.brokers.server import URL_VARIABLE, ExternalServer, Server, redis_binary

_numbers = itertools.count(1)
_RUN = uuid4().hex[:8]
"""Distinguishes this run's namespaces from those of other runs on a server that outlives the run."""


def servers() -> list[str]:
    """Return the servers to test on: Valkey, the redis-server on PATH, and the one at the URL, if any."""
    on_path = ["redis-server"] if redis_binary() else []
    named = [URL_VARIABLE] if os.environ.get(URL_VARIABLE) else []
    return ["valkey", *on_path, *named]


def start(kind: str) -> Server:
    server = Server(redis_binary() if kind == "redis-server" else None)
    server.start()
    return server


@pytest.fixture(scope="session", params=servers())
def shared_server(request: pytest.FixtureRequest) -> Iterator[Server | ExternalServer]:
    """A server for tests that do not disturb it."""
    server = ExternalServer(f"test-{_RUN}-") if request.param == URL_VARIABLE else start(request.param)
    yield server
    server.remove()


@pytest.fixture(params=[kind for kind in servers() if kind != URL_VARIABLE])
def own_server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server that the test may stop, kill and flush."""
    server = start(request.param)
    yield server
    server.remove()


@pytest.fixture
def namespace() -> str:
    return f"test-{_RUN}-{next(_numbers)}"
