"""A subscription has one holder: opening, reopening, releasing and renewing it."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from pabal import SqliteEventStorage
from pabal.errors import SubscriptionInUseError
from pabal.ports.storage import Progress
from pabal.storage.sqlite import cursors
from pabal.storage.sqlite.transaction import Transaction
from tests.storage.events import Tick, ticks


async def test_only_one_of_several_concurrent_openings_gets_the_subscription(
    storage: SqliteEventStorage,
) -> None:
    """If this were decided outside of the writer thread, both would find the subscription free."""
    cursors = await asyncio.gather(*(storage.open_subscription("held", "now") for _ in range(5)))
    assert sum(cursor is not None for cursor in cursors) == 1


async def test_an_opening_grouped_with_a_duplicate_event_gets_the_subscription(
    storage: SqliteEventStorage,
) -> None:
    """The stored event makes the group run again; the opening then found its own first run as the holder."""
    known = Tick("A", 1)
    await storage.store_event(known)
    openings = [storage.open_subscription("held", "now") for _ in range(2)]
    assert await storage.store_event(known) == 1
    cursor, other = await asyncio.gather(*openings)
    assert other is None
    assert cursor is not None
    await storage.release_subscription("held", cursor.epoch)
    assert await storage.open_subscription("held", "now") is not None


async def test_reopening_a_subscription_during_a_renewal_does_not_lose_the_lease(
    storage: SqliteEventStorage,
) -> None:
    """The holder would stop handling the subscription, and then wait for itself to release it for ever."""
    cursor = await storage.open_subscription("held", "now")
    assert cursor is not None
    writer_may_continue = threading.Event()
    writing = asyncio.ensure_future(storage.transact(lambda tx: writer_may_continue.wait(20)))
    await asyncio.sleep(0)
    releasing = asyncio.ensure_future(storage.release_subscription("held", cursor.epoch))
    await asyncio.sleep(0)
    opening = storage.open_subscription("held", "now")
    renewing = asyncio.ensure_future(storage.renew_leases())
    await asyncio.sleep(0)
    writer_may_continue.set()
    await asyncio.gather(writing, releasing)
    assert await opening is not None
    assert await renewing == []
    assert await storage.renew_leases() == []


@pytest.mark.parametrize("held", [False, True])
async def test_an_opening_grouped_with_a_rejected_call_gets_the_subscription(
    storage: SqliteEventStorage, held: bool
) -> None:
    """The group runs again after a job fails; the opening then found its own first run as the holder."""
    earlier = await storage.open_subscription("held", "now") if held else None
    epoch = None if earlier is None else earlier.epoch
    has_begun, may_end = threading.Event(), threading.Event()

    def write(tx: Transaction) -> None:
        has_begun.set()
        may_end.wait(20)

    writing = asyncio.ensure_future(storage.transact(write))
    await asyncio.to_thread(has_begun.wait)  # so that the next two jobs share a commit
    opening = storage.open_subscription("held", "now", epoch=epoch)
    forgetting = asyncio.ensure_future(storage.forget_subscription("held"))
    await asyncio.sleep(0)
    may_end.set()
    await writing
    assert await opening is not None
    with pytest.raises(SubscriptionInUseError):
        await forgetting


async def test_a_subscription_reopened_under_its_epoch_is_never_free_to_be_forgotten(path: Path) -> None:
    """Between a release and the next opening another process could delete it, and its work was lost."""
    async with SqliteEventStorage(path) as storage, SqliteEventStorage(path) as other:
        cursor = await storage.open_subscription("held", "beginning")
        await storage.store_event(Tick("a", 1))
        assert cursor is not None
        for epoch in range(2, 6):
            opening = storage.open_subscription("held", "now", epoch=cursor.epoch)
            with pytest.raises(SubscriptionInUseError):
                await other.forget_subscription("held")
            cursor = await opening
            assert cursor is not None
            assert (cursor.epoch, cursor.watermark) == (epoch, 0)
        assert await other.open_subscription("held", "now") is None


async def test_a_lost_subscription_cannot_be_reopened_while_another_process_holds_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes would handle the same events. And once free, the subscription must be open to all."""
    async with SqliteEventStorage(path) as storage, SqliteEventStorage(path) as other:
        with monkeypatch.context() as patch:
            patch.setattr(cursors, "LEASE_SECONDS", -1.0)
            cursor = await storage.open_subscription("held", "now")
        assert cursor is not None
        taken = await other.open_subscription("held", "now")
        assert taken is not None
        assert await storage.open_subscription("held", "now", epoch=cursor.epoch) is None
        await other.release_subscription("held", taken.epoch)
        assert await storage.open_subscription("held", "now") is not None


async def test_a_cancelled_reopening_leaves_the_subscription_free(
    storage: SqliteEventStorage,
) -> None:
    """Nothing would release it, and it would not be handled until the process ends."""
    cursor = await storage.open_subscription("held", "now")
    assert cursor is not None
    opening = asyncio.ensure_future(storage.open_subscription("held", "now", epoch=cursor.epoch))
    await asyncio.sleep(0)
    opening.cancel()
    await storage.transact(lambda tx: None)  # queued behind both the opening and the release
    await storage.transact(lambda tx: None)
    assert await storage.open_subscription("held", "now") is not None


async def test_a_cancelled_opening_leaves_the_subscription_free(
    storage: SqliteEventStorage,
) -> None:
    """Nothing would release it, and it would not be handled until the process ends."""
    opening = asyncio.ensure_future(storage.open_subscription("held", "now"))
    await asyncio.sleep(0)
    opening.cancel()
    await storage.transact(lambda tx: None)  # queued behind both the opening and the release
    await storage.transact(lambda tx: None)
    assert await storage.open_subscription("held", "now") is not None


async def test_save_progress_rejects_an_old_epoch(storage: SqliteEventStorage) -> None:
    """A process that lost the subscription would move the cursor of the one that has it."""
    await storage.store_events(ticks(5))
    old = await storage.open_subscription("held", "beginning")
    assert old is not None
    await storage.release_subscription("held", old.epoch)
    new = await storage.open_subscription("held", "beginning")
    assert new is not None
    assert new.epoch == old.epoch + 1
    late = Progress("held", old.epoch, 5, 5)
    assert await storage.save_progress([late]) == ["held"]
    (record,) = await storage.list_subscriptions()
    assert (record.watermark, record.frontier) == (0, 0)
    # Refusing the old epoch does not make the storage forget the new one.
    await storage.release_subscription("held", old.epoch)
    assert await storage.open_subscription("held", "now") is None
    assert await storage.save_progress([Progress("held", new.epoch, 3, 3)]) == []


async def test_renew_leases_reports_a_lease_that_was_taken_over(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A holder that has nothing to save must notice the loss, too."""
    monkeypatch.setattr(cursors, "LEASE_SECONDS", 0.0)
    async with SqliteEventStorage(path) as one, SqliteEventStorage(path) as two:
        assert await one.renew_leases() == []
        assert await one.open_subscription("held", "now") is not None
        assert await one.renew_leases() == []
        assert await two.open_subscription("held", "now") is not None
        assert await one.renew_leases() == ["held"]
        assert await one.renew_leases() == []
