"""The events that the tests of the bus publish."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Annotated, ClassVar

from msgspec import Meta

from pabal import DomainEvent, register_event


class Moved(DomainEvent):
    """Belong to an aggregate, so that its order matters."""

    event_type: ClassVar[str] = "piece.moved"
    aggregate_type: ClassVar[str] = "piece"
    piece: str
    n: int = 0

    @property
    def aggregate_id(self) -> str:
        return self.piece


class Jumped(Moved):
    """Be a subclass of another event."""

    event_type: ClassVar[str] = "piece.jumped"


class Noted(DomainEvent):
    """Belong to no aggregate, so that nothing orders it."""

    event_type: ClassVar[str] = "note.taken"
    n: int = 0


class Packed(DomainEvent):
    """Have fields that a careless handler could change."""

    event_type: ClassVar[str] = "basket.packed"
    items: list[str]
    prices: dict[str, Decimal]


class Measured(DomainEvent):
    """Have a float and a moment, which may be refused."""

    event_type: ClassVar[str] = "value.measured"
    value: float = 0.0
    taken_at: Annotated[datetime, Meta(tz=True)] | None = None
    label: str = ""


@dataclass(frozen=True)
class Ticket:
    """Be no DomainEvent, but registered."""

    seat: str
    extras: list[str] = field(default_factory=list)


register_event(Ticket, event_type="ticket.sold", aggregate_type="seat", aggregate_id="seat")


@dataclass(frozen=True)
class Unknown:
    """Be registered nowhere."""

    text: str = ""
