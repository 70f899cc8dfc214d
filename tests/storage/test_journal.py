"""The journal of the attempts under way, which shows what a process was doing when it died."""

from __future__ import annotations

from pathlib import Path

import pytest

from pabal import SqliteEventStorage
from pabal.ports.storage import Progress
from pabal.storage.sqlite.journal import dead_journals, journal_path
from tests.storage.events import ticks


async def test_a_journal_is_locked_before_it_gets_its_name(path: Path) -> None:
    """If it were visible unlocked, a starting process would count as dead and lose its subscriptions."""
    seen: list[str] = []
    rename = Path.rename
    async with SqliteEventStorage(path) as watcher:

        def look_first(self: Path, target: Path) -> Path:
            seen.extend(owner for owner, *_ in dead_journals(path, ""))
            return rename(self, target)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Path, "rename", look_first)
            async with SqliteEventStorage(path):
                seen.extend(owner for owner, *_ in dead_journals(path, ""))
        assert seen == []
        assert await watcher.open_subscription("held", "now") is not None


async def test_attempts_under_way_at_a_crash_are_counted_when_the_subscription_is_reopened(
    path: Path,
) -> None:
    """Promise 6 depends on it: an unlocked journal shows in which attempts its process died."""
    async with SqliteEventStorage(path) as storage:
        await storage.store_events(ticks(5))
        cursor = await storage.open_subscription("held", "beginning")
        assert cursor is not None
        base = storage.journal.reserve(2)
        storage.journal.begin(base, cursor.number, 3, 3, 1)
        storage.journal.begin(base + 1, cursor.number, 4, 4, 2)
        storage.journal.end(base + 1)
        await storage.save_progress([Progress("held", cursor.epoch, 2, 4, (3,))])
        content = storage.journal.path.read_bytes()
    # As if the process had died: the subscription still has its owner, and the journal is unlocked.
    dead = journal_path(path, "d" * 32)
    dead.write_bytes(content)
    async with SqliteEventStorage(path) as storage:
        await storage._do(
            lambda tx: tx.execute("UPDATE subscriptions SET owner = ?, lease_until = 9e18", ("d" * 32,))
        )
        again = await storage.open_subscription("held", "now")
        assert again is not None
        assert again.unfinished == (3,)
        (retry,) = again.retries
        assert (retry.position, retry.attempts) == (3, 1)
        assert [failure.error_type for failure in retry.failures] == ["ProcessDied"]
        assert not dead.exists()
