"""One server for all tests that do not harm it, and a fresh namespace for each test."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from tests.brokers.server import Server

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def shared_server() -> Iterator[Server]:
    server = Server()
    server.start()
    yield server
    server.remove()


@pytest.fixture
def own_server() -> Iterator[Server]:
    """A server that the test may stop, kill and flush."""
    server = Server()
    server.start()
    yield server
    server.remove()


@pytest.fixture
def namespace() -> str:
    return f"test-{next(_numbers)}"
