"""What a repository loads, stores and publishes, on both storages."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import pytest

from pabal import InMemoryEventBus, InMemoryEventStorage, NotRetryableError
from pabal.domain import Decider
from pabal.errors import (
    AggregateNotFoundError,
    ConcurrencyError,
    InvalidEventError,
    SpoiledAggregateError,
    UsageError,
)
from pabal.eventsourcing import Repository, UnitOfWork
from pabal.eventsourcing.appending import refuse_trimmed
from tests.eventsourcing.conftest import AnyStorage
from tests.eventsourcing.samples import (
    Account,
    Deposit,
    Deposited,
    MatchedAccount,
    OverdrawnError,
    Withdraw,
    account_decider,
)
from tests.loop_iterations import count_loop_iterations

ONE = Decimal(1)


def _deposit(account: Account) -> Decimal:
    return account.deposit(ONE)


async def test_events_recorded_by_an_edit_are_loaded_again(storage: AnyStorage) -> None:
    """A change would be lost."""
    accounts = Repository(Account, storage)
    edit = accounts.edit("a")
    async with edit as account:
        account.deposit(Decimal(5))
        account.withdraw(Decimal(2))
    loaded = await accounts.load("a")
    assert (loaded.balance, loaded.version, loaded.pending) == (Decimal(3), 2, ())
    assert edit.receipt is not None
    assert edit.receipt.position == 2


async def test_replaying_a_long_history_yields_to_the_event_loop() -> None:
    """Loading an aggregate of a hundred thousand events would hold up every handler meanwhile."""
    storage = InMemoryEventStorage()  # it waits for nothing by itself
    accounts = Repository(Account, storage)
    await storage.store_events([Deposited("a", ONE) for _ in range(2000)])
    async with count_loop_iterations() as iterations:
        assert (await accounts.load("a")).balance == 2000
        assert iterations.count >= 6
        before = iterations.count
        assert len(await storage.get_events_by_aggregate("a", "account")) == 2000
        assert iterations.count >= before + 6


async def test_refuse_trimmed_reads_only_one_event_of_a_conflicting_history(storage: AnyStorage) -> None:
    """A writer that creates an existing aggregate would wait until its history is read, only to fail."""
    await storage.store_events([Deposited("a", ONE) for _ in range(50)])
    read: list[int] = []
    history = storage.read_history

    async def read_history(*arguments: Any) -> Any:
        rows = await history(*arguments)
        read.append(len(rows))
        return rows

    conflict = ConcurrencyError(
        aggregate_type="account", aggregate_id="a", expected_version=0, actual_version=50
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage, "read_history", read_history)
        await refuse_trimmed(storage, conflict)
    assert read == [1]


async def test_an_edit_that_raises_stores_nothing(storage: AnyStorage) -> None:
    """Half of a failed change would be stored, or remain in a cached aggregate."""
    accounts = Repository(Account, storage)
    await accounts.update("a", _deposit)
    with pytest.raises(OverdrawnError):  # noqa: PT012
        async with accounts.edit("a") as account:
            account.deposit(ONE)
            account.withdraw(Decimal(50))
    assert await storage.head() == 1
    assert await accounts.update("a", lambda account: account.balance) == ONE


async def test_an_update_that_raises_stores_nothing(storage: AnyStorage) -> None:
    """Half of a failed change would be stored, or remain in a cached aggregate."""
    accounts = Repository(Account, storage)
    await accounts.update("a", _deposit)

    def fail(account: Account) -> None:
        account.deposit(ONE)
        raise NotRetryableError

    with pytest.raises(NotRetryableError):
        await accounts.update("a", fail)
    with pytest.raises(OverdrawnError):
        await accounts.update("a", lambda account: account.deposit_then_fail(ONE))
    assert await storage.head() == 1
    assert await accounts.update("a", _deposit) == Decimal(2)


async def test_an_unknown_id_raises_where_the_aggregate_must_exist(storage: AnyStorage) -> None:
    """A mistyped id would look like an empty aggregate."""
    accounts = Repository(Account, storage)
    for attempt in (
        lambda: accounts.load("a"),
        lambda: accounts.update("a", _deposit, must_exist=True),
        lambda: accounts.edit("a", must_exist=True).__aenter__(),
    ):
        with pytest.raises(AggregateNotFoundError, match="no account 'a'"):
            await attempt()
    assert not await accounts.exists("a")
    await accounts.update("a", _deposit)
    assert await accounts.exists("a")


async def test_the_later_of_two_edits_raises_a_conflict_with_both_versions(storage: AnyStorage) -> None:
    """The first edit's change would be overwritten by one that never saw it."""
    accounts, elsewhere = Repository(Account, storage), Repository(Account, storage)
    await accounts.update("a", _deposit)
    with pytest.raises(ConcurrencyError) as caught:  # noqa: PT012
        async with accounts.edit("a") as account:
            account.deposit(ONE)
            await elsewhere.update("a", _deposit)
    assert (caught.value.expected_version, caught.value.actual_version) == (1, 2)
    assert (await accounts.load("a")).balance == Decimal(2)


