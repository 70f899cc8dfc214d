"""A repository's cached aggregates are never older than what it has stored itself."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from decimal import Decimal
from typing import Any

import pytest

from pabal import InMemoryEventStorage
from pabal.domain.envelope import decode_event
from pabal.errors import (
    AggregateDefinitionError,
    AggregateNotFoundError,
    ConcurrencyError,
    InvalidEventError,
    StorageUnavailableError,
    UsageError,
)
from pabal.eventsourcing import Repository, UnitOfWork
from pabal.ports.storage import StreamAppend
from tests.eventsourcing.conftest import AnyStorage
from tests.eventsourcing.samples import Account, Deposited, OverdrawnError

ONE = Decimal(1)


def _deposit(account: Account) -> Decimal:
    return account.deposit(ONE)


def _balance(account: Account) -> Decimal:
    return account.balance


async def test_the_next_update_sees_what_save_stored(storage: AnyStorage) -> None:
    """Rules would be checked against the previous state, and reject allowed changes forever."""
    accounts = Repository(Account, storage)
    await accounts.update("a", _deposit)
    account = await accounts.load("a")
    account.deposit(Decimal(9))
    await accounts.save(account)
    assert await accounts.update("a", _balance) == Decimal(10)
    assert await accounts.update("a", lambda account: account.withdraw(Decimal(10))) == Decimal(0)


async def test_a_copy_cached_during_an_edit_is_dropped_when_the_edit_is_stored(storage: AnyStorage) -> None:
    """An update that changes nothing, during an edit, would leave the state before the edit in the cache."""
    accounts = Repository(Account, storage)
    async with accounts.edit("a") as account:
        account.deposit(ONE)
        assert await accounts.update("a", _balance) == Decimal(0)
    assert await accounts.update("a", _balance) == ONE


async def test_concurrent_edits_of_one_aggregate_in_a_unit_of_work_share_it(
    storage: AnyStorage,
) -> None:
    """Events recorded by one of them would be lost silently."""
    accounts = Repository(Account, storage)
    async with UnitOfWork(storage) as work:
        first, second = await asyncio.gather(work.edit(accounts, "a"), work.edit(accounts, "a"))
        first.deposit(ONE)
        second.deposit(ONE)
    assert (await accounts.load("a")).balance == Decimal(2)


async def test_an_event_that_cannot_be_stored_fails_only_its_own_update(storage: AnyStorage) -> None:
    """Callers that only read, or edited at the same time, would get an error about another caller's event."""
    accounts = Repository(Account, storage)
    await accounts.update("a", _deposit)
    too_large = Decimal("1." + "1" * storage.max_payload_bytes)

    async def edit() -> None:
        async with accounts.edit("a") as account:
            account.deposit(ONE)

    results = await asyncio.gather(
        accounts.update("a", lambda account: account.record_event(Deposited("a", too_large))),
        accounts.update("a", _balance),
        edit(),
        return_exceptions=True,
    )
    assert isinstance(results[0], InvalidEventError)
    assert results[1] in (ONE, Decimal(2))
    assert results[2] is None
    assert (await accounts.load("a")).balance == Decimal(2)


class _NoSpaceForSnapshots(InMemoryEventStorage):
    async def save_snapshot(
        self, aggregate_type: str, aggregate_id: str, version: int, data: bytes | None
    ) -> None:
        raise StorageUnavailableError(path=self.path, reason="the disk is full")


