"""Operators see what the log and the bus hold, on a live or stopped bus."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from pabal import EventBusFactory
from pabal.errors import (
    EventNotFoundError,
    InvalidFilterError,
    NotAPabalDatabaseError,
    StorageUnavailableError,
)
from pabal.factory import open_operations
from pabal.operations import HIDDEN, Masking, operations_of, parse_filter
from tests.operations.conftest import Shop, ShopOrder, retry_dead_letters


async def test_the_overview_of_a_stopped_log_says_what_is_wrong(stopped: Path) -> None:
    """The operator on call would not see the dead letters that wait for a decision."""
    async with open_operations(stopped) as operations:
        overview = await operations.overview()
    assert overview.health == "degraded"
    assert [(reason.code, reason.subscription, reason.number) for reason in overview.reasons] == [
        ("parked", "pack", 2)
    ]
    assert (overview.totals.events, overview.parked, overview.lag) == (8, 2, 0)
    assert msgspec.json.decode(msgspec.json.encode(overview))["target"]["kind"] == "sqlite"


async def test_operations_of_a_live_bus_include_its_runtime_state(shop: Shop) -> None:
    """Rates and states of a running bus would be missing on the dashboard."""
    operations = operations_of(shop.bus)
    await shop.bus.publish(ShopOrder("o-1", 1))
    await shop.bus.drain()
    (view,) = await operations.subscriptions()
    assert (view.state, view.handled, view.lag) == ("active", 1, 0)
    overview = await operations.overview()
    assert (overview.health, overview.totals.published, overview.totals.is_running) == ("ok", 2, True)


async def test_pages_cover_all_events_in_both_directions(stopped: Path) -> None:
    """An event between two pages would never be seen."""
    async with open_operations(stopped) as operations:
        seen: list[int | None] = []
        before = None
        while True:
            page = await operations.events(before=before, limit=3)
            seen += [event.position for event in page.events]
            if page.older is None:
                break
            before = page.older
        assert seen == [8, 7, 6, 5, 4, 3, 2, 1]
        page = await operations.events(after="2", limit=3)
        assert [event.position for event in page.events] == [5, 4, 3]
        assert (page.older, page.newer) == ("3", "5")


async def test_filters_select_events_by_type_aggregate_correlation_and_time(stopped: Path) -> None:
    """A filter that returns too much or too little misleads at the worst moment."""
    async with open_operations(stopped) as operations:
        packed = await operations.events(parse_filter({"type": "*.packed"}))
        assert {event.event_type for event in packed.events} == {"shop.packed"}
        assert len(packed.events) == 3
        one = await operations.events(parse_filter({"aggregate": "order/o-2"}))
        (ordered,) = one.events
        caused = await operations.events(parse_filter({"correlation": ordered.event_id}))
        assert [event.event_type for event in caused.events] == ["shop.packed", "shop.ordered"]
        assert (await operations.events(parse_filter({"type": "nothing.like.it"}))).events == ()
        assert (await operations.events(parse_filter({"until": "2020-01-01"}))).events == ()
        assert len((await operations.events(parse_filter({"aggregate": "order/"}))).events) == 5
        assert (await operations.events(parse_filter({"aggregate": "basket/"}))).events == ()


async def test_an_event_shows_its_cause_effects_and_deliveries(stopped: Path) -> None:
    """Operators could not find out why an event did not have its effect."""
    async with open_operations(stopped) as operations:
        orders = (await operations.events(parse_filter({"type": "shop.ordered"}))).events
        finished = await operations.event(orders[-1].event_id)
        assert [effect.event_type for effect in finished.effects] == ["shop.packed"]
        assert [(delivery.subscription, delivery.state) for delivery in finished.deliveries] == [
            ("pack", "finished")
        ]
        failed = await operations.event(orders[-2].event_id)
        (delivery,) = failed.deliveries
        assert (delivery.state, delivery.attempts, delivery.dead_letter_id) == ("parked", 2, 1)
        assert delivery.failures[0].error_type.endswith("ValueError")
        effect = await operations.event(finished.effects[0].event_id)
        assert effect.cause is not None
        assert effect.cause.event_id == finished.event.event_id
        with pytest.raises(EventNotFoundError):
            await operations.event("0190a000-0000-7000-8000-000000000000")


async def test_parked_returns_the_events_that_are_dead_letters(stopped: Path) -> None:
    """The graph of a chain would mark only the oldest dead letters, or read all there are."""
    async with open_operations(stopped) as operations:
        events = (await operations.events()).events
        letters = (await operations.dead_letters()).dead_letters
        assert await operations.parked(events) == {letter.event.event_id for letter in letters}
        assert await operations.parked(events[:0]) == set()


async def test_a_delivery_that_finally_succeeded_shows_its_earlier_failures(stopped: Path) -> None:
    """An operator who asks why an order was late would only see that it was handled."""
    await retry_dead_letters(stopped)
    for mode in ("full", "masked"):
        async with open_operations(stopped, masking=Masking(mode)) as operations:
            orders = (await operations.events(parse_filter({"type": "shop.ordered"}))).events
            detail = await operations.event(orders[-2].event_id)
        (delivery,) = detail.deliveries
        assert (delivery.state, delivery.attempts, delivery.dead_letter_id) == ("finished", 3, None)
        assert [failure.error_type for failure in delivery.failures] == ["ValueError"] * 2
        assert delivery.finished_at is not None
        assert delivery.finished_at >= delivery.failures[-1].failed_at
        text = msgspec.json.encode(delivery).decode()
        assert ("kim@example.com" in text) == (mode == "full")


async def test_a_trace_is_the_same_tree_from_an_effect_as_from_its_cause(stopped: Path) -> None:
    """The way from a cause to its effects would have to be pieced together by hand."""
    async with open_operations(stopped) as operations:
        (packed, *_) = (await operations.events(parse_filter({"type": "shop.packed"}))).events
        trace = await operations.trace(packed.event_id)
        assert await operations.trace(trace.roots[0].event.event_id) == trace
    (root,) = trace.roots
    assert root.event.event_type == "shop.ordered"
    assert [node.event.event_id for node in root.effects] == [packed.event_id]
    assert (trace.count, trace.complete) == (2, True)


async def test_streams_are_listed_in_pages_and_each_shows_its_events(stopped: Path) -> None:
    """An aggregate's history could be found only by its exact id."""
    async with open_operations(stopped) as operations:
        first = await operations.streams(prefix="o-", limit=3)
        assert [stream.aggregate_id for stream in first.streams] == ["o-0", "o-1", "o-2"]
        rest = await operations.streams(prefix="o-", after=first.next, limit=3)
        assert ([stream.aggregate_id for stream in rest.streams], rest.next) == (["o-3", "o-4"], None)
        (event,) = await operations.stream("o-3", "order")
        assert (event.stream_version, event.payload["quantity"]) == (1, -2)
        with pytest.raises(InvalidFilterError):
            await operations.streams(after="no cursor")


