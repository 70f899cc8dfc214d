"""A small shop: orders that are placed, paid and shipped."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, ClassVar

import msgspec

from pabal import DomainEvent
from pabal.cqrs import (
    Command,
    CommandBus,
    Idempotency,
    ProcessManager,
    on_rejected,
    on_timeout,
    reacts,
    starts,
)
from pabal.domain import Aggregate
from pabal.eventsourcing import Repository, UnitOfWork


class ShopEvent(DomainEvent):
    event_type: ClassVar[str] = "cqrs-shop.event"
    aggregate_type: ClassVar[str] = "cqrs_order"
    order: str

    @property
    def aggregate_id(self) -> str:
        return self.order


class OrderPlaced(ShopEvent):
    event_type: ClassVar[str] = "cqrs-shop.placed"
    amount: Decimal = Decimal(0)


class OrderPaid(ShopEvent):
    event_type: ClassVar[str] = "cqrs-shop.paid"


class OrderShipped(ShopEvent):
    event_type: ClassVar[str] = "cqrs-shop.shipped"


class OrderCancelled(ShopEvent):
    event_type: ClassVar[str] = "cqrs-shop.cancelled"
    reason: str = ""


class RejectedError(Exception):
    """A command breaks a rule of the shop."""


class CqrsOrder(Aggregate):
    aggregate_type: ClassVar[str] = "cqrs_order"
    status: str = "new"
    history: tuple[str, ...] = ()

    def place(self, amount: Decimal) -> None:
        if self.status != "new":
            raise RejectedError(f"the order is {self.status}")
        self.record(OrderPlaced(self.id, amount))

    def pay(self) -> None:
        if self.status == "cancelled":
            raise RejectedError("the order is cancelled")
        if self.id == "bad":
            raise RejectedError("the bank says no")
        self.record(OrderPaid(self.id))

    def ship(self) -> None:
        if self.status != "paid":
            raise RejectedError(f"the order is {self.status}")
        self.record(OrderShipped(self.id))

    def cancel(self, reason: str) -> None:
        self.record(OrderCancelled(self.id, reason))

    def apply(self, event: object) -> None:
        match event:
            case OrderPlaced():
                self.status = "placed"
            case OrderPaid():
                self.status = "paid"
            case OrderShipped():
                self.status = "shipped"
            case OrderCancelled():
                self.status = "cancelled"
        self.history = (*self.history, self.status)


class PlaceOrder(Command[str]):
    order: str
    amount: Decimal = Decimal(10)


class PayOrder(Command[None]):
    order: str


class ShipOrder(Command[None]):
    order: str


class CancelOrder(Command[None]):
    order: str
    reason: str


class Totals(msgspec.Struct, frozen=True):
    count: int


Orders = Repository[CqrsOrder]


def make_commands(bus_or_storage: object) -> CommandBus:
    """Return a command bus on which every command of the shop is handled once."""
    orders = Repository(CqrsOrder, bus_or_storage)
    commands = CommandBus(provide={Orders: orders}.__getitem__)
    commands.use(Idempotency(bus_or_storage))

    @commands.handles(PlaceOrder)
    async def place(command: PlaceOrder, work: UnitOfWork, orders: Orders) -> str:
        (await work.edit(orders, command.order)).place(command.amount)
        return command.order

    @commands.handles(PayOrder)
    async def pay(command: PayOrder, work: UnitOfWork, orders: Orders) -> None:
        (await work.edit(orders, command.order)).pay()

    @commands.handles(ShipOrder)
    async def ship(command: ShipOrder, work: UnitOfWork, orders: Orders) -> None:
        (await work.edit(orders, command.order)).ship()

    @commands.handles(CancelOrder)
    async def cancel(command: CancelOrder, work: UnitOfWork, orders: Orders) -> None:
        (await work.edit(orders, command.order)).cancel(command.reason)

    return commands


async def stored_types(storage: Any) -> list[str]:
    """Return the event types on the log, in order."""
    return [envelope.event.event_type async for envelope in storage.read()]


class Fulfilment(ProcessManager):
    """Pay placed orders, ship paid ones, and cancel those that time out or are rejected."""

    process_type: ClassVar[str] = "cqrs_fulfilment"
    rejections = (RejectedError,)
    amount: Decimal = Decimal(0)
    steps: tuple[str, ...] = ()

    @starts(OrderPlaced, key="order")
    def placed(self, event: OrderPlaced) -> None:
        self.amount = event.amount
        self.steps = (*self.steps, "placed")
        self.set_timeout("unpaid", 60)
        if event.amount < 1000:
            self.send(PayOrder(event.order))

    @reacts(OrderPaid, key="order")
    def paid(self, event: OrderPaid) -> None:
        self.steps = (*self.steps, "paid")
        self.cancel_timeout("unpaid")
        self.send(ShipOrder(event.order))

    @reacts(OrderShipped, key="order")
    def shipped(self, event: OrderShipped) -> None:
        self.steps = (*self.steps, "shipped")
        self.end()

    @on_timeout("unpaid")
    def took_too_long(self, event: object) -> None:
        self.steps = (*self.steps, "unpaid")
        self.send(CancelOrder(self.key, "unpaid"))
        self.end()

    @on_rejected(PayOrder, ShipOrder)
    def rejected(self, event: object) -> None:
        self.steps = (*self.steps, "rejected")
        self.send(CancelOrder(self.key, "rejected"))
        self.end()
