"""An account in pabal and in the eventsourcing library, and a read model of accounts."""

from __future__ import annotations

import importlib
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from pabal import DomainEvent
from pabal.domain import Aggregate, applies
from pabal.eventsourcing import Projection, ProjectionTransaction, projects


class Deposited(DomainEvent):
    event_type: ClassVar[str] = "benchmark.deposited"
    aggregate_type: ClassVar[str] = "account"
    account: str
    amount: int

    @property
    def aggregate_id(self) -> str:
        return self.account


class Account(Aggregate):
    balance: int = 0

    def deposit(self, amount: int) -> None:
        self.record(Deposited(self.id, amount))

    @applies(Deposited)
    def _deposited(self, event: Deposited) -> None:
        self.balance += event.amount


class Balances(Projection):
    tables = "CREATE TABLE {balances} (account TEXT PRIMARY KEY, balance INTEGER NOT NULL) WITHOUT ROWID"

    @projects(Deposited)
    def _deposited(self, event: Deposited, tx: ProjectionTransaction) -> None:
        tx.execute(
            "INSERT INTO {balances} VALUES (?, ?) "
            "ON CONFLICT DO UPDATE SET balance = balance + excluded.balance",
            (event.account, event.amount),
        )


class Theirs(NamedTuple):
    """The classes defined with the eventsourcing library."""

    account: Any
    application: Any


@cache
def theirs() -> Theirs:
    """Return the same account, written with the eventsourcing library."""
    application = importlib.import_module("eventsourcing.application")
    domain = importlib.import_module("eventsourcing.domain")

    # The library uses the functions' names.
    def __init__(self: Any) -> None:  # noqa: N807
        self.balance = 0

    def deposit(self: Any, amount: int) -> None:
        self.balance += amount

    here = {"__module__": __name__}
    account = type(
        "TheirAccount",
        (domain.Aggregate,),
        {
            "__init__": domain.event("Opened")(__init__),
            "deposit": domain.event("Deposited")(deposit),
            **here,
        },
    )
    return Theirs(account, type("Bank", (application.Application,), here))


def their_application(path: Path, *, keep: int = 0) -> Any:
    """Return an application on SQLite that caches ``keep`` aggregates in memory."""
    environment = {"PERSISTENCE_MODULE": "eventsourcing.sqlite", "SQLITE_DBNAME": str(path)}
    if keep:
        environment["AGGREGATE_CACHE_MAXSIZE"] = str(keep)
    return theirs().application(env=environment)
