"""The events used by the cases."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, ClassVar

from pabal.domain.event import DomainEvent
from pabal.ports.storage import EventStorage


class Deposited(DomainEvent):
    """An event of an account, the usual kind of event."""

    event_type: ClassVar[str] = "conformance.deposited"
    aggregate_type: ClassVar[str | None] = "account"
    account: str
    number: int
    amount: Decimal = Decimal("1.50")

    @property
    def aggregate_id(self) -> str:
        """Return the account."""
        return self.account


class Audited(DomainEvent):
    """An event with the same aggregate ids as ``Deposited``, but in other streams."""

    event_type: ClassVar[str] = "conformance.audited"
    aggregate_type: ClassVar[str | None] = "audit"
    account: str
    number: int

    @property
    def aggregate_id(self) -> str:
        """Return the account."""
        return self.account


class Remarked(DomainEvent):
    """An event of an aggregate that has an id but no type."""

    event_type: ClassVar[str] = "conformance.remarked"
    subject: str

    @property
    def aggregate_id(self) -> str:
        """Return the subject."""
        return self.subject


class Ticked(DomainEvent):
    """An event of no aggregate."""

    event_type: ClassVar[str] = "conformance.ticked"
    number: int
    price: float = 0.0


def deposits(account: str, numbers: range) -> list[Deposited]:
    """Return one deposit for each number."""
    return [Deposited(account, number) for number in numbers]


async def everything(storage: EventStorage) -> list[Any]:
    """Return every event of a log, in order."""
    return [envelope.event async for envelope in storage.read()]
