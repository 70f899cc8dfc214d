"""An operator's actions take effect, on a live or stopped bus, and are recorded."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from pabal import EventBusFactory
from pabal.errors import DeadLetterNotFoundError, DecodeError, SubscriptionNotFoundError
from pabal.factory import open_operations
from pabal.operations import operations_of
from pabal.ports.operations import DeadLetterFilter
from tests.operations.conftest import Shop, ShopOrder


async def test_an_edited_dead_letter_is_handled_at_the_next_start(stopped: Path) -> None:
    """A fix made while the application is down would be lost."""
    async with open_operations(stopped, actor="kim") as operations:
        with pytest.raises(DecodeError):
            await operations.edit_and_retry(1, {"order_id": "o-1", "quantity": "many", "email": ""})
        assert (await operations.dead_letter(1)).event.payload["quantity"] == -1
        result = await operations.edit_and_retry(1, {"order_id": "o-1", "quantity": 7, "email": ""})
        assert (result.count, result.pending) == (1, True)
    async with EventBusFactory.create_default_event_bus(stopped) as bus:
        shop = Shop(bus)
        await bus.drain()
        assert shop.packed == [7]


async def test_every_action_is_in_the_audit_log_of_the_file(stopped: Path) -> None:
    """It would be impossible to tell afterwards who discarded what."""
    async with open_operations(stopped, actor="kim") as operations:
        await operations.discard(1)
        with pytest.raises(DeadLetterNotFoundError):
            await operations.discard(1)
    async with open_operations(stopped) as operations:
        refused, done = await operations.audit()
    assert (done.actor, done.action, done.subject, done.succeeded) == ("kim", "discard", "1", True)
    assert (refused.succeeded, refused.result.split(":")[0]) == (False, "DeadLetterNotFoundError")
    assert done.at < refused.at


async def test_all_that_match_are_discarded_together_though_the_bus_runs(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit for each of a hundred thousand takes minutes, and the disk is synced as often."""
    await shop.bus.publish_batch([ShopOrder(f"o-{n}", -n) for n in range(1, 251)])
    await shop.bus.drain()
    storage = shop.bus.storage
    assert storage is not None
    discard = storage.discard_dead_letter
    under_way = most = 0

    async def discarded(dead_letter_id: int) -> Any:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        try:
            return await discard(dead_letter_id)
        finally:
            under_way -= 1

    monkeypatch.setattr(storage, "discard_dead_letter", discarded)
    assert (await operations_of(shop.bus).discard_matching(DeadLetterFilter())).count == 250
    assert most == 100


async def test_all_that_match_are_retried_or_discarded_and_counted(stopped: Path) -> None:
    """Two hundred dead letters with one cause would need two hundred commands."""
    async with open_operations(stopped) as operations:
        wanted = DeadLetterFilter(subscription="pack")
        assert await operations.count_matching(wanted) == 2
        seen: list[int] = []
        result = await operations.retry_matching(wanted, progress=seen.append)
        assert (result.count, result.skipped, result.pending, seen) == (2, 0, True, [1, 2])
        again = await operations.retry_matching(wanted)
        assert (again.count, again.skipped) == (0, 2)
        assert (await operations.discard_matching(DeadLetterFilter(event_type="other"))).count == 0
        assert (await operations.discard_matching(DeadLetterFilter())).count == 2


async def test_a_live_bus_is_paused_resumed_reset_and_replayed(shop: Shop) -> None:
    """The buttons of the dashboard would do nothing."""
    operations = operations_of(shop.bus)
    assert (await operations.pause("pack")).count == 1
    assert (await operations.pause("pack")).count == 0
    await shop.bus.publish(ShopOrder("o-1", 1))
    (view,) = await operations.subscriptions()
    assert (view.paused, view.lag, shop.packed) == (True, 1, [])
    assert [reason.code for reason in (await operations.overview()).reasons] == ["paused"]
    assert (await operations.resume("pack")).count == 1
    await shop.bus.drain()
    assert shop.packed == [1]
    await operations.reset("pack", "beginning")
    await shop.bus.drain()
    await operations.replay("pack", 1, 1)
    await shop.bus.drain()
    assert shop.packed == [1, 1, 1]


async def test_the_file_of_a_stopped_bus_is_paused_and_reset(stopped: Path) -> None:
    """A subscription could not be held back before the application starts."""
    async with open_operations(stopped) as operations:
        await operations.pause("pack")
        reset = await operations.reset("pack", 0)
        assert reset.position == 0
        (view,) = await operations.subscriptions()
        assert (view.state, view.watermark, view.parked) == ("paused", 0, 0)
        with pytest.raises(SubscriptionNotFoundError):
            await operations.pause("nobody")


async def test_a_dead_letter_is_retried_on_a_live_bus_at_once(shop: Shop) -> None:
    """The button would wait for a restart."""
    operations = operations_of(shop.bus)
    await shop.bus.publish(ShopOrder("o-1", -1))
    await shop.bus.drain()
    result = await operations.edit_and_retry(1, {"order_id": "o-1", "quantity": 5, "email": ""})
    assert (result.count, result.pending) == (1, False)
    await shop.bus.drain()
    assert shop.packed == [5]
    assert (await operations.dead_letters()).dead_letters == ()


async def test_what_another_process_retries_or_discards_reaches_the_one_that_handles_it(
    shop: Shop, path: Path
) -> None:
    """A retry from the command line would wait until the application restarts."""
    refused = [ShopOrder("o-1", -1), ShopOrder("o-2", -2)]
    for order in refused:
        await shop.bus.publish(order)
    await shop.bus.drain()
    async with open_operations(path) as elsewhere:
        await elsewhere.edit_and_retry(1, {"order_id": "o-1", "quantity": 7, "email": ""})
        await elsewhere.discard(2)
    await asyncio.wait_for(shop.seen.wait(), 60)
    await shop.bus.publish(ShopOrder("o-1", 8))
    await shop.bus.drain()
    assert shop.packed == [7, 8]
    assert (await operations_of(shop.bus).dead_letters()).dead_letters == ()
    # The holder notices the discard when it next checks the file; nothing signals when that was.
    async with asyncio.timeout(60):
        while shop.bus.health().status != "ok":  # noqa: ASYNC110
            await asyncio.sleep(0.01)
