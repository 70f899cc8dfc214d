"""The command handlers; each changes aggregates through one unit of work."""

from __future__ import annotations

from examples.trading.application.messages import CancelOrder, FillOrder, PlaceOrder, SettleOrder
from examples.trading.domain.order import Order
from examples.trading.domain.position import Position
from pabal.cqrs import CommandBus
from pabal.eventsourcing import Repository, UnitOfWork

Orders = Repository[Order]
Positions = Repository[Position]


async def place(command: PlaceOrder, work: UnitOfWork, orders: Orders) -> str:
    """Place an order."""
    order = await work.edit(orders, command.order_id)
    order.place(command.symbol, command.side, command.quantity, command.limit)
    return order.id


async def fill(command: FillOrder, work: UnitOfWork, orders: Orders) -> None:
    """Fill an order."""
    (await work.edit(orders, command.order_id, must_exist=True)).fill(command.price)


async def settle(command: SettleOrder, work: UnitOfWork, orders: Orders, positions: Positions) -> None:
    """Change order and position together: one append stores both changes, or neither."""
    order = await work.edit(orders, command.order_id, must_exist=True)
    position = await work.edit(positions, order.symbol)
    position.trade(order.id, order.side, order.quantity, command.price)
    order.settle()


async def cancel(command: CancelOrder, work: UnitOfWork, orders: Orders) -> None:
    """Cancel an order."""
    (await work.edit(orders, command.order_id, must_exist=True)).cancel(command.reason)


def register(commands: CommandBus) -> None:
    """Register the handler of each command."""
    commands.register(PlaceOrder, place)
    commands.register(FillOrder, fill)
    commands.register(SettleOrder, settle)
    commands.register(CancelOrder, cancel)
