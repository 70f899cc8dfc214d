"""Given in the exercise: the events, commands and queries of an account. Do not change this file."""

from __future__ import annotations

from typing import ClassVar

from pabal import DomainEvent
from pabal.cqrs import Command, Query


class AccountEvent(DomainEvent):
    """Something that happened to an account."""

    _abstract: ClassVar[bool] = True
    aggregate_type: ClassVar[str] = "account"
    account: str

    @property
    def aggregate_id(self) -> str:
        """Return the account's name."""
        return self.account


class Deposited(AccountEvent):
    """Money came in."""

    event_type: ClassVar[str] = "account.deposited"
    amount: int


class Withdrawn(AccountEvent):
    """Money went out."""

    event_type: ClassVar[str] = "account.withdrawn"
    amount: int


class OverdrawnError(Exception):
    """An account has less than the amount to withdraw."""


class Deposit(Command[int]):
    """Pay money in; the result is the new balance."""

    account: str
    amount: int


class Withdraw(Command[int]):
    """Take money out; the result is the new balance. Raises OverdrawnError."""

    account: str
    amount: int


class Richest(Query[list[tuple[str, int]]]):
    """Return the accounts with the highest balances, the richest first."""

    limit: int