@pytest.mark.parametrize("kind", ["plain", "async"])
async def test_a_conflict_reruns_the_whole_update(storage: AnyStorage, kind: str) -> None:
    """Users would have to write the retry loop, or a decision would be based on an old state."""
    accounts, elsewhere = Repository(Account, storage), Repository(Account, storage)
    await accounts.update("a", _deposit)
    await elsewhere.update("a", _deposit)  # from now on, the copy cached by accounts is outdated
    seen: list[int] = []

    def change(account: Account) -> Decimal:
        seen.append(account.version)
        return account.deposit(ONE)

    async def change_slowly(account: Account) -> Decimal:
        return change(account)

    assert await accounts.update("a", change if kind == "plain" else change_slowly) == Decimal(3)
    assert seen == [1, 2]
    with pytest.raises(ConcurrencyError):
        await elsewhere.update("a", change, retries=0)


async def test_concurrent_updates_of_one_aggregate_run_in_turn_without_conflict(storage: AnyStorage) -> None:
    """Changes of a busy aggregate would conflict and be decided again and again."""
    accounts = Repository(Account, storage)
    await accounts.update("a", _deposit)
    balances = await asyncio.gather(*(accounts.update("a", _deposit, retries=0) for _ in range(200)))
    assert balances == [Decimal(n) for n in range(2, 202)]
    assert (await accounts.load("a")).version == 201


async def test_an_update_returns_only_after_the_events_it_is_based_on_are_stored(storage: AnyStorage) -> None:
    """A caller would see money whose deposit was never stored."""
    accounts, elsewhere = Repository(Account, storage), Repository(Account, storage)
    await accounts.update("a", _deposit)
    await elsewhere.update("a", lambda account: account.withdraw(ONE))
    deposit = asyncio.create_task(accounts.update("a", _deposit, retries=0))
    await asyncio.sleep(0)
    answer = asyncio.create_task(accounts.update("a", lambda account: account.balance))
    rejected = asyncio.create_task(accounts.update("a", lambda account: account.withdraw(Decimal(2))))
    with pytest.raises(ConcurrencyError):
        await deposit
    assert await answer == Decimal(0)
    with pytest.raises(OverdrawnError, match="2 of 0"):
        await rejected


async def test_an_invalid_event_fails_only_its_own_update(storage: AnyStorage) -> None:
    """Callers at the same moment would get each other's errors."""
    accounts = Repository(Account, storage)
    await accounts.update("a", _deposit)
    bad = Decimal("NaN")
    changes = [accounts.update("a", _deposit) for _ in range(5)]
    changes.insert(2, accounts.update("a", lambda account: account.deposit(bad)))
    outcomes = await asyncio.gather(*changes, return_exceptions=True)
    assert isinstance(outcomes.pop(2), InvalidEventError)
    assert sorted(outcomes) == [Decimal(n) for n in range(2, 7)]  # type: ignore[type-var]


