"""An operator's actions take effect, on a live or stopped bus, and are recorded."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from pabal import EventBusFactory, RetryPolicy
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


async def test_every_action_is_recorded_in_the_audit_log_of_the_file(stopped: Path) -> None:
    """It would be impossible to find out afterwards which operator discarded what."""
    async with open_operations(stopped, actor="kim") as operations:
        await operations.discard(1)
        with pytest.raises(DeadLetterNotFoundError):
            await operations.discard(1)
    async with open_operations(stopped) as operations:
        failed, discarded = await operations.audit()
    assert (discarded.actor, discarded.action, discarded.subject, discarded.succeeded) == (
        "kim",
        "discard",
        "1",
        True,
    )
    assert (failed.succeeded, failed.result.split(":")[0]) == (False, "DeadLetterNotFoundError")
    assert discarded.at < failed.at


async def test_discard_matching_on_a_live_bus_discards_many_at_a_time(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit for each of a hundred thousand takes minutes, and the disk is synced as often."""
    await shop.bus.publish_batch([ShopOrder(f"o-{n}", -n) for n in range(1, 251)])
    await shop.bus.drain()
    storage = shop.bus.storage
    assert storage is not None
    discard = storage.discard_dead_letter
    running = most = 0

    async def discarded(dead_letter_id: int) -> Any:
        nonlocal running, most
        running += 1
        most = max(most, running)
        try:
            return await discard(dead_letter_id)
        finally:
            running -= 1

    monkeypatch.setattr(storage, "discard_dead_letter", discarded)
    assert (await operations_of(shop.bus).discard_matching(DeadLetterFilter())).count == 250
    assert most == 100


async def test_retry_and_discard_matching_count_the_dead_letters_they_change(stopped: Path) -> None:
    """Two hundred dead letters with one cause would need two hundred commands."""
    async with open_operations(stopped) as operations:
        wanted = DeadLetterFilter(subscription="pack")
        assert await operations.count_matching(wanted) == 2
        seen: list[int] = []
        result = await operations.retry_matching(wanted, progress=seen.append)
        assert (result.count, result.skipped, result.pending, seen) == (2, 0, True, [1, 2])
        repeated = await operations.retry_matching(wanted)
        assert (repeated.count, repeated.skipped) == (0, 2)
        assert (await operations.discard_matching(DeadLetterFilter(event_type="other"))).count == 0
        assert (await operations.discard_matching(DeadLetterFilter())).count == 2


async def test_pause_resume_reset_and_replay_take_effect_on_a_live_bus(shop: Shop) -> None:
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


async def test_pause_and_reset_take_effect_on_the_file_of_a_stopped_bus(stopped: Path) -> None:
    """A subscription could not be held back before the application starts."""
    async with open_operations(stopped) as operations:
        await operations.pause("pack")
        reset = await operations.reset("pack", 0)
        assert reset.position == 0
        (view,) = await operations.subscriptions()
        assert (view.state, view.watermark, view.parked) == ("paused", 0, 0)
        with pytest.raises(SubscriptionNotFoundError):
            await operations.pause("nobody")


async def test_edit_and_retry_on_a_live_bus_delivers_the_event_at_once(shop: Shop) -> None:
    """The button would do nothing until a restart."""
    operations = operations_of(shop.bus)
    await shop.bus.publish(ShopOrder("o-1", -1))
    await shop.bus.drain()
    result = await operations.edit_and_retry(1, {"order_id": "o-1", "quantity": 5, "email": ""})
    assert (result.count, result.pending) == (1, False)
    await shop.bus.drain()
    assert shop.packed == [5]
    assert (await operations.dead_letters()).dead_letters == ()


async def test_a_retry_or_discard_by_another_process_reaches_the_handling_process(
    shop: Shop, path: Path
) -> None:
    """A retry from the command line would wait until the application restarts."""
    rejected = [ShopOrder("o-1", -1), ShopOrder("o-2", -2)]
    for order in rejected:
        await shop.bus.publish(order)
    await shop.bus.drain()
    async with open_operations(path) as elsewhere:
        await elsewhere.edit_and_retry(1, {"order_id": "o-1", "quantity": 7, "email": ""})
        await asyncio.wait_for(shop.packed_one.wait(), 60)
        await elsewhere.discard(2)
    await shop.bus.publish(ShopOrder("o-1", 8))
    await shop.bus.drain()
    assert shop.packed == [7, 8]
    assert (await operations_of(shop.bus).dead_letters()).dead_letters == ()
    # The bus notices the discard when it next checks the file; nothing signals when that was.
    async with asyncio.timeout(60):
        while shop.bus.health().status != "ok":  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_a_discard_by_another_process_releases_the_events_behind_the_dead_letter(path: Path) -> None:
    """What waited behind it would go on waiting until the application restarts."""
    bus = EventBusFactory.create_default_event_bus(path, durability="normal")
    packed: list[int] = []
    released = asyncio.Event()

    async def pack(event: ShopOrder) -> None:
        if event.quantity < 0:
            raise ValueError("no such quantity")
        packed.append(event.quantity)
        released.set()

    bus.subscribe(ShopOrder, pack, name="pack", retry=RetryPolicy(max_attempts=1), on_exhausted="park_key")
    async with bus:
        for quantity in (-1, 2):
            await bus.publish(ShopOrder("o-1", quantity))
        await bus.drain()
        assert packed == []
        async with open_operations(path) as elsewhere:
            assert (await elsewhere.discard(1)).count == 1
        await asyncio.wait_for(released.wait(), 60)
        assert packed == [2]
