"""Dead letters of names that nothing subscribes under any more are part of the overview."""

from __future__ import annotations

from pathlib import Path

import pytest

from pabal import EventBusFactory, InMemoryEventBus, InMemoryEventStorage, RetryPolicy, SqliteEventStorage
from pabal.factory import open_operations
from pabal.operations import operations_of
from pabal.operations.storage_source import StorageSource
from pabal.ports.operations import DeadLetterGroup, Overview, SubscriptionView
from tests.operations.conftest import Shop, ShopOrder


def shown(overview: Overview) -> tuple[str, list[tuple[str, str | None, int]], int]:
    """Return the health, each reason's code, subscription and number, and the number of dead letters."""
    reasons = [(reason.code, reason.subscription, reason.number) for reason in overview.reasons]
    return overview.health, reasons, overview.parked


async def forget_pack(path: Path) -> None:
    """Remove the subscription of a stopped shop."""
    async with SqliteEventStorage(path) as storage:
        assert await storage.forget_subscription("pack")


async def test_the_overview_of_a_stopped_log_counts_dead_letters_of_a_forgotten_name(stopped: Path) -> None:
    """It would say ok, with no dead letter, while the next page lists two that nobody will retry."""
    await forget_pack(stopped)
    async with open_operations(stopped) as operations:
        overview = await operations.overview()
        assert len((await operations.dead_letters()).dead_letters) == 2
        assert shown(overview) == ("degraded", [("forgotten", None, 2)], 2)
        assert overview.reasons[0].text.startswith("dead letters (2) belong to no subscription; ")
        for letter in (1, 2):
            await operations.discard(letter)
        assert shown(await operations.overview()) == ("ok", [], 0)


@pytest.mark.parametrize("kind", [SqliteEventStorage, InMemoryEventStorage])
async def test_the_overview_of_a_live_bus_agrees_with_its_health_on_forgotten_names(
    kind: type[SqliteEventStorage | InMemoryEventStorage], path: Path
) -> None:
    """The page would be green while the bus that it shows reports dead letters."""
    storage = SqliteEventStorage(path) if kind is SqliteEventStorage else InMemoryEventStorage()
    async with storage:
        async with InMemoryEventBus(storage) as former:
            Shop(former)
            await former.publish(ShopOrder("o-1", -1))
            await former.drain()
        await storage.forget_subscription("pack")
        async with InMemoryEventBus(storage) as bus:
            Shop(bus)
            await bus.drain()
            assert shown(await operations_of(bus).overview()) == ("degraded", [("parked", "pack", 1)], 1)
        await storage.forget_subscription("pack")
        async with InMemoryEventBus(storage) as bus:
            operations = operations_of(bus)
            assert bus.health().status == "degraded"
            assert shown(await operations.overview()) == ("degraded", [("forgotten", None, 1)], 1)
        failing = await operations.overview()  # the bus has stopped, and says nothing of dead letters itself
        assert shown(failing) == ("failing", [("bus", None, 0), ("forgotten", None, 1)], 1)


async def test_the_overview_without_a_log_counts_dead_letters_of_an_ended_subscription() -> None:
    """They take up the limit of the bus, whose health is degraded, and the page would show none."""
    async with EventBusFactory.create_in_memory_event_bus() as bus:
        shop = Shop(bus)
        kept = bus.subscribe(ShopOrder, shop.pack, name="wrap", retry=RetryPolicy(max_attempts=1))
        await bus.publish(ShopOrder("o-1", -1))
        await bus.drain()
        (pack,) = [one for one in bus.subscriptions.attached() if one is not kept]
        bus.unsubscribe(pack)
        assert bus.health().status == "degraded"
        found = shown(await operations_of(bus).overview())
        parked = len(await bus.dead_letters.list())
        assert found == ("degraded", [("forgotten", None, 1), ("parked", "wrap", 1)], parked)


async def test_dead_letters_that_come_and_go_during_an_overview_are_not_taken_for_forgotten(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A busy log would show, now and then, dead letters that belong to no subscription."""
    operations = operations_of(shop.bus)
    look = StorageSource.subscriptions
    numbers = iter((-1, -2))

    async def look_then_change(source: StorageSource) -> list[SubscriptionView]:
        views = await look(source)
        for number in numbers:
            await shop.bus.publish(ShopOrder("o-1", number))
            await shop.bus.drain()
            return views
        await shop.bus.dead_letters.discard("all")
        return views

    monkeypatch.setattr(StorageSource, "subscriptions", look_then_change)
    assert shown(await operations.overview()) == ("ok", [], 0)
    assert shown(await operations.overview()) == ("degraded", [("parked", "pack", 1)], 1)
    assert shown(await operations.overview()) == ("degraded", [("parked", "pack", 2)], 2)
    assert shown(await operations.overview()) == ("ok", [], 0)


async def test_a_subscription_that_is_new_during_an_overview_is_not_taken_for_forgotten(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its first dead letter would seem to belong to nobody."""
    count = SqliteEventStorage.group_dead_letters

    async def subscribe_then_count(storage: SqliteEventStorage) -> list[DeadLetterGroup]:
        shop.bus.subscribe(ShopOrder, shop.pack, name="wrap", retry=RetryPolicy(max_attempts=1))
        await shop.bus.publish(ShopOrder("o-1", -1))
        await shop.bus.drain()
        return await count(storage)

    monkeypatch.setattr(SqliteEventStorage, "group_dead_letters", subscribe_then_count)
    assert shown(await operations_of(shop.bus).overview()) == ("ok", [], 0)