async def test_follow_yields_events_published_while_it_runs(shop: Shop) -> None:
    """``pabal tail`` would show past events, or nothing."""
    operations = operations_of(shop.bus)
    seen: list[str] = []

    async def tail() -> None:
        async for event in operations.follow(parse_filter({"type": "shop.packed"}), after="0", every=0.001):
            seen.append(event.payload["order_id"])
            if len(seen) == 2:
                return

    tailing = asyncio.create_task(tail())
    for name in ("o-1", "o-2"):
        await shop.bus.publish(ShopOrder(name, 1))
        await shop.bus.drain()
    await asyncio.wait_for(tailing, 60)
    assert seen == ["o-1", "o-2"]


@pytest.mark.parametrize(
    ("field", "text"),
    [("since", "yesterdayish"), ("type", "a b"), ("colour", "red"), ("until", "99999999999d")],
)
def test_parse_filter_rejects_unknown_fields_and_invalid_values(field: str, text: str) -> None:
    """A mistyped filter would silently show everything."""
    with pytest.raises(InvalidFilterError) as caught:
        parse_filter({field: text})
    assert caught.value.field == field


async def test_masking_hides_fields_by_name_and_messages_that_may_quote_them(stopped: Path) -> None:
    """Personal data would be on the screen of every operator."""
    async with open_operations(stopped, masking=Masking("masked")) as operations:
        letter = await operations.dead_letter(1)
        assert letter.event.payload == {"order_id": "o-1", "quantity": -1, "email": HIDDEN}
        detail = await operations.event(letter.event.event_id)
    assert "kim@example.com" not in msgspec.json.encode((letter, detail)).decode()


async def test_open_operations_rejects_a_file_that_is_not_a_log_and_leaves_it_unchanged(
    tmp_path: Path,
) -> None:
    """Inspecting a wrong file would turn it into a log, or create one."""
    with pytest.raises(StorageUnavailableError):
        open_operations(tmp_path / "missing.db")
    assert not (tmp_path / "missing.db").exists()
    (tmp_path / "notes.txt").write_text("not a log at all")
    with pytest.raises(NotAPabalDatabaseError):
        open_operations(tmp_path / "notes.txt")
    assert (tmp_path / "notes.txt").read_text() == "not a log at all"


async def test_a_bus_without_storage_shows_subscriptions_and_dead_letters() -> None:
    """The dashboard of an in-memory bus would be empty."""
    async with EventBusFactory.create_in_memory_event_bus() as bus:
        Shop(bus)
        await bus.publish(ShopOrder("o-1", -1))
        await bus.drain()
        operations = operations_of(bus)
        (view,) = await operations.subscriptions()
        assert (view.name, view.parked) == ("pack", 1)
        (group,) = await operations.dead_letter_groups()
        assert (group.count, group.newest_id) == (1, 1)
        assert (await operations.events()).events == ()
