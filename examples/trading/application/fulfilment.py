"""``Fulfilment``: the process from a placed order to a settled one."""

from __future__ import annotations

from typing import ClassVar

from examples.trading.application.messages import CancelOrder, SettleOrder
from examples.trading.domain.events import OrderCancelled, OrderFilled, OrderPlaced, OrderSettled
from examples.trading.domain.order import OrderError
from examples.trading.domain.position import NotHeldError
from pabal.cqrs import (
    CommandRejected,
    ProcessManager,
    ProcessTimedOut,
    on_rejected,
    on_timeout,
    reacts,
    starts,
)


class Fulfilment(ProcessManager):
    """Settle filled orders, cancel those that wait too long, and undo a fill that cannot be settled."""

    process_type: ClassVar[str] = "trading_fulfilment"
    rejections = (NotHeldError, OrderError)
    patience: ClassVar[float] = 60.0
    """Seconds that an order may wait for the market."""

    @starts(OrderPlaced, key="order_id")
    def placed(self, event: OrderPlaced) -> None:
        """Wait for the market, but only for a limited time."""
        self.set_timeout("unfilled", self.patience)

    @reacts(OrderFilled, key="order_id")
    def filled(self, event: OrderFilled) -> None:
        """Have the trade settled."""
        self.cancel_timeout("unfilled")
        self.send(SettleOrder(event.order_id, event.price))

    @on_timeout("unfilled")
    def waited_too_long(self, event: ProcessTimedOut) -> None:
        """Cancel the order. If it was filled just now, the command is rejected, and the order goes on."""
        self.send(CancelOrder(self.key, "not filled in time"))

    @on_rejected(SettleOrder)
    def cannot_be_settled(self, event: CommandRejected) -> None:
        """Compensate: cancel the order, which undoes the fill."""
        self.send(CancelOrder(self.key, event.error))

    @on_rejected(CancelOrder)
    def cannot_be_cancelled(self, event: CommandRejected) -> None:
        """Do nothing: an order that was filled meanwhile is settled by its own event."""

    @reacts(OrderSettled, OrderCancelled, key="order_id")
    def over(self, event: OrderSettled | OrderCancelled) -> None:
        """End the process."""
        self.end()
