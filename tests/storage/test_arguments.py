"""Invalid arguments raise UsageError; they do not make the log look damaged."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

from pabal import InMemoryEventStorage, SqliteEventStorage
from pabal.errors import DeadLetterNotFoundError, UsageError
from pabal.ports.storage import LogFilter
from tests.storage.events import Tick, ticks

Storage = SqliteEventStorage | InMemoryEventStorage
Call = Callable[[Any, Any], Awaitable[Any]]
TOO_LARGE = 2**70
LONE_SURROGATE = "kim\ud800"


async def positions(storage: Storage, after: int = 0, limit: int | None = None) -> list[int]:
    return [one.position async for one in storage.read(after, limit=limit)]


POSITION_CALLS: dict[str, Call] = {
    "read after": positions,
    "read_page after": lambda storage, number: storage.read_page(number, limit=10),
    "find_events after": lambda storage, number: storage.find_events(LogFilter(), after=number),
    "find_events before": lambda storage, number: storage.find_events(LogFilter(), before=number),
    "read_history after_version": lambda storage, number: storage.read_history("symbol", "a", number),
    "read_stream after_version": lambda storage, number: storage.read_stream("a", None, after_version=number),
    "list_dead_letters after": lambda storage, number: storage.list_dead_letters(after=number),
    "list_actions before": lambda storage, number: storage.list_actions(before=number),
    "deliveries_at position": lambda storage, number: storage.deliveries_at(number),
    "parked_positions upto": lambda storage, number: storage.parked_positions("mail", 0, number),
}
LIMIT_CALLS: dict[str, Call] = {
    "read": lambda storage, limit: positions(storage, limit=limit),
    "read_page": lambda storage, limit: storage.read_page(0, limit=limit),
    "find_events": lambda storage, limit: storage.find_events(LogFilter(), limit=limit),
    "get_unprocessed_events": lambda storage, limit: storage.get_unprocessed_events(limit),
    "read_stream": lambda storage, limit: storage.read_stream("a", None, limit=limit),
    "list_streams": lambda storage, limit: storage.list_streams(limit=limit),
    "list_dead_letters": lambda storage, limit: storage.list_dead_letters(limit=limit),
    "list_actions": lambda storage, limit: storage.list_actions(limit=limit),
    "queued_positions": lambda storage, limit: storage.queued_positions("mail", "a", limit),
}
TEXT_CALLS: dict[str, Call] = {
    "read types": lambda storage, text: _read_types(storage, text),
    "get_events_by_aggregate": lambda storage, text: storage.get_events_by_aggregate(text),
    "read_history": lambda storage, text: storage.read_history("symbol", text),
    "find_events": lambda storage, text: storage.find_events(LogFilter(aggregate_id=text)),
    "list_streams": lambda storage, text: storage.list_streams(prefix=text),
    "list_dead_letters": lambda storage, text: storage.list_dead_letters(subscription=text),
    "load_snapshot": lambda storage, text: storage.load_snapshot("symbol", text),
    "save_snapshot": lambda storage, text: storage.save_snapshot("symbol", text, 1, b""),
    "open_subscription": lambda storage, text: storage.open_subscription(text, "now"),
    "pause_subscription": lambda storage, text: storage.pause_subscription(text),
    "query": lambda storage, text: storage.query("SELECT ?", (text,)),
}


async def _read_types(storage: SqliteEventStorage, name: str) -> None:
    async for _ in storage.read(types=[name]):
        pass


@pytest.mark.parametrize("call", POSITION_CALLS.values(), ids=POSITION_CALLS.keys())
@pytest.mark.parametrize("number", [TOO_LARGE, -TOO_LARGE, "3"])
async def test_an_invalid_position_raises_a_usage_error_that_names_the_argument(
    any_storage: Storage, call: Call, number: Any, request: pytest.FixtureRequest
) -> None:
    """A mistake in a number made the log look damaged, so an operator might have rebuilt it."""
    name = request.node.callspec.id.rpartition("-")[2].split()[1]
    await any_storage.store_events(ticks(3))
    with pytest.raises(UsageError, match=f"^{name} is {number!r}; "):
        await call(any_storage, number)


@pytest.mark.parametrize("call", LIMIT_CALLS.values(), ids=LIMIT_CALLS.keys())
async def test_a_negative_limit_raises_a_usage_error(any_storage: Storage, call: Call) -> None:
    """A wrong sign returned everything, nothing, or all but the last, depending on the storage and call."""
    await any_storage.store_events(ticks(3))
    with pytest.raises(UsageError, match=r"^limit is -1; it cannot be negative"):
        await call(any_storage, -1)


@pytest.mark.parametrize("call", TEXT_CALLS.values(), ids=TEXT_CALLS.keys())
async def test_text_with_a_lone_surrogate_raises_a_usage_error_that_says_so(
    storage: SqliteEventStorage, call: Call
) -> None:
    """An aggregate id with a lone surrogate made the log look damaged."""
    await storage.store_events(ticks(3))
    with pytest.raises(UsageError, match=r"kim\\ud800.* contains a lone surrogate"):
        await call(storage, LONE_SURROGATE)


@pytest.mark.parametrize("types", ["storage-test.tick", Tick])
async def test_one_type_instead_of_a_list_of_types_raises(any_storage: Storage, types: Any) -> None:
    """A name was taken for a list of letters, so that the log seemed to hold no such event."""
    await any_storage.store_events(ticks(2))
    with pytest.raises(UsageError, match="give a list, such as"):
        [one async for one in any_storage.read(types=types)]
    with pytest.raises(UsageError, match="give a list, such as"):
        await any_storage.find_events(LogFilter(types=types))
    with pytest.raises(UsageError, match="a LogFilter takes names"):
        await any_storage.find_events(LogFilter(types=(Tick,)))  # type: ignore[arg-type]


async def test_query_rejects_an_integer_of_more_than_64_bits(storage: SqliteEventStorage) -> None:
    """A mistake in an application's own query made the log look damaged."""
    with pytest.raises(UsageError, match="more than 64 bits"):
        await storage.query("SELECT ?", (TOO_LARGE,))


