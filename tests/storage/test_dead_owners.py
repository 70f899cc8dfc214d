"""Reading the journals of processes that died, and deciding which processes are dead."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from pabal import SqliteEventStorage
from pabal.ports.storage import Cursor, PendingRetry, Progress
from pabal.storage.sqlite import cursors, lifelock
from pabal.storage.sqlite.journal import Attempt, journal_path
from tests.storage.events import ticks

DEAD = "d" * 32


async def reopen_after_a_crash(
    path: Path,
    progress: Callable[[Cursor], Progress],
    attempts: Sequence[Attempt],
    replay: tuple[int, int] | None = None,
) -> Cursor:
    """Prepare a file as if a process had died in these attempts; open its subscription again."""
    async with SqliteEventStorage(path) as storage:
        await storage.store_events(ticks(5))
        cursor = await storage.open_subscription("held", "beginning")
        assert cursor is not None
        assert await storage.save_progress([progress(cursor)]) == []
        if replay is not None:
            await storage.request_replay("held", *replay)
        base = storage.journal.reserve(len(attempts))
        for slot, attempt in enumerate(attempts):
            storage.journal.begin(base + slot, cursor.number, attempt.first, attempt.last, attempt.attempt)
        content = storage.journal.path.read_bytes()
        await storage._do(lambda tx: tx.execute("UPDATE subscriptions SET owner = ?", (DEAD,)))
    journal_path(path, DEAD).write_bytes(content)
    async with SqliteEventStorage(path) as storage:
        again = await storage.open_subscription("held", "now")
        assert again is not None
        return again


async def test_an_attempt_in_a_replay_is_counted_after_a_crash(path: Path) -> None:
    """Promise 6. Replayed events lie below the watermark; uncounted, one would kill process after process."""
    again = await reopen_after_a_crash(
        path, lambda held: Progress("held", held.epoch, 5, 5), [Attempt(2, 2, 1, 0)], replay=(1, 3)
    )
    assert [(retry.position, retry.attempts) for retry in again.retries] == [(2, 1)]


async def test_a_finished_event_is_not_retried_after_a_crash(path: Path) -> None:
    """Another holder may have finished the event since; delivering it again would handle it twice."""
    again = await reopen_after_a_crash(
        path,
        lambda held: Progress("held", held.epoch, 2, 5, (3,)),
        [Attempt(2, 2, 1, 0), Attempt(3, 3, 1, 0)],
    )
    assert [retry.position for retry in again.retries] == [3]


async def test_an_attempt_already_saved_is_not_counted_again_after_a_crash(path: Path) -> None:
    """Otherwise an event would be parked after half of its attempts."""
    counted = PendingRetry(2, 2, time.time())
    again = await reopen_after_a_crash(
        path, lambda held: Progress("held", held.epoch, 1, 5, (2,), (counted,)), [Attempt(2, 2, 2, 0)]
    )
    assert [(retry.attempts, retry.failures) for retry in again.retries] == [(2, ())]


async def test_a_holder_whose_lock_cannot_be_checked_counts_as_dead_when_its_lease_expires(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with another user's files. If a holder counted as dead earlier, two would handle a subscription."""
    monkeypatch.setattr(lifelock, "is_held", lambda file: True)
    async with SqliteEventStorage(path) as one, SqliteEventStorage(path) as two:
        assert await one.open_subscription("held", "now") is not None
        assert await two.open_subscription("held", "now") is None
        monkeypatch.setattr(cursors, "LEASE_SECONDS", -1.0)
        assert await one.renew_leases() == []
        assert await two.open_subscription("held", "now") is not None
        assert await one.renew_leases() == ["held"]


async def test_opening_a_file_removes_dead_journals_without_attempts_under_way(path: Path) -> None:
    """A job started every minute would fill the folder: only taking a subscription removed dead journals."""
    async with SqliteEventStorage(path) as storage:
        assert await storage.open_subscription("held", "now") is not None
        idle, busy = journal_path(path, DEAD), journal_path(path, "e" * 32)
        idle.write_bytes(bytes(32))
        busy.write_bytes(struct.pack("<qqqq", 1, 1, 1, 1))
        async with SqliteEventStorage(path) as publisher:
            await publisher.store_events(ticks(1))
        assert not idle.exists()
        assert busy.exists(), "attempts under way are kept for the next holder"
        assert storage.journal.path.exists()