async def test_a_cancelled_update_is_either_stored_or_not_applied(storage: AnyStorage) -> None:
    """After a cancellation, the cached aggregate would differ from the log."""
    accounts = Repository(Account, storage)
    await accounts.update("a", _deposit)
    task = asyncio.create_task(accounts.update("a", _deposit))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    balance = await accounts.update("a", _deposit)
    assert balance == (await accounts.load("a")).balance


async def test_events_stored_by_a_repository_are_published(storage: AnyStorage) -> None:
    """Subscribers would never receive it, or only after a second write."""
    received: list[Decimal] = []
    async with InMemoryEventBus(storage) as bus:
        bus.subscribe(Deposited, lambda event: received.append(event.amount), name="balance")
        accounts = Repository(Account, bus)
        await accounts.update("a", _deposit)
        async with accounts.edit("b") as account:
            account.deposit(Decimal(7))
        await bus.drain(timeout=30)
    assert sorted(received) == [ONE, Decimal(7)]


async def test_drain_right_after_an_append_waits_for_its_deliveries(storage: AnyStorage) -> None:
    """A caller that drains to see the handlers' effects would see the state before them."""
    received: list[Decimal] = []
    async with InMemoryEventBus(storage) as bus:
        bus.subscribe(Deposited, lambda event: received.append(event.amount), name="balance")
        await bus.drain(timeout=30)
        await storage.append_events([Deposited("a", ONE)])
        await bus.drain(timeout=30)
        assert received == [ONE]


async def test_events_recorded_in_a_handler_carry_their_cause(storage: AnyStorage) -> None:
    """The chain from an event to its consequences would break at an aggregate."""
    async with InMemoryEventBus(storage) as bus:
        accounts = Repository(Account, bus)

        @bus.on(Deposited, name="mirror", where=lambda event: event.account == "a")
        async def mirror(event: Deposited) -> None:
            await accounts.update("b", _deposit)

        await accounts.update("a", _deposit)
        await bus.drain(timeout=30)
    first, second = [envelope.event async for envelope in storage.read()]
    assert (second.correlation_id, second.causation_id) == (first.event_id, first.event_id)


async def test_several_aggregates_change_together_or_not_at_all(storage: AnyStorage) -> None:
    """Money would leave one account and never reach the other."""
    accounts, elsewhere = Repository(Account, storage), Repository(Account, storage)
    await accounts.update("a", _deposit)
    async with UnitOfWork(storage) as work:
        (await work.edit(accounts, "a")).withdraw(ONE)
        (await work.edit(accounts, "b")).deposit(ONE)
        assert await work.edit(accounts, "b") is await work.edit(accounts, "b")
    assert work.receipt is not None
    assert work.receipt.position == 3
    with pytest.raises(ConcurrencyError):  # noqa: PT012
        async with UnitOfWork(storage) as work:
            (await work.edit(accounts, "c")).deposit(ONE)
            (await work.edit(accounts, "b")).withdraw(ONE)
            await elsewhere.update("b", _deposit)
    assert not await accounts.exists("c")
    assert await storage.head() == 4


async def test_a_unit_of_work_that_raises_stores_nothing(storage: AnyStorage) -> None:
    """Half of a failed unit of work would be stored."""
    accounts = Repository(Account, storage)
    with pytest.raises(OverdrawnError):  # noqa: PT012
        async with UnitOfWork(storage) as work:
            (await work.edit(accounts, "a")).deposit(ONE)
            (await work.edit(accounts, "b")).withdraw(ONE)
    assert await storage.head() == 0


async def test_a_spoiled_aggregate_is_not_stored(storage: AnyStorage) -> None:
    """An edit whose block suppresses an error would store what was rolled back."""
    accounts = Repository(Account, storage)
    with pytest.raises(SpoiledAggregateError):  # noqa: PT012
        async with accounts.edit("a") as account:
            account.deposit(ONE)
            with pytest.raises(OverdrawnError):
                account.deposit_then_fail(ONE)
    assert await storage.head() == 0


