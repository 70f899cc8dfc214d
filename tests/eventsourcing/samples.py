"""An account, as an aggregate and as a decider, that the tests of event sourcing share."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import ClassVar

from pabal import DomainEvent
from pabal.domain import Aggregate, Decider, applies


class OverdrawnError(Exception):
    """The account has too little money."""


class AccountEvent(DomainEvent):
    aggregate_type: ClassVar[str | None] = "account"
    _abstract: ClassVar[bool] = True
    account: str

    @property
    def aggregate_id(self) -> str | None:
        return self.account


class Deposited(AccountEvent):
    event_type: ClassVar[str] = "es.deposited"
    amount: Decimal


class Withdrawn(AccountEvent):
    event_type: ClassVar[str] = "es.withdrawn"
    amount: Decimal


class Stray(DomainEvent):
    event_type: ClassVar[str] = "es.stray"
    number: int = 0


class Unapplied(AccountEvent):
    event_type: ClassVar[str] = "es.unapplied"


class Account(Aggregate):
    balance: Decimal = Decimal(0)
    entries: list[Decimal]

    def __init__(self, aggregate_id: str) -> None:
        super().__init__(aggregate_id)
        self.entries = []

    def deposit(self, amount: Decimal) -> Decimal:
        self.record(Deposited(self.id, amount))
        return self.balance

    def withdraw(self, amount: Decimal) -> Decimal:
        if amount > self.balance:
            raise OverdrawnError(f"{amount} of {self.balance}")
        self.record(Withdrawn(self.id, amount))
        return self.balance

    def deposit_then_fail(self, amount: Decimal) -> None:
        self.deposit(amount)
        raise OverdrawnError("after recording")

    def record_event(self, event: object) -> None:
        self.record(event)

    @applies(Deposited)
    def _deposited(self, event: Deposited) -> None:
        self.balance += event.amount
        self.entries.append(event.amount)

    @applies(Withdrawn)
    def _withdrawn(self, event: Withdrawn) -> None:
        self.balance -= event.amount
        self.entries.append(-event.amount)


class MatchedAccount(Aggregate):
    """The same as ``Account``, with pattern matching instead of a method per event."""

    aggregate_type: ClassVar[str] = "account"
    balance: Decimal = Decimal(0)

    def apply(self, event: object) -> None:
        match event:
            case Deposited(amount=amount):
                self.balance += amount
            case Withdrawn(amount=amount):
                self.balance -= amount


@dataclass(frozen=True)
class Withdraw:
    account: str
    amount: Decimal


@dataclass(frozen=True)
class Deposit:
    account: str
    amount: Decimal


def decide(command: Deposit | Withdraw, balance: Decimal) -> list[Deposited | Withdrawn]:
    match command:
        case Deposit(account, amount):
            return [Deposited(account, amount)]
        case Withdraw(account, amount) if amount <= balance:
            return [Withdrawn(account, amount)]
    raise OverdrawnError(f"{command.amount} of {balance}")


def evolve(balance: Decimal, event: Deposited | Withdrawn) -> Decimal:
    return balance + event.amount if isinstance(event, Deposited) else balance - event.amount


account_decider = Decider("account", Decimal(0), decide=decide, evolve=evolve)
