"""Operators of a bus without a log see what there is, and get an error for what is not possible."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from pabal import EventBusFactory
from pabal.errors import ActionNotPossibleError, EventNotFoundError, SubscriptionNotFoundError, UsageError
from pabal.operations import Operations, operations_of
from pabal.ports.operations import DeadLetterFilter
from tests.loop_iterations import count_loop_iterations
from tests.operations.conftest import Shop, ShopOrder


@pytest.fixture
async def memory_shop() -> AsyncIterator[Shop]:
    """A shop in memory with one dead letter, for a quantity of -1."""
    async with EventBusFactory.create_in_memory_event_bus() as bus:
        shop = Shop(bus)
        await bus.publish(ShopOrder("o-1", -1))
        await bus.drain()
        yield shop


async def test_queries_that_need_a_log_return_empty_results_without_one(memory_shop: Shop) -> None:
    """Every page of the dashboard would fail on a bus in memory, although it has something to show."""
    operations = operations_of(memory_shop.bus)
    overview = await operations.overview()
    assert (overview.subscriptions, overview.parked, overview.published_per_second) == (1, 1, 0)
    assert await operations.types() == []
    assert await operations.series([0, 60]) is None
    assert await operations.latest_samples(timedelta(hours=1)) == []
    assert await operations.published_since(datetime(2020, 1, 1, tzinfo=UTC)) == 0
    assert (await operations.streams()).streams == ()
    assert await operations.stream("o-1") == []
    with pytest.raises(EventNotFoundError):
        await operations.event("0198c0de-0000-7000-8000-000000000000")
    await operations.aclose()
    await memory_shop.bus.publish(ShopOrder("o-2", 1))  # the bus belongs to its application and keeps running


async def test_follow_raises_on_a_bus_without_a_log(memory_shop: Shop) -> None:
    """A live page would stay empty without an explanation."""
    with pytest.raises(UsageError, match="no log to follow"):
        await asyncio.wait_for(anext(operations_of(memory_shop.bus).follow()), 10)


@pytest.mark.parametrize(
    "action",
    [
        lambda operations: operations.pause("pack"),
        lambda operations: operations.reset("pack", "beginning"),
        lambda operations: operations.replay("pack", 1, 1),
    ],
    ids=["pause", "reset", "replay"],
)
async def test_actions_that_need_a_log_raise_action_not_possible(
    memory_shop: Shop, action: Callable[[Operations], Awaitable[Any]]
) -> None:
    """An operator would believe that it was done, although nothing remembers it."""
    with pytest.raises(ActionNotPossibleError, match="pack"):
        await action(operations_of(memory_shop.bus))


async def test_resume_raises_for_an_unknown_subscription(memory_shop: Shop) -> None:
    """A mistyped name would look like a success."""
    operations = operations_of(memory_shop.bus)
    with pytest.raises(SubscriptionNotFoundError, match="pack"):
        await operations.resume("pck")
    assert (await operations.resume("pack")).count == 0  # it was not halted


async def test_editing_and_discarding_dead_letters_in_memory_is_audited(
    memory_shop: Shop,
) -> None:
    """A dead letter of an in-memory bus that cannot be fixed is lost with its process."""
    operations = operations_of(memory_shop.bus, actor="kim")
    assert (await operations.dead_letter(1)).subscription == "pack"
    page = await operations.dead_letters(DeadLetterFilter(event_type="shop.ordered"))
    assert [one.id for one in page.dead_letters] == [1]
    await operations.edit_and_retry(1, {"order_id": "o-1", "quantity": 7, "email": ""})
    await memory_shop.bus.drain()
    assert memory_shop.packed == [7]
    await memory_shop.bus.publish(ShopOrder("o-3", -3))
    await memory_shop.bus.drain()
    assert (await operations.discard(2)).count == 1
    assert (await operations.dead_letters()).dead_letters == ()
    entries = [(one.actor, one.action, one.subject, one.succeeded) for one in await operations.audit()]
    assert entries == [("kim", "discard", "2", True), ("kim", "edit", "1", True)]
    assert [one.action for one in await operations.audit(before=2)] == ["edit"]


async def test_listing_and_discarding_many_dead_letters_yields_to_the_event_loop(
    memory_shop: Shop,
) -> None:
    """The application would block while an operator lists or discards a hundred thousand."""
    await memory_shop.bus.publish_batch([ShopOrder(f"o-{n}", -n) for n in range(2, 1201)])
    await memory_shop.bus.drain()
    operations = operations_of(memory_shop.bus)
    async with count_loop_iterations() as iterations:
        [group] = await operations.dead_letter_groups()
        assert (group.count, iterations.count >= 2) == (1200, True)
    async with count_loop_iterations() as iterations:
        assert (await operations.discard_matching(DeadLetterFilter())).count == 1200
        assert iterations.count >= 24
