"""The window: widgets, the handlers that update them, and the slot that publishes."""

from __future__ import annotations

from PySide6.QtWidgets import (
    QLabel,
    QListWidget,
    QMainWindow,
    QPushButton,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from examples.qt_ticker.events import OrderRequested, PriceTicked
from examples.qt_ticker.feed import SYMBOLS
from pabal import InMemoryEventBus


class TickerWindow(QMainWindow):
    """Show the last price of each symbol and the orders; the button orders the selected symbol."""

    def __init__(self, bus: InMemoryEventBus) -> None:
        super().__init__()
        self._bus = bus
        self.ticks = 0
        self.setWindowTitle("pabal ticker")
        self.table = QTableWidget(len(SYMBOLS), 2)
        self.table.setHorizontalHeaderLabels(["Symbol", "Price"])
        for row, symbol in enumerate(SYMBOLS):
            self.table.setItem(row, 0, QTableWidgetItem(symbol))
            self.table.setItem(row, 1, QTableWidgetItem("–"))
        self.table.setCurrentCell(0, 0)
        self.buy = QPushButton("Buy one")
        self.buy.clicked.connect(self._order)
        self.orders = QListWidget()
        self.status = QLabel()
        layout = QVBoxLayout()
        for widget in (self.table, self.buy, self.orders, self.status):
            layout.addWidget(widget)
        centre = QWidget()
        centre.setLayout(layout)
        self.setCentralWidget(centre)

    async def show_price(self, event: PriceTicked) -> None:
        """Handle a price: it runs in Qt's thread, so the widget is there to be changed."""
        item = self.table.item(SYMBOLS.index(event.symbol), 1)
        assert item is not None
        item.setText(str(event.price))
        self.ticks += 1
        self.status.setText(f"{self.ticks} prices")

    async def show_order(self, event: OrderRequested) -> None:
        """Handle an order: list it."""
        self.orders.addItem(f"{event.occurred_at:%H:%M:%S} {event.symbol}")

    def _order(self) -> None:
        """Publish from a slot, which cannot await."""
        self._bus.publish_threadsafe(OrderRequested(SYMBOLS[self.table.currentRow()]))
