"""The starting point. Copy this file and complete it: the aggregate, the projection, the handlers."""

from __future__ import annotations

from examples.exercises.accounts.messages import Deposited, Withdrawn
from pabal import InMemoryEventBus
from pabal.cqrs import CommandBus, QueryBus
from pabal.domain import Aggregate, applies
from pabal.eventsourcing import Projection, ProjectionTransaction, projects


class Account(Aggregate):
    """An account; its balance never becomes negative."""

    balance: int = 0

    @applies(Deposited, Withdrawn)
    def _changed(self, event: Deposited | Withdrawn) -> None:
        """Change the balance according to the event."""


class Balances(Projection):
    """A table of all accounts with their balances."""

    tables = "CREATE TABLE {balances} (account TEXT PRIMARY KEY, balance INTEGER NOT NULL);"

    @projects(Deposited)
    def _deposited(self, event: Deposited, tx: ProjectionTransaction) -> None:
        """Store an account's first deposit; later ones are still ignored."""
        tx.execute("INSERT OR IGNORE INTO {balances} VALUES (?, ?)", (event.account, event.amount))


class Bank:
    """The whole application: commands in, answers out."""

    def __init__(self, bus: InMemoryEventBus) -> None:
        self.balances = Balances(bus)
        self.commands = CommandBus()
        self.queries = QueryBus()