async def test_text_with_a_nul_is_compared_in_full(any_storage: Storage) -> None:
    """If text ended at its NUL, two aggregates would be taken for one."""
    events = ticks(1, "a\0b") + ticks(2, "a\0c")
    await any_storage.store_events(events)
    assert await any_storage.get_events_by_aggregate("a\0b") == events[:1]
    assert [name for name, _, _ in await any_storage.list_streams(prefix="a\0")] == ["a\0b", "a\0c"]


async def test_reading_after_a_negative_position_returns_each_event_once(any_storage: Storage) -> None:
    """The in-memory storage returned the last events first, and then again."""
    await any_storage.store_events(ticks(4))
    assert await positions(any_storage, -2) == [1, 2, 3, 4]


async def test_a_cursor_opened_at_a_negative_position_starts_at_0(any_storage: Storage) -> None:
    """A cursor at a negative position reported a lag of more events than there are."""
    cursor = await any_storage.open_subscription("mail", -3)
    assert cursor is not None
    assert cursor.watermark == 0


async def test_get_dead_letter_raises_not_found_for_a_string_id(any_storage: Storage) -> None:
    """A number taken from a URL without conversion made the log look damaged."""
    number: Any = "1"
    with pytest.raises(DeadLetterNotFoundError, match="there is no dead letter 1"):
        await any_storage.get_dead_letter(number)


async def test_list_abandoned_accepts_the_largest_timedelta(storage: SqliteEventStorage) -> None:
    """``timedelta.max``, meaning never, raised an OverflowError."""
    await storage.open_subscription("mail", "now")
    await storage.release_subscription("mail", 1)
    assert await storage.list_abandoned(timedelta.max) == []
    assert [one.name for one in await storage.list_abandoned(timedelta(0))] == ["mail"]


async def test_finishing_an_action_that_was_never_begun_changes_nothing(any_storage: Any) -> None:
    """Another action would get its result, or the caller an error that says nothing of a number."""
    await any_storage.begin_action("kim", "pause", "sub", {})
    for number in (-1, 0, 2):
        await any_storage.finish_action(number, "done", succeeded=True)
    assert [(one.id, one.result) for one in await any_storage.list_actions()] == [(1, "")]
