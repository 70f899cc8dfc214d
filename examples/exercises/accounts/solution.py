"""A worked solution of the exercise on CQRS with event sourcing."""

from __future__ import annotations

from examples.exercises.accounts.messages import (
    Deposit,
    Deposited,
    OverdrawnError,
    Richest,
    Withdraw,
    Withdrawn,
)
from pabal import InMemoryEventBus
from pabal.cqrs import CommandBus, Idempotency, QueryBus, retry_conflicts
from pabal.domain import Aggregate, applies
from pabal.eventsourcing import Projection, ProjectionTransaction, Repository, UnitOfWork, projects


class Account(Aggregate):
    """An account; its balance never becomes negative."""

    balance: int = 0

    def deposit(self, amount: int) -> int:
        """Add money; return the new balance."""
        self.record(Deposited(self.id, amount))
        return self.balance

    def withdraw(self, amount: int) -> int:
        """Take money out; return the new balance. Raises OverdrawnError."""
        if amount > self.balance:
            raise OverdrawnError(f"{self.id} has {self.balance}, and {amount} was asked for")
        self.record(Withdrawn(self.id, amount))
        return self.balance

    @applies(Deposited, Withdrawn)
    def _changed(self, event: Deposited | Withdrawn) -> None:
        self.balance += event.amount if isinstance(event, Deposited) else -event.amount


class Balances(Projection):
    """A table of all accounts with their balances."""

    tables = "CREATE TABLE {balances} (account TEXT PRIMARY KEY, balance INTEGER NOT NULL);"

    @projects(Deposited)
    def _deposited(self, event: Deposited, tx: ProjectionTransaction) -> None:
        tx.execute(
            "INSERT INTO {balances} VALUES (?, ?)"
            " ON CONFLICT DO UPDATE SET balance = balance + excluded.balance",
            (event.account, event.amount),
        )

    @projects(Withdrawn)
    def _withdrawn(self, event: Withdrawn, tx: ProjectionTransaction) -> None:
        tx.execute(
            "UPDATE {balances} SET balance = balance - ? WHERE account = ?", (event.amount, event.account)
        )


class Bank:
    """The whole application: commands in, answers out."""

    def __init__(self, bus: InMemoryEventBus) -> None:
        self.balances = Balances(bus)
        self._accounts = Repository(Account, bus)
        self.commands = CommandBus()
        # retry_conflicts outside Idempotency, so that each attempt has its own unit of work.
        self.commands.use(retry_conflicts(attempts=5))
        self.commands.use(Idempotency(bus))
        self.commands.register(Deposit, self._deposit)
        self.commands.register(Withdraw, self._withdraw)
        self.queries = QueryBus()
        self.queries.register(Richest, self._richest)

    async def _deposit(self, command: Deposit, work: UnitOfWork) -> int:
        return (await work.edit(self._accounts, command.account)).deposit(command.amount)

    async def _withdraw(self, command: Withdraw, work: UnitOfWork) -> int:
        return (await work.edit(self._accounts, command.account)).withdraw(command.amount)

    async def _richest(self, query: Richest) -> list[tuple[str, int]]:
        sql = "SELECT account, balance FROM {balances} ORDER BY balance DESC, account LIMIT ?"
        return [(account, balance) for account, balance in await self.balances.rows(sql, (query.limit,))]
