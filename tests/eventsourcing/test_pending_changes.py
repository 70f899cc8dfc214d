"""Changes of one aggregate that are stored together, and cached copies that must be dropped."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from pabal import CorruptLogError, SqliteEventStorage
from pabal.errors import AggregateNotFoundError, ConcurrencyError, InvalidEventError, UsageError
from pabal.eventsourcing import Repository, UnitOfWork
from pabal.eventsourcing.cache import CachedAggregate
from tests.eventsourcing.conftest import AnyStorage
from tests.eventsourcing.samples import Account, Deposited

ONE = Decimal(1)


async def test_of_updates_stored_together_only_the_one_with_a_used_event_id_fails(
    storage: AnyStorage,
) -> None:
    """The error would reach a caller whose change was valid, and the invalid change look stored."""
    accounts = Repository(Account, storage)
    used = Deposited("b", Decimal(7))
    await storage.store_event(used)

    def repeat(account: Account) -> None:
        account.record_event(Deposited("a", Decimal(9), event_id=used.event_id))

    results = await asyncio.gather(
        accounts.update("a", lambda account: account.deposit(ONE)),
        accounts.update("a", repeat),
        accounts.update("a", lambda account: account.deposit(ONE)),
        return_exceptions=True,
    )
    kinds = [type(result).__name__ for result in results]
    assert kinds == ["Decimal", "DuplicateEventError", "Decimal"]
    loaded = await Repository(Account, storage).load("a")
    assert (loaded.balance, loaded.version) == (Decimal(2), 2)


async def test_an_update_whose_event_is_too_large_raises_instead_of_retrying(storage: AnyStorage) -> None:
    """If it were taken for a conflict, it would be retried forever."""
    storage.max_payload_bytes = 200
    accounts = Repository(Account, storage)
    with pytest.raises(InvalidEventError, match="limit"):
        await accounts.update("a", lambda account: account.deposit(Decimal("1" * 300)))
    assert await storage.head() == 0
    assert await accounts.update("a", lambda account: account.deposit(ONE)) == ONE


async def test_an_aggregate_whose_events_are_being_stored_stays_in_the_cache(storage: AnyStorage) -> None:
    """If it were loaded again, changes would be decided without its newest events: a conflict, or worse."""
    accounts = Repository(Account, storage, keep=1)
    names = [name for name in "abc" for _ in range(5)]
    await asyncio.gather(
        *(accounts.update(name, lambda account: account.deposit(ONE), retries=0) for name in names)
    )
    for name in "abc":
        assert (await accounts.load(name)).balance == Decimal(5)
    await accounts.update("d", lambda account: account.deposit(ONE))
    assert len(accounts.cache) == 1, "aggregates whose events are stored are evicted"


async def test_an_aggregate_that_another_update_still_loads_stays_in_the_cache(
    storage: AnyStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The slower load would bring a copy without the events stored meanwhile: a conflict with itself."""
    read, slow, may_end = storage.read_history, asyncio.Event(), asyncio.Event()

    async def read_history(kind: str, identity: str, after_version: int = 0) -> Any:
        rows = await read(kind, identity, after_version)
        if asyncio.current_task() is slower:
            slow.set()
            await may_end.wait()
        return rows

    monkeypatch.setattr(storage, "read_history", read_history)
    accounts = Repository(Account, storage, keep=1)
    slower = asyncio.create_task(accounts.update("a", lambda account: account.deposit(ONE), retries=0))
    await slow.wait()
    for name in "abc":
        await accounts.update(name, lambda account: account.deposit(ONE), retries=0)
    may_end.set()
    assert await slower == Decimal(2)
    assert len(accounts.cache) == 1, "aggregates that are loaded are evicted"


async def test_discarding_a_replaced_copy_keeps_the_fresh_one(storage: AnyStorage) -> None:
    """A change that fails late would evict the valid copy that was loaded in the meantime."""
    accounts = Repository(Account, storage)
    await accounts.update("a", lambda account: account.deposit(ONE))
    old = accounts.cache.get("a")
    assert old is not None
    async with accounts.edit("a") as account:  # this takes the aggregate out of the cache
        account.deposit(ONE)
    fresh = accounts.cache.get("a")
    assert fresh is not None
    accounts.cache.discard(old)
    assert (accounts.cache.get("a") is fresh) == (old is not fresh)
    assert await accounts.update("a", lambda account: account.deposit(ONE)) == Decimal(3)


async def test_update_rejects_a_function_that_returns_a_future(storage: AnyStorage) -> None:
    """A caller that forgets to await would believe that its change is stored, with a future as result."""
    accounts = Repository(Account, storage)

    def later(account: Account) -> Any:
        account.deposit(ONE)
        return asyncio.get_running_loop().create_future()

    with pytest.raises(UsageError, match="returned an awaitable"):
        await accounts.update("a", later)
    assert await storage.head() == 0


