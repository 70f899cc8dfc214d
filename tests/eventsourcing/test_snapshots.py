"""Snapshots are a cache: loading gives the same with any of them, or none."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from pabal.errors import SnapshotError, SnapshotOfOtherClassError
from pabal.eventsourcing import Repository
from pabal.eventsourcing.snapshots import read_snapshot, take_snapshot
from tests.eventsourcing.conftest import AnyStorage
from tests.eventsourcing.samples import Account, Deposited, MatchedAccount, account_decider

ONE = Decimal(1)


class Unannotated(MatchedAccount):
    aggregate_type = "account"

    def __init__(self, aggregate_id: str) -> None:
        super().__init__(aggregate_id)
        self.__dict__["extra"] = 1


class Loose(MatchedAccount):
    aggregate_type = "account"
    prices: list

    def __init__(self, aggregate_id: str) -> None:
        super().__init__(aggregate_id)
        self.prices = [Decimal("1.5")]


class Slotted(MatchedAccount):
    __slots__ = ("limit",)
    aggregate_type = "account"


async def _fill(storage: AnyStorage, count: int = 7) -> bytes:
    accounts = Repository(Account, storage, snapshot_every=5)
    for _ in range(count):
        await accounts.update("a", lambda account: account.deposit(ONE))
    data = await storage.load_snapshot("account", "a")
    assert data is not None
    return data


async def _loaded(storage: AnyStorage) -> tuple[Decimal, list[Decimal], int]:
    account = await Repository(Account, storage, snapshot_every=5).load("a")
    return account.balance, account.entries, account.version


EQUAL = (Decimal(7), [ONE] * 7, 7)


async def test_a_snapshot_is_taken_every_n_events_and_used(storage: AnyStorage) -> None:
    """Loading would replay everything despite the option, or count events twice."""
    snapshot = read_snapshot(Account, await _fill(storage))
    assert snapshot.version == 5
    assert await _loaded(storage) == EQUAL


async def test_a_snapshot_is_taken_when_loading_was_slow(storage: AnyStorage) -> None:
    """Long histories would stay slow to load."""
    await _fill(storage)
    await storage.save_snapshot("account", "a", 0, None)
    await Repository(Account, storage, snapshot_when_slower=0.0).load("a")
    data = await storage.load_snapshot("account", "a")
    assert data is not None
    assert read_snapshot(Account, data).version == 7
    assert await _loaded(storage) == EQUAL


class Dated(MatchedAccount):
    aggregate_type = "account"
    opened_at: datetime | None = None

    def apply(self, event: object) -> None:
        self.opened_at = datetime(2026, 1, 2, 3, tzinfo=timezone(timedelta(hours=9)))


async def test_a_time_in_a_snapshot_keeps_its_offset(storage: AnyStorage) -> None:
    """An account opened on Friday morning in Seoul would be restored as opened on Thursday."""
    dated = Repository(Dated, storage, snapshot_every=1, keep=0)
    await dated.update("a", lambda account: account.record(Deposited("a", ONE)))
    assert await storage.load_snapshot("account", "a") is not None
    restored, replayed = await dated.load("a"), await Repository(Dated, storage, keep=0).load("a")
    assert restored.opened_at is not None
    assert replayed.opened_at is not None
    assert restored.opened_at.isoformat() == replayed.opened_at.isoformat() == "2026-01-02T03:00:00+09:00"


@pytest.mark.parametrize("damage", ["missing", "empty", "flipped", "cut"])
async def test_a_damaged_snapshot_is_ignored_in_favour_of_the_events(
    storage: AnyStorage, damage: str
) -> None:
    """A broken cache would break the aggregate, or give it a wrong state."""
    data = await _fill(storage)
    broken = {
        "missing": None,
        "empty": b"",
        "flipped": data[:-1] + bytes([data[-1] ^ 1]),
        "cut": data[:-3],
    }[damage]
    await storage.save_snapshot("account", "a", 5, broken)
    assert await _loaded(storage) == EQUAL


async def test_an_outdated_snapshot_is_ignored_in_favour_of_the_events(
    storage: AnyStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A state with an old meaning would be taken for one with the new meaning."""
    await _fill(storage)
    monkeypatch.setattr(Account, "snapshot_version", 2)
    assert await _loaded(storage) == EQUAL


