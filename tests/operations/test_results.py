"""What operators are told: plans, rates, pages, and how each action ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pabal.errors import DecodeError, StorageUnavailableError
from pabal.factory import open_operations
from pabal.operations import Masking, Operations, operations_of
from pabal.operations.storage_source import StorageSource
from pabal.ports.operations import ActionResult, DeadLetterFilter
from tests.operations.conftest import Shop, ShopOrder


@pytest.fixture
async def operations(stopped: Path) -> AsyncIterator[Operations]:
    async with open_operations(stopped, actor="kim") as opened:
        yield opened


async def test_an_interrupted_action_is_recorded_as_failed_and_stays_cancelled(
    operations: Operations, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C would be ignored, or the audit log say that a discard is still under way."""
    begun = asyncio.Event()

    async def discard(source: StorageSource, dead_letter_id: int) -> ActionResult:
        begun.set()
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(StorageSource, "discard", discard)
    task = asyncio.create_task(operations.discard(1))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    (entry,) = await operations.audit()
    assert (entry.succeeded, entry.result) == (False, "CancelledError")


async def test_what_cannot_be_retried_is_left_and_counted_and_trouble_ends_the_rest(
    operations: Operations, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One dead letter that no class fits would keep back the others, or a full disk pass for a success."""
    retry = StorageSource.retry
    failure: list[Exception] = [DecodeError(event_type="shop.ordered", position=2, reason="no such field")]

    async def picky(source: StorageSource, dead_letter_id: int, payload: bytes | None) -> ActionResult:
        if dead_letter_id == 1:
            raise failure[0]
        return await retry(source, dead_letter_id, payload)

    monkeypatch.setattr(StorageSource, "retry", picky)
    seen: list[int] = []
    result = await operations.retry_matching(DeadLetterFilter(error_type="ValueError"), progress=seen.append)
    assert (result.count, result.skipped, seen) == (1, 1, [1, 2])
    assert result.subject == "error_type=ValueError"
    failure[0] = StorageUnavailableError(path="shop.db", reason="database or disk is full")
    with pytest.raises(StorageUnavailableError):
        await operations.retry_matching(DeadLetterFilter())
    failed, done = await operations.audit()
    assert (done.subject, done.result) == (
        "error_type=ValueError",
        "1 done, 1 left unchanged, takes effect when the subscription is handled next",
    )
    assert (failed.subject, failed.succeeded) == ("all", False)
    assert failed.result.startswith("StorageUnavailableError: ")


async def test_a_dead_letter_that_fits_no_class_is_not_marked_for_a_retry(
    operations: Operations, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process that handles the subscription would only park it again, with another error."""

    def decode(record: Any) -> Any:
        raise DecodeError(
            event_type=record.event_type, position=record.position, reason="quantity is missing"
        )

    monkeypatch.setattr("pabal.operations.dead_letters.decode_event", decode)
    with pytest.raises(DecodeError):
        await operations.retry(1)
    assert (await operations.dead_letter(1)).state == "parked"
    edited = await operations.edit_and_retry(1, {"order_id": "o-1", "quantity": 4, "email": ""})
    assert (edited.action, edited.subject, edited.count, edited.pending) == ("edit", "1", 1, True)


def test_operations_under_another_name_keep_the_rest(stopped: Path) -> None:
    """An operator's action would be recorded as somebody else's, or show what is to be hidden."""
    masking, other = Masking("masked"), Masking("none")
    operations = open_operations(stopped, actor="kim", masking=masking)
    assert (operations.using(actor="lee").actor, operations.using(actor="lee").masking) == ("lee", masking)
    assert (operations.using(masking=other).actor, operations.using(masking=other).masking) == ("kim", other)


async def test_the_published_rate_is_an_average_over_a_minute(shop: Shop) -> None:
    """A bus that publishes twice a second would seem to publish a hundred, or nothing."""
    await shop.bus.publish_batch([ShopOrder(f"o-{number}", -1) for number in range(120)])
    await shop.bus.drain()
    overview = await operations_of(shop.bus).overview()
    assert overview.published_per_second == 2.0
    assert (overview.subscriptions, overview.parked, overview.in_flight, overview.lag) == (1, 120, 0, 0)


async def test_a_page_that_ends_with_the_last_event_has_no_next_page(operations: Operations) -> None:
    """An operator would be sent to an empty page."""
    everything = await operations.events(limit=8)
    assert (len(everything.events), everything.older, everything.newer) == (8, None, None)
    newest = await operations.events(after="0", limit=8)
    assert (len(newest.events), newest.newer) == (8, None)
    letters = await operations.dead_letters(limit=2)
    assert (len(letters.dead_letters), letters.next) == (2, None)


@pytest.mark.parametrize(
    ("first", "last", "count"),
    [(1, None, 8), (3, 5, 3), (8, 99, 1), (6, 5, 0), (9, None, 0), (1, "soon", 8), ("ago", "soon", 8)],
)
async def test_the_plan_of_a_replay_counts_what_the_replay_delivers(
    operations: Operations, first: Any, last: Any, count: int
) -> None:
    """The question would name another number of events than are delivered."""
    times = {"ago": datetime.now(UTC) - timedelta(hours=1), "soon": datetime.now(UTC) + timedelta(hours=1)}
    bounds = times.get(first, first), times.get(last, last)
    plan = await operations.plan_replay("pack", *bounds)
    assert (plan.action, plan.subject, plan.count, plan.pending) == ("replay", "pack", count, True)
    if count:
        assert (await operations.replay("pack", *bounds)).count == count
