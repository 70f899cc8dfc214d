"""Dead letters whose subscription was deleted, in both storages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pabal import SqliteEventStorage
from pabal.ports.storage import ParkedDelivery, Progress
from tests.storage.events import ticks


async def forgotten_dead_letters(storage: Any) -> list[int]:
    """Create two dead letters of a subscription that is then deleted; return their ids."""
    await storage.store_events(ticks(2))
    cursor = await storage.open_subscription("gone", "beginning")
    rows = await storage.read_positions([1, 2])
    parked = [ParkedDelivery(row.position, "no", (), 5.0, row, key="a", blocks=True) for row in rows]
    assert await storage.save_progress([Progress("gone", cursor.epoch, 2, 2, parked=tuple(parked))]) == []
    await storage.release_subscription("gone", cursor.epoch)
    assert await storage.forget_subscription("gone")
    return [letter.id for letter in await storage.list_dead_letters()]


async def test_dead_letters_of_a_forgotten_subscription_can_be_retried_and_discarded(
    any_storage: Any,
) -> None:
    """They outlive the subscription on purpose; retrying or discarding them must not fail on its name."""
    first, second = await forgotten_dead_letters(any_storage)
    letter = await any_storage.begin_retry(first, None, 6.0)
    assert (letter.state, letter.position) == ("retrying", 1)
    assert await any_storage.begin_retry(first, None, 7.0) is None, "its retry has begun"
    await any_storage.discard_dead_letter(first)
    await any_storage.discard_dead_letter(second)
    assert await any_storage.list_dead_letters() == []


async def test_a_reused_subscription_name_starts_without_old_retries(any_storage: Any) -> None:
    """Retries left under the name would be delivered to a new subscription that never asked for them."""
    [first, _] = await forgotten_dead_letters(any_storage)
    await any_storage.discard_dead_letter(first)
    cursor = await any_storage.open_subscription("gone", "now")
    assert (cursor.watermark, cursor.unfinished, cursor.retries) == (2, (), ())


async def test_a_reused_subscription_name_is_not_blocked_by_old_dead_letters(any_storage: Any) -> None:
    """After a restart, all events of their keys would queue behind dead letters of the deleted one."""
    [first, _] = await forgotten_dead_letters(any_storage)
    await any_storage.begin_retry(first, None, 6.0)
    for _ in range(2):
        cursor = await any_storage.open_subscription("gone", "now")
        assert (cursor.blocked_keys, cursor.retries) == ((), ())
        await any_storage.release_subscription("gone", cursor.epoch)
    assert [(one.state, one.key) for one in await any_storage.list_dead_letters()] == [("parked", None)] * 2
    assert await any_storage.begin_retry(first, None, 7.0) is not None
    cursor = await any_storage.open_subscription("gone", "now")
    assert [retry.position for retry in cursor.retries] == [1]


async def test_a_reused_subscription_name_loses_dead_letters_of_events_that_it_gets_again(
    any_storage: Any,
) -> None:
    """One whose event is handled now would stay for ever, and one that fails again would be counted twice."""
    await forgotten_dead_letters(any_storage)
    assert (await any_storage.open_subscription("gone", 1)).frontier == 1
    assert [letter.position for letter in await any_storage.list_dead_letters()] == [1]


async def test_a_reused_subscription_name_keeps_dead_letters_of_events_that_were_trimmed(
    tmp_path: Path,
) -> None:
    """They hold the only copy of an event that the subscription can no longer get from the log."""
    async with SqliteEventStorage(tmp_path / "log.db") as storage:
        await forgotten_dead_letters(storage)
        assert (await storage.trim(max_events=1)).deleted == 1
        await storage.open_subscription("gone", "beginning")
        assert [letter.position for letter in await storage.list_dead_letters()] == [1]


async def test_a_retry_for_a_forgotten_subscription_makes_no_event_unprocessed(any_storage: Any) -> None:
    """Whoever waits until nothing is left would wait for a subscription that no longer exists."""
    [first, _] = await forgotten_dead_letters(any_storage)
    await any_storage.open_subscription("other", "now")
    await any_storage.begin_retry(first, None, 6.0)
    assert await any_storage.get_unprocessed_events() == []