async def test_a_snapshot_that_cannot_be_saved_does_not_fail_the_change(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The events are stored: callers that get an error would repeat the change."""
    async with _NoSpaceForSnapshots() as storage:
        accounts = Repository(Account, storage, snapshot_every=1)
        with caplog.at_level(logging.WARNING, "pabal"):
            assert await accounts.update("a", _deposit) == ONE
            edit = accounts.edit("a")
            async with edit as account:
                account.deposit(ONE)
        assert edit.receipt is not None
        await Repository(Account, storage, snapshot_when_slower=0).load("a")
        assert await storage.head() == 2
        assert "no snapshot is saved" in caplog.text


async def test_an_id_that_cannot_be_encoded_as_utf_8_is_rejected(storage: AnyStorage) -> None:
    """A client's invalid text would make an operator restore a backup of an intact log."""
    accounts = Repository(Account, storage, snapshot_every=1)
    for attempt in (accounts.load("\ud800"), accounts.exists("\ud800"), accounts.update("\ud800", _deposit)):
        with pytest.raises(AggregateDefinitionError, match="cannot be encoded as UTF-8"):
            await attempt
    assert await accounts.update("계좌", _deposit) == ONE


async def test_events_recorded_after_an_edit_or_update_are_not_stored_by_the_next_one(
    storage: AnyStorage,
) -> None:
    """Code that kept the aggregate by mistake would have its events stored with the next change."""
    accounts = Repository(Account, storage)
    async with accounts.edit("a") as account:
        account.deposit(ONE)
    account.deposit(Decimal(100))
    async with accounts.edit("a") as next_account:
        assert next_account.balance == ONE
    kept = await accounts.update("a", lambda account: account)
    kept.deposit(Decimal(100))
    assert await accounts.update("a", _deposit) == Decimal(2)
    kept = await accounts.update("a", lambda account: account)
    with pytest.raises(OverdrawnError):
        kept.deposit_then_fail(ONE)
    assert await accounts.update("a", _deposit) == Decimal(3)
    assert (await accounts.load("a")).balance == Decimal(3)


async def test_events_recorded_outside_a_change_are_not_in_its_snapshot(storage: AnyStorage) -> None:
    """Every load, in every process, would start from a state that no event has caused."""
    accounts = Repository(Account, storage, snapshot_every=1)
    kept = await accounts.update("a", lambda account: account)
    change = asyncio.create_task(accounts.update("a", _deposit))
    await asyncio.sleep(0)  # its event is being stored
    kept.deposit(Decimal(100))
    await change
    assert (await Repository(Account, storage, snapshot_every=1).load("a")).balance == ONE


async def test_an_edit_waits_for_events_that_are_still_being_stored(
    storage: AnyStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another writer may store as many events first: the edit would be based on events that never were."""
    append, holds = storage.append_streams, [asyncio.Event(), asyncio.Event()]
    first, second = holds
    is_sent = asyncio.Event()

    async def held(requests: list[StreamAppend]) -> list[int]:
        if holds:
            hold = holds.pop(0)
            if hold is second:
                is_sent.set()
            await hold.wait()
        return await append(requests)

    accounts = Repository(Account, storage)
    await accounts.update("a", _deposit)
    monkeypatch.setattr(storage, "append_streams", held)

    async def deposit_twice() -> None:
        await accounts.update("a", _deposit)
        await accounts.update("a", lambda account: account.deposit(Decimal(100)))

    async def withdraw_all() -> None:
        with suppress(ConcurrencyError):
            async with accounts.edit("a") as account:
                account.withdraw(account.balance)
                await second.wait()

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(deposit_twice())
        await asyncio.sleep(0)  # its first change is being stored, and the edit waits for it
        tasks.create_task(withdraw_all())
        await asyncio.sleep(0)
        first.set()
        await is_sent.wait()
        await Repository(Account, storage).update("a", _deposit)
        second.set()
    balance = Decimal(0)
    for row in await storage.read_history("account", "a"):
        event: Any = decode_event(row)
        balance += event.amount if isinstance(event, Deposited) else -event.amount
        assert balance >= 0


async def test_a_snapshot_of_an_update_excludes_events_of_a_concurrent_edit(
    storage: AnyStorage, caplog: pytest.LogCaptureFixture
) -> None:
    """An update whose event was just stored would save the edit's uncommitted state in its snapshot."""
    accounts = Repository(Account, storage, snapshot_every=1)
    await accounts.update("a", _deposit)

    async def deposit_in_an_edit() -> None:
        with suppress(ZeroDivisionError):
            async with accounts.edit("a") as account:
                account.deposit(Decimal(100))
                await asyncio.sleep(0)
                raise ZeroDivisionError

    for _ in range(5):
        edits = (deposit_in_an_edit() for _ in range(3))
        await asyncio.gather(accounts.update("a", _deposit), *edits, accounts.update("a", _deposit))
        account = await accounts.load("a")
        assert account.balance == account.version
    assert "cannot be used" not in caplog.text


async def test_an_update_that_rejects_or_reads_stale_state_is_repeated_on_fresh_state(
    storage: AnyStorage,
) -> None:
    """A change that another process has made possible would be rejected forever, as no append conflicts."""
    here, elsewhere = Repository(Account, storage), Repository(Account, storage)
    await here.update("a", _deposit)
    await elsewhere.update("a", lambda account: account.deposit(Decimal(100)))
    assert await here.update("a", lambda account: account.withdraw(Decimal(50))) == Decimal(51)
    await elsewhere.update("a", _deposit)
    assert await here.update("a", _balance) == Decimal(52)
    with pytest.raises(AggregateNotFoundError):
        await here.update("b", _balance, must_exist=True)
    await elsewhere.update("b", _deposit)
    assert await here.update("b", _balance, must_exist=True) == ONE


async def test_an_edit_finds_an_aggregate_that_another_process_has_begun_meanwhile(
    storage: AnyStorage,
) -> None:
    """It would be reported as not found, because this process once looked before it existed."""
    here, elsewhere = Repository(Account, storage), Repository(Account, storage)
    assert await here.update("a", _balance) == 0
    await elsewhere.update("a", _deposit)
    async with here.edit("a", must_exist=True) as account:
        assert account.balance == ONE


async def test_a_repository_that_keeps_none_loads_an_aggregate_each_time(storage: AnyStorage) -> None:
    """Every edit after a change in another process would conflict, which ``keep=0`` is there to prevent."""
    here, elsewhere = Repository(Account, storage, keep=0), Repository(Account, storage)
    await here.update("a", _deposit)
    await elsewhere.update("a", _deposit)
    async with here.edit("a") as account:
        account.deposit(ONE)
    await elsewhere.update("a", _deposit)
    await here.update("a", _balance)
    await elsewhere.update("a", _deposit)
    async with here.edit("a") as account:
        account.deposit(ONE)
    assert (await here.load("a")).balance == 6


async def test_a_cancelled_update_is_not_retried_after_a_conflict(
    storage: AnyStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A conflict would run it again, and the caller that timed out would keep waiting."""
    here, elsewhere = Repository(Account, storage), Repository(Account, storage)
    await here.update("a", _deposit)
    append, holds, resume = storage.append_streams, [True], asyncio.Event()
    is_sent = asyncio.Event()

    async def held(requests: list[StreamAppend]) -> list[int]:
        if holds and holds.pop():
            is_sent.set()
            await resume.wait()
        return await append(requests)

    monkeypatch.setattr(storage, "append_streams", held)
    update = asyncio.create_task(here.update("a", lambda account: account.deposit(Decimal(100))))
    await is_sent.wait()
    await elsewhere.update("a", _deposit)
    update.cancel()
    resume.set()
    with pytest.raises(asyncio.CancelledError):
        await update
    assert (await elsewhere.load("a")).balance == Decimal(2)


@pytest.mark.parametrize("is_cached", [True, False])
@pytest.mark.parametrize("kind", ["edit", "update", "unit of work"])
async def test_an_event_that_is_already_stored_is_not_applied_twice(
    storage: AnyStorage, kind: str, is_cached: bool
) -> None:
    """The log stores an id once; the cached copy would apply the event twice, and decide by that."""
    accounts = Repository(Account, storage)
    known = Deposited("a", ONE, event_id="0192f0c1-0000-7000-8000-000000000001")
    await accounts.update("a", lambda account: account.record_event(known))
    if not is_cached:
        accounts = Repository(Account, storage)
    if kind == "update":
        await accounts.update("a", lambda account: account.record_event(known))
    elif kind == "edit":
        async with accounts.edit("a") as account:
            account.record_event(known)
    else:
        async with UnitOfWork(storage) as work:
            (await work.edit(accounts, "b")).deposit(ONE)
            (await work.edit(accounts, "a")).record_event(known)
            (await work.edit(accounts, "c")).deposit(ONE)
    assert await accounts.update("a", _balance) == (await accounts.load("a")).balance == ONE
    async with accounts.edit("a") as account:
        assert (account.version, account.deposit(ONE)) == (1, Decimal(2))


async def test_a_repository_used_from_two_event_loops_raises_a_usage_error(storage: AnyStorage) -> None:
    """Each would wait forever for changes of the other, whose loop cannot wake it."""
    accounts = Repository(Account, storage)
    await accounts.update("a", _deposit)

    async def change(repository: Repository[Account]) -> None:
        async with repository.edit("a") as account:
            account.deposit(ONE)
        await repository.update("a", _deposit)

    with pytest.raises(UsageError, match="the repository of Account is used by another event loop"):
        await asyncio.to_thread(lambda: asyncio.run(accounts.update("a", _deposit)))
    with pytest.raises(UsageError, match="make one for each loop"):
        await asyncio.to_thread(lambda: asyncio.run(change(accounts)))
    await asyncio.to_thread(lambda: asyncio.run(change(Repository(Account, storage))))
    assert await accounts.update("a", _balance) == Decimal(3)


def test_a_repository_can_be_used_in_one_event_loop_after_another() -> None:
    """A script that runs a new loop for each step could not reuse a repository."""
    accounts = Repository(Account, InMemoryEventStorage())
    for number in range(1, 4):
        assert asyncio.run(accounts.update("a", _deposit)) == Decimal(number)