def _with_limit(field: str) -> type[MatchedAccount]:
    """Return a release of a class whose limit stores its value under another name."""
    limit: Any = msgspec.defstruct("Limit", [(field, int, 0)], frozen=True, module="shop")

    class Limited(MatchedAccount):
        aggregate_type = "account"

        def apply(self, event: object) -> None:
            super().apply(event)
            self.limits = (limit(**{field: self.version}),)

    Limited.__annotations__ = {"limits": tuple[limit, ...]}
    return Limited


async def test_a_changed_field_inside_an_attribute_invalidates_the_snapshot(storage: AnyStorage) -> None:
    """The old field would be silently dropped, and the new one's default used as the state."""
    await _fill(storage)
    for field in ("most", "highest"):
        cls: Any = _with_limit(field)
        for _ in range(2):  # from events or an outdated snapshot, then from the new one
            limited = await Repository(cls, storage, snapshot_when_slower=0.0).load("a")
            assert getattr(limited.limits[0], field) == 6


async def test_a_decider_snapshot_is_used_until_its_snapshot_version_changes(
    storage: AnyStorage, caplog: pytest.LogCaptureFixture
) -> None:
    """The option would only fill the log with warnings."""
    await _fill(storage)
    for decider in (account_decider, replace(account_decider, evolve=lambda state, event: state + 1)):
        await storage.save_snapshot("account", "a", 7, None)
        expected = (await Repository(decider, storage).load("a")).state
        await Repository(decider, storage, snapshot_when_slower=0.0).load("a")
        assert await storage.load_snapshot("account", "a") is not None
        assert (await Repository(decider, storage, snapshot_every=100).load("a")).state == expected
    assert caplog.text == ""
    doubled = replace(account_decider, evolve=lambda state, event: state + 2, snapshot_version=2)
    assert (await Repository(doubled, storage, snapshot_every=100).load("a")).state == 14


async def test_a_snapshot_of_another_class_is_ignored_and_logged(
    storage: AnyStorage, caplog: pytest.LogCaptureFixture
) -> None:
    """The state of another class would be loaded."""
    data = await _fill(storage)
    with pytest.raises(SnapshotOfOtherClassError, match="is of Account, not of MatchedAccount"):
        read_snapshot(MatchedAccount, data)
    with caplog.at_level(logging.WARNING, "pabal"):
        loaded = await Repository(MatchedAccount, storage, snapshot_every=100).load("a")
    assert (loaded.balance, loaded.version) == (Decimal(7), 7)
    assert "is of Account, not of MatchedAccount" in caplog.text


async def test_a_snapshot_ahead_of_the_log_is_ignored_in_favour_of_the_events(storage: AnyStorage) -> None:
    """After restoring a backup, events that no longer exist would count."""
    account = Account("a")
    for _ in range(9):
        account.deposit(Decimal(100))
    account.take_pending()
    await _fill(storage)
    await storage.save_snapshot("account", "a", 9, take_snapshot(account, bytes(16)))
    assert await _loaded(storage) == EQUAL


@pytest.mark.parametrize("cls", [Unannotated, Loose, Slotted])
async def test_a_state_that_would_not_be_restored_equal_is_not_saved(
    storage: AnyStorage, cls: type[MatchedAccount], caplog: pytest.LogCaptureFixture
) -> None:
    """Loading from the snapshot would give another state than the events do."""
    with pytest.raises(SnapshotError, match=r"has no annotation|would come back as|in __slots__"):
        take_snapshot(cls("a"), bytes(16))
    await _fill(storage, 5)
    await storage.save_snapshot("account", "a", 5, None)
    await Repository(cls, storage, snapshot_when_slower=0.0).load("a")
    assert await storage.load_snapshot("account", "a") is None
    assert "no snapshot is taken" in caplog.text
