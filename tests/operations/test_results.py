"""What operators are told: plans, rates, pages, and how each action ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pabal import SqliteEventStorage
from pabal.errors import DecodeError, StorageClosedError, StorageUnavailableError
from pabal.factory import open_operations
from pabal.operations import HIDDEN, Masking, Operations, operations_of, parse_filter
from pabal.operations.filters import parse_moment
from pabal.operations.health import judge
from pabal.operations.storage_source import StorageSource
from pabal.operations.views import with_figures
from pabal.ports.operations import ActionResult, DeadLetterFilter, Reason, SubscriptionView, Target
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


@pytest.mark.parametrize("limit", [None, 1, 3, 4, 8, 9])
async def test_reading_in_pages_yields_each_event_once(
    operations: Operations, monkeypatch: pytest.MonkeyPatch, limit: int | None
) -> None:
    """An export would lack the events between two pages, or have more than were asked for."""
    monkeypatch.setattr("pabal.operations.following._PAGE", 3)
    read = [event.position async for event in operations.read(limit=limit)]
    assert read == list(range(1, 9))[:limit]
    rest = [event.position async for event in operations.read(after="3", limit=limit)]
    assert rest == list(range(4, 9))[:limit]


async def test_following_without_a_cursor_begins_with_what_is_published_next(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``pabal tail`` would print a million past events first."""
    await shop.bus.publish(ShopOrder("o-1", 1))
    await shop.bus.drain()
    storage = shop.bus.storage
    assert storage is not None
    heads, head = asyncio.Event(), storage.head

    async def counted() -> int:
        found = await head()
        heads.set()
        return found

    monkeypatch.setattr(storage, "head", counted)
    following = operations_of(shop.bus).follow(every=0.001)
    first = asyncio.ensure_future(anext(following))
    await heads.wait()
    await shop.bus.publish(ShopOrder("o-2", 1))
    assert (await asyncio.wait_for(first, 60)).payload["order_id"] == "o-2"
    await following.aclose()


def test_the_most_severe_reason_of_all_subscriptions_comes_first() -> None:
    """What has stopped would be listed below what waits for a decision."""
    figures: dict[str, Any] = {"watermark": 0, "frontier": 0, "retries": 0, "queued": 0}
    views = [
        SubscriptionView("mail", "active", lag=0, parked=2, **figures),
        SubscriptionView("pack", "halted", lag=0, parked=0, reason="halted at event 5", **figures),
    ]
    target = Target("sqlite", "shop.db", live=True, has_log=True)
    health, reasons = judge(target, views, [Reason("bus", "degraded", "slow")], datetime.now(UTC))
    assert (health, [reason.code for reason in reasons]) == ("failing", ["halted", "bus", "parked"])


def test_a_time_without_a_zone_is_in_utc_or_local_as_asked() -> None:
    """A program would get other events on a machine in another zone, or a person at a terminal."""
    noon = datetime(2026, 5, 1, 12, tzinfo=UTC)
    assert parse_moment("since", "2026-05-01T12:00", noon) == noon
    assert parse_moment("since", "2026-05-01T21:00+09:00", noon) == noon
    assert parse_moment("since", "2026-05-01T21:00+09:00", noon, local=True) == noon
    assert (
        parse_moment("since", "2026-05-01T12:00", noon, local=True) == datetime(2026, 5, 1, 12).astimezone()
    )
    for text, age in (("90s", timedelta(seconds=90)), ("3 d", timedelta(days=3)), ("2w", timedelta(weeks=2))):
        assert parse_moment("since", text, noon) == noon - age


async def test_only_a_log_that_was_opened_for_operations_is_closed_with_them(stopped: Path) -> None:
    """Each look at a file would leave it open, or close it for the application that uses it."""
    async with open_operations(stopped) as operations:
        await operations.overview()
    with pytest.raises(StorageClosedError):
        await operations.overview()
    async with SqliteEventStorage(stopped) as storage:
        await operations_of(storage).aclose()
        assert (await operations_of(storage).overview()).totals.events == 8


async def test_a_reason_that_quotes_an_error_is_hidden_with_it(operations: Operations) -> None:
    """The value that no class fits would be hidden in the payload, and shown beside it."""
    letter = await operations.dead_letter(1)
    said = letter.attempts[-1].message
    quoting = msgspec.structs.replace(letter, reason=f"gave up: {said}")
    silent = [msgspec.structs.replace(attempt, message="") for attempt in letter.attempts]
    assert Masking("masked").letter(quoting).reason == f"gave up: {HIDDEN}"
    unsaid = msgspec.structs.replace(quoting, attempts=tuple(silent), reason="gave up")
    assert Masking("masked").letter(unsaid).reason == "gave up"
    assert Masking("full").letter(quoting).reason == f"gave up: {said}"


async def test_a_reset_says_whether_it_has_taken_effect(shop: Shop, path: Path) -> None:
    """An operator would read a position that the subscription does not have yet, or wait for what is done."""
    await shop.bus.publish(ShopOrder("o-1", 1))
    await shop.bus.drain()
    async with open_operations(path) as elsewhere:
        asked = await elsewhere.reset("pack", "beginning")
        assert (asked.count, asked.position, asked.pending) == (1, None, True)
        await shop.bus.stop()
        done = await elsewhere.reset("pack", 1)
        assert (done.count, done.position, done.pending) == (1, 1, False)


@pytest.mark.parametrize("oldest_first", [False, True])
async def test_a_search_by_type_of_aggregate_goes_on_over_events_of_others(
    operations: Operations, monkeypatch: pytest.MonkeyPatch, oldest_first: bool
) -> None:
    """The search would end at the first stretch of the log in which nothing matches, or find things twice."""
    monkeypatch.setattr("pabal.operations.log._SCAN_PAGE", 2)
    monkeypatch.setattr("pabal.operations.following._PAGE", 2)
    wanted = parse_filter({"aggregate": "order/"})
    if oldest_first:
        found = [event.aggregate_id async for event in operations.read(wanted)]
        assert found == [f"o-{number}" for number in range(5)]
    else:
        page = await operations.events(wanted, limit=5)
        assert [event.aggregate_id for event in page.events] == [f"o-{number}" for number in range(4, -1, -1)]


def test_a_process_on_standby_shows_why_the_one_that_handles_a_subscription_has_stopped() -> None:
    """It would be shown as waiting for its turn, while nobody handles anything."""
    halted = SubscriptionView(
        "pack", "halted", 4, 4, lag=6, retries=0, parked=0, queued=0, reason="halted at 5"
    )
    figures: dict[str, Any] = {
        "state": "standby",
        "reason": "held by another",
        "watermark": None,
        "lag": None,
        "in_flight": 0,
        "handled": 0,
        "failed_attempts": 0,
        "skipped": 0,
        "avg_processing_time_ms": 0.0,
    }
    shown = with_figures(halted, figures)
    assert (shown.state, shown.reason, shown.lag) == ("halted", "halted at 5", 6)
    own = with_figures(halted, {**figures, "state": "active", "reason": "", "watermark": 4, "lag": 2})
    assert (own.state, own.reason, own.lag) == ("active", "", 2)
