"""The fixtures that applications' tests get, for pabal's own; see ``addopts`` in pyproject.toml."""

import asyncio
import functools
import gc
import inspect
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import HealthCheck, settings

pytest_plugins = ["pabal.testing.pytest_plugin", "pytester"]

# On a busy machine generating examples is slow, which says nothing about the code under test.
settings.register_profile("pabal", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("pabal")

LONGEST = 300.0
"""Seconds after which a test that waits in its event loop fails where it waits, instead of never ending."""

# What pytest creates while collecting is kept until the end. Scanning all of it for garbage again and again,
# during the collection and then while tests run, costs a seventh of the time of the tests.
gc.disable()


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Collect garbage from here on, only among the objects that tests create."""
    gc.enable()
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Bound every test that is a coroutine."""
    for item in items:
        if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.obj):
            item.obj = _bounded(item.obj)


def _bounded(test: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    @functools.wraps(test)
    async def bounded(*arguments: object, **named: object) -> None:
        async with asyncio.timeout(LONGEST):
            await test(*arguments, **named)

    return bounded
