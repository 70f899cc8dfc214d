"""The journal of the attempts under way, which shows what a process was doing when it died."""

from __future__ import annotations

from pathlib import Path

import pytest

from pabal import SqliteEventStorage
from pabal.ports.storage import Progress
from pabal.storage.sqlite.journal import Attempt, MappedJournal, dead_journals, journal_path
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


def test_each_slot_of_a_journal_keeps_its_own_attempt(path: Path) -> None:
    """Promise 6: an attempt noted in another's place would be counted for the wrong event, or not at all."""
    journal = MappedJournal(path, "alive")

    def attempts_after_a_crash() -> list[Attempt]:
        journal_path(path, "dead").write_bytes(journal.path.read_bytes())
        [(_, _, attempts)] = dead_journals(path, "alive")
        return attempts

    assert [journal.reserve(2), journal.reserve(1)] == [0, 2]
    for slot in (2, 0, 1):
        journal.begin(slot, slot + 1, 1000 + slot, 2000 + slot, slot + 5)
    noted = [Attempt(1000, 2000, 5, 1), Attempt(1001, 2001, 6, 2), Attempt(1002, 2002, 7, 3)]
    assert attempts_after_a_crash() == noted
    journal.end(1)
    assert attempts_after_a_crash() == [noted[0], noted[2]]
    journal.close()


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
