"""The process that handles a subscription obeys control requests made in another process."""

from __future__ import annotations

from pathlib import Path

import pytest

from pabal import SqliteEventStorage
from pabal.errors import SubscriptionInUseError
from tests.storage.holder_process import holder_process


async def test_another_process_carries_out_a_pause_a_replay_and_a_resume(path: Path) -> None:
    """Operators control subscriptions from a shell, while the application runs them in another process."""
    async with holder_process(path) as other, SqliteEventStorage(path) as storage:
        await other.send("publish 1")
        await other.wait_for_line("handled 1")
        await other.wait_for_line("drained")
        await storage.pause_subscription("held")
        await other.wait_for_line("report SubscriptionPaused")
        await other.send("publish 2")
        await other.wait_for_line("drained")
        [record] = await storage.list_subscriptions()
        assert (record.watermark, record.paused) == (1, True)
        await storage.request_replay("held", 1, 1)
        await storage.resume_subscription("held")
        await other.wait_for_line("handled 1")
        await other.wait_for_line("handled 2")


async def test_resetting_a_subscription_raises_while_another_process_holds_it(path: Path) -> None:
    """If a cursor were moved while a process handles it, the next save would overwrite the move."""
    async with holder_process(path) as other, SqliteEventStorage(path) as storage:
        with pytest.raises(SubscriptionInUseError):
            await storage.reset_subscription("held", "beginning")
        other.process.kill()
        await other.process.wait()
        assert await storage.reset_subscription("held", "beginning") == 0
        assert await storage.forget_subscription("held")


async def test_a_control_call_that_changes_nothing_does_not_wake_other_processes(path: Path) -> None:
    """Every process that follows the file would check all its subscriptions for nothing."""
    async with SqliteEventStorage(path) as storage, SqliteEventStorage(path) as other:
        assert await storage.open_subscription("idle", "now") is not None
        other.poll_head()
        other.poll_controls()
        assert await storage.cancel_replays("idle") == 0
        await storage.request_reopening("unknown")
        assert (other.poll_head(), other.poll_controls()) == (None, False)
        assert await storage.pause_subscription("idle")
        assert (other.poll_head(), other.poll_controls()) == (None, True)
