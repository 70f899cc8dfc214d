"""Scheduled events, in both storages."""

from __future__ import annotations

from typing import Any

import pytest

from pabal.errors import DuplicateEventError, StorageClosedError
from tests.storage.events import Tick


async def test_a_due_event_stays_scheduled_while_the_storage_is_closed(any_storage: Any) -> None:
    """A bus may ask once more while its storage is being closed; the event would then be lost."""
    await any_storage.schedule_event(Tick("A"), 1.0)
    await any_storage.aclose()
    with pytest.raises(StorageClosedError):
        await any_storage.release_due(2.0)
    any_storage.open()
    assert await any_storage.release_due(2.0) is None
    assert [envelope.event async for envelope in any_storage.read()] == [Tick("A")]


async def test_scheduling_a_stored_id_with_other_content_names_its_position(any_storage: Any) -> None:
    """The message tells where to look for the other event; it said position 0, where there is none."""
    await any_storage.store_event(Tick("A"))
    event = Tick("A", 1)
    await any_storage.store_event(event)
    with pytest.raises(DuplicateEventError, match="position 2 "):
        await any_storage.schedule_event(Tick("A", 2, event_id=event.event_id), 1.0)