async def test_a_repository_of_a_decider_stores_the_decided_events(storage: AnyStorage) -> None:
    """The functional style could not be stored."""
    accounts = Repository(account_decider, storage)
    await accounts.update("a", lambda account: account.handle(Deposit("a", ONE)))
    with pytest.raises(OverdrawnError):
        await accounts.update("a", lambda account: account.handle(Withdraw("a", Decimal(2))))
    assert (await accounts.load("a")).state == ONE


async def test_each_aggregate_has_its_own_copy_of_a_deciders_initial_state(storage: AnyStorage) -> None:
    """A list that ``evolve`` appends to would be shared: a new account would have the entries of all."""

    def evolve(entries: list[Decimal], event: Deposited) -> list[Decimal]:
        entries.append(event.amount)
        return entries

    listing: Decider[Decimal, list[Decimal], Deposited] = Decider(
        "account", [], decide=lambda amount, entries: [Deposited("a", amount)], evolve=evolve
    )
    accounts = Repository(listing, storage)
    await accounts.update("a", lambda account: account.handle(ONE))
    assert await accounts.update("b", lambda account: account.state) == []
    assert (await accounts.load("a")).state == [ONE]
    assert listing.state_of([Deposited("a", ONE)]) == [ONE]
    assert listing.state_of([]) == []


async def test_save_stores_an_aggregate_that_was_not_loaded(storage: AnyStorage) -> None:
    """An aggregate from a factory method could not be stored."""
    accounts = Repository(Account, storage)
    account = Account("a")
    account.deposit(ONE)
    receipt = await accounts.save(account)
    assert receipt is not None
    assert receipt.position == 1
    assert await accounts.save(account) is None
    twin = Account("a")
    twin.deposit(ONE)
    with pytest.raises(ConcurrencyError):
        await accounts.save(twin)


async def test_a_repository_caches_at_most_keep_aggregates(storage: AnyStorage) -> None:
    """Memory would grow with every aggregate ever used."""
    accounts = Repository(Account, storage, keep=2)
    for name in "abcab":
        await accounts.update(name, _deposit)
    assert len(accounts.cache) == 2
    assert (await accounts.load("a")).balance == Decimal(2)


async def test_invalid_arguments_of_repositories_and_units_of_work_are_rejected(storage: AnyStorage) -> None:
    """A mistake would surface later, somewhere else."""
    accounts = Repository(Account, storage)
    with pytest.raises(UsageError, match=r"no log for aggregates; .* relay\(storage, bus\)"):
        Repository(Account, InMemoryEventBus())
    with pytest.raises(UsageError, match="neither an Aggregate class nor a Decider"):
        Repository(object, storage)  # type: ignore[type-var]
    with pytest.raises(UsageError, match="snapshot_every"):
        Repository(Account, storage, snapshot_every=0)
    with pytest.raises(UsageError, match="keep"):
        Repository(Account, storage, keep=-1)
    with pytest.raises(UsageError, match="keep is '5'; it must be an int"):
        Repository(Account, storage, keep="5")  # type: ignore[call-overload]
    with pytest.raises(UsageError, match=r"snapshot_every is 2\.5; it must be an int"):
        Repository(Account, storage, snapshot_every=2.5)  # type: ignore[call-overload]
    with pytest.raises(UsageError, match="snapshot_when_slower is '1s'; give seconds"):
        Repository(Account, storage, snapshot_when_slower="1s")  # type: ignore[call-overload]
    with pytest.raises(UsageError, match="pass an async function"):
        await accounts.update("a", lambda account: asyncio.sleep(0, account))
    async with UnitOfWork(storage) as work:
        await work.edit(accounts, "a")
        with pytest.raises(UsageError, match="as another class"):
            await work.edit(Repository(MatchedAccount, storage), "a")
        with pytest.raises(UsageError, match="on another storage"):
            await work.edit(Repository(Account, type(storage).__new__(type(storage))), "a")
