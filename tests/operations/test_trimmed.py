"""What operators see of a trimmed log, and of subscriptions handled by another process."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from pabal import EventBusFactory, SqliteEventStorage
from pabal.errors import UsageError
from pabal.factory import open_operations
from pabal.operations import operations_of
from pabal.operations.doctor import examine
from tests.operations.conftest import ShopOrder


@pytest.fixture
async def trimmed(path: Path) -> Path:
    """A file of ten orders, all handled, of which the newest four are left."""
    bus = EventBusFactory.create_default_event_bus(path)
    async with bus:
        bus.subscribe(ShopOrder, _take, name="pack")
        await bus.publish_batch([ShopOrder(f"o-{number}", number) for number in range(10)])
        await bus.drain()
    async with SqliteEventStorage(path) as storage:
        assert (await storage.trim(max_events=4)).deleted == 6
    return path


async def _take(event: ShopOrder) -> None:
    """Accept every order."""


async def test_the_lag_of_an_unclaimed_subscription_excludes_trimmed_events(trimmed: Path) -> None:
    """After a reset to the beginning, the lag would include events that can never arrive."""
    async with open_operations(trimmed) as operations:
        await operations.reset("pack", "beginning")
        overview = await operations.overview()
    assert (overview.lag, overview.totals.events) == (4, 4)
    assert [(reason.code, reason.number) for reason in overview.reasons] == [("unclaimed", 4)]
    async with SqliteEventStorage(trimmed) as storage:
        texts = [finding.text for finding in (await examine(trimmed, storage)).findings]
    assert any(text.startswith("subscription 'pack': lag 4,") for text in texts), texts


async def test_the_lag_of_a_paused_subscription_excludes_trimmed_events(trimmed: Path) -> None:
    """The same page would show another number once the application runs."""
    bus = EventBusFactory.create_default_event_bus(trimmed)
    bus.subscribe(ShopOrder, _take, name="pack")
    async with bus:
        operations = operations_of(bus)
        await operations.pause("pack")
        await operations.reset("pack", "beginning")
        await bus.drain()
        [view] = await operations.subscriptions()
        assert (view.state, view.lag) == ("paused", 4)


async def test_replay_counts_only_events_that_were_not_trimmed(trimmed: Path) -> None:
    """Deleted positions would be counted, and an empty range be accepted."""
    async with open_operations(trimmed) as operations:
        assert (await operations.replay("pack", 1)).count == 4
        with pytest.raises(UsageError, match="positions 2 to 6 hold nothing to replay: the log begins at 7"):
            await operations.replay("pack", 2, 6)


async def test_a_standby_process_shows_the_lag_of_the_active_one(path: Path) -> None:
    """The page of a standby process would not show events that pile up at the active one."""
    gate = asyncio.Event()

    async def wait(event: ShopOrder) -> None:
        await gate.wait()

    active = EventBusFactory.create_default_event_bus(path)
    active.subscribe(ShopOrder, wait, name="pack")
    async with active:
        standby = EventBusFactory.create_default_event_bus(path)
        standby.subscribe(ShopOrder, _take, name="pack")
        async with standby:
            await active.publish_batch([ShopOrder(f"o-{number}", number) for number in range(5)])
            [view] = await operations_of(standby).subscriptions()
            assert (view.state, view.lag) == ("standby", 5)
            gate.set()
            await active.drain()
