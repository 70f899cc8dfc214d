"""An id identifies one event: storing the event again is harmless, storing another with its id raises."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pabal import DuplicateEventError
from pabal.ports.storage import Committed
from tests.storage.events import Tick, ticks


async def test_storing_an_event_again_returns_its_first_position(any_storage: Any) -> None:
    """A publisher that retries after a lost answer must not create a second event."""
    first, second = ticks(2)
    assert await any_storage.store_events([first, second]) == [1, 2]
    assert await any_storage.store_event(first) == 1
    assert await any_storage.store_events([second, Tick("B"), first]) == [2, 3, 1]
    assert await any_storage.head() == 3


async def test_a_duplicate_is_not_announced_again(any_storage: Any) -> None:
    """Announcing it would deliver the event twice."""
    heard: list[Committed] = []
    any_storage.add_listener(heard.append)
    event, other = ticks(2)
    await any_storage.store_event(event)
    await any_storage.store_events([event, other, event])
    assert [(batch.first, batch.events) for batch in heard] == [(1, (event,)), (2, (other,))]


async def test_different_content_under_a_stored_id_raises_a_duplicate_error(any_storage: Any) -> None:
    """Silently keeping either content would lose the other."""
    event = Tick("A", 1)
    await any_storage.store_event(event)
    for changed in (Tick("A", 2, event_id=event.event_id), Tick("B", 1, event_id=event.event_id)):
        with pytest.raises(DuplicateEventError) as caught:
            await any_storage.store_event(changed)
        assert (caught.value.event_id, caught.value.position) == (event.event_id, 1)
    assert await any_storage.get_event(event.event_id) == event


async def test_the_same_event_twice_in_one_batch_is_stored_once(any_storage: Any) -> None:
    """Within a batch nothing is in the log yet, so the check against the log alone would miss it."""
    one, two, three = ticks(3)
    await any_storage.store_event(one)
    assert await any_storage.store_events([two, three, two]) == [2, 3, 2]
    assert await any_storage.get_events_by_aggregate("KRW-BTC", "symbol") == [one, two, three]


async def test_a_batch_with_two_contents_under_one_id_stores_nothing(any_storage: Any) -> None:
    """The batch contradicts itself, and must not be stored in part."""
    one = Tick("A", 1)
    with pytest.raises(DuplicateEventError):
        await any_storage.store_events([one, Tick("A", 2, event_id=one.event_id)])
    assert await any_storage.head() == 0


async def test_an_event_stored_concurrently_by_many_publishers_is_stored_once(any_storage: Any) -> None:
    """Their appends share one statement, so a violation of the unique index would fail them all."""
    event = Tick("A", 1)
    results = await asyncio.gather(
        *(any_storage.store_event(event) for _ in range(20)),
        *(any_storage.store_event(tick) for tick in ticks(5, "B")),
    )
    assert set(results[:20]) == {1}
    assert results[20:] == [2, 3, 4, 5, 6]


async def test_appending_a_stored_event_again_succeeds_despite_its_expected_version(any_storage: Any) -> None:
    """A command that is retried after its answer was lost must succeed, not conflict with itself."""
    event = Tick("A", 1)
    assert await any_storage.append("symbol", "A", [event], expected_version=0) == [1]
    assert await any_storage.append("symbol", "A", [event], expected_version=0) == [1]
    assert await any_storage.get_events_by_aggregate("A", "symbol") == [event]