async def test_loading_an_aggregate_whose_first_events_were_trimmed_raises(tmp_path: Path) -> None:
    """Half a history would give a wrong balance that looks right."""
    async with SqliteEventStorage(tmp_path / "log.db") as storage:
        accounts = Repository(Account, storage)
        for _ in range(5):
            await accounts.update("a", lambda account: account.deposit(ONE))
        await storage.trim(max_events=2)
        with pytest.raises(CorruptLogError, match="its first events were trimmed"):
            await Repository(Account, storage).load("a")
        await accounts.update("b", lambda account: account.deposit(ONE))
        await storage.trim(max_events=1)
        with pytest.raises(AggregateNotFoundError, match="the log holds no event of it"):
            await accounts.load("a")  # the message must not claim that none was ever stored


@pytest.mark.parametrize("how", ["update", "async update", "edit", "save", "unit of work"])
async def test_changing_an_aggregate_whose_events_were_all_trimmed_raises(tmp_path: Path, how: str) -> None:
    """The error would advise to load and retry, with the same result each time."""
    async with SqliteEventStorage(tmp_path / "log.db") as storage:
        for _ in range(2):
            await Repository(Account, storage).update("a", lambda account: account.deposit(ONE))
        last = await Repository(Account, storage).update("b", lambda account: account.deposit(ONE))
        assert (await storage.trim(max_events=1)).deleted == 2
        accounts = Repository(Account, storage)

        async def deposit(account: Account) -> Any:
            return account.deposit(ONE)

        async def change() -> None:
            if how == "update":
                await accounts.update("a", lambda account: account.deposit(ONE))
            elif how == "async update":
                await accounts.update("a", deposit)
            elif how == "edit":
                async with accounts.edit("a") as account:
                    account.deposit(ONE)
            elif how == "save":
                account = Account("a")
                account.deposit(ONE)
                await accounts.save(account)
            else:
                async with UnitOfWork(storage) as work:
                    (await work.edit(accounts, "b")).deposit(ONE)
                    (await work.edit(accounts, "a")).deposit(ONE)

        for _ in range(2):
            with pytest.raises(CorruptLogError, match="all 2 events of account/a were trimmed"):
                await change()
        assert await accounts.update("b", lambda account: account.deposit(ONE)) == last + ONE


async def test_a_new_aggregate_that_another_writer_created_is_a_conflict(storage: AnyStorage) -> None:
    """Callers that retry conflicts would give up at one that the next attempt resolves."""
    accounts = Repository(Account, storage)

    async def deposit(account: Account) -> Any:
        await Repository(Account, storage).update("a", lambda account: account.deposit(ONE))
        return account.deposit(ONE)

    with pytest.raises(ConcurrencyError):
        await accounts.update("a", deposit, retries=0)
    assert await accounts.update("a", lambda account: account.deposit(ONE)) == 2


async def test_an_aggregate_without_events_gets_no_snapshot(storage: AnyStorage) -> None:
    """A snapshot without events would get in the way of the first event."""
    accounts = Repository(Account, storage, snapshot_when_slower=0.0)
    assert not await accounts.exists("a")
    async with accounts.edit("a") as account:
        assert account.version == 0
    assert await storage.load_snapshot("account", "a") is None
    await accounts.update("a", lambda account: account.deposit(ONE))
    assert (await Repository(Account, storage, snapshot_when_slower=0.0).load("a")).balance == ONE


async def test_concurrent_updates_of_many_aggregates_leave_only_keep_of_them_cached(
    storage: AnyStorage,
) -> None:
    """Memory use would stay at its peak until an uncached aggregate is loaded."""
    accounts = Repository(Account, storage, keep=3, snapshot_every=1)
    names = [f"a{number}" for number in range(40)]
    await asyncio.gather(*(accounts.update(name, lambda account: account.deposit(ONE)) for name in names))
    assert len(accounts.cache) == 3
    saved = [await storage.load_snapshot("account", name) for name in names]
    assert None not in saved, "evicted aggregates had their snapshots taken before"


async def test_the_cost_of_concurrent_updates_grows_linearly_with_their_number(
    storage: AnyStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of 8,000 updates would look at all 8,000 aggregates, and block the event loop for 40 s."""
    checks = 0
    is_settled = vars(CachedAggregate)["is_settled"].fget

    def count(live: CachedAggregate[Any]) -> bool:
        nonlocal checks
        checks += 1
        return bool(is_settled(live))

    monkeypatch.setattr(CachedAggregate, "is_settled", property(count))
    accounts = Repository(Account, storage, keep=3)
    await asyncio.gather(
        *(accounts.update(f"a{number}", lambda account: account.deposit(ONE)) for number in range(200))
    )
    assert checks < 200 * 10
