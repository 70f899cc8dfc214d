"""The window: widgets, the handlers that update them, and the slot that publishes."""

from __future__ import annotations

from PySide6.QtCore import Qt
from PySide6.QtWidgets import (
    QAbstractItemView,
    QHeaderView,
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
        self.table.horizontalHeader().setSectionResizeMode(QHeaderView.ResizeMode.Stretch)
        self.table.verticalHeader().hide()
        self.table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        for row, symbol in enumerate(SYMBOLS):
            price = QTableWidgetItem("–")
            price.setTextAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
            self.table.setItem(row, 0, QTableWidgetItem(symbol))
            self.table.setItem(row, 1, price)
        self.table.setCurrentCell(0, 0)
        self.buy = QPushButton("Buy one")
        self.buy.clicked.connect(self._order)
        self.orders = QListWidget()
        self.status = QLabel()
        layout = QVBoxLayout()
        for widget in (self.table, self.buy, QLabel("Orders"), self.orders, self.status):
            layout.addWidget(widget)
        centre = QWidget()
        centre.setLayout(layout)
        self.setCentralWidget(centre)
        self.resize(320, 400)

    async def show_price(self, event: PriceTicked) -> None:
        """Handle a price. This runs in Qt's thread, so it may change the widget directly."""
        item = self.table.item(SYMBOLS.index(event.symbol), 1)
        assert item is not None
        item.setText(str(event.price))
        self.ticks += 1
        self.status.setText(f"{self.ticks} prices")

    async def show_order(self, event: OrderRequested) -> None:
        """Handle an order: list it with its time in the local zone; events carry UTC."""
        self.orders.addItem(f"{event.occurred_at.astimezone():%H:%M:%S}  {event.symbol}")

    def _order(self) -> None:
        """Publish from a slot, which cannot use await."""
        self._bus.publish_threadsafe(OrderRequested(SYMBOLS[self.table.currentRow()]))
