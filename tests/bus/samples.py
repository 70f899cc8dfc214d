"""The events published by the tests of the bus."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Annotated, ClassVar

from msgspec import Meta

from pabal import DomainEvent, register_event


class Moved(DomainEvent):
    """An event of an aggregate, whose events are delivered in order."""

    event_type: ClassVar[str] = "piece.moved"
    aggregate_type: ClassVar[str] = "piece"
    piece: str
    n: int = 0

    @property
    def aggregate_id(self) -> str:
        return self.piece


class Jumped(Moved):
    """A subclass of another event."""

    event_type: ClassVar[str] = "piece.jumped"


class Weighed(DomainEvent):
    """An event of an aggregate with a float, which is checked before it is published."""

    event_type: ClassVar[str] = "piece.weighed"
    piece: str
    n: int
    grams: float = 1.0
    aggregate_type = "piece"

    @property
    def aggregate_id(self) -> str:
        return self.piece


class NoteTaken(DomainEvent):
    """An event of no aggregate, delivered in any order."""

    event_type: ClassVar[str] = "note.taken"
    n: int = 0


class Packed(DomainEvent):
    """An event with fields that a careless handler could change."""

    event_type: ClassVar[str] = "basket.packed"
    items: list[str]
    prices: dict[str, Decimal]


class Measured(DomainEvent):
    """An event with a float and a datetime, some of whose values are rejected."""

    event_type: ClassVar[str] = "value.measured"
    value: float = 0.0
    taken_at: Annotated[datetime, Meta(tz=True)] | None = None
    label: str = ""


@dataclass(frozen=True)
class Ticket:
    """A registered class that is not a DomainEvent."""

    seat: str
    extras: list[str] = field(default_factory=list)


register_event(Ticket, event_type="ticket.sold", aggregate_type="seat", aggregate_id="seat")


@dataclass(frozen=True)
class Unknown:
    """A class that is not registered."""

    text: str = ""
