"""Commits of other storages on the same file are noticed by polling its head."""

from __future__ import annotations

from pathlib import Path

from pabal import InMemoryEventBus, SqliteEventStorage
from tests.storage.events import Recorder, Tick


async def test_events_stored_by_another_storage_on_the_file_are_delivered(path: Path) -> None:
    """A commit of another process calls no listeners here; the head is polled instead."""
    here = Recorder()
    async with SqliteEventStorage(path) as storage, InMemoryEventBus(storage) as bus:
        bus.subscribe(Tick, here, name="here")
        await bus.drain(60)  # its start is settled, so events from elsewhere come after it
        async with SqliteEventStorage(path) as elsewhere:
            for number in range(1, 4):
                await elsewhere.store_event(Tick("A", number))
                await here.reaches(number)
        assert here.numbers == [1, 2, 3]


async def test_poll_head_reports_another_storages_commit_after_a_write_of_its_own(path: Path) -> None:
    """Saving progress reads the head, too; if the event counted as known then, it would wait for the next."""
    async with SqliteEventStorage(path) as storage, SqliteEventStorage(path) as elsewhere:
        storage.poll_head()
        await elsewhere.store_event(Tick("A", 1))
        await storage.transact(lambda tx: None)
        assert storage.poll_head() == 1
        assert storage.poll_head() is None
        await storage.store_event(Tick("A", 2))
        assert storage.poll_head() is None  # its own commit, already announced to the listeners
