"""A price feed in its own thread, like those of brokers' client libraries."""

from __future__ import annotations

import threading
from decimal import Decimal
from random import Random

from examples.qt_ticker.events import PriceTicked
from pabal import BusNotRunningError, InMemoryEventBus

SYMBOLS = ("KRW-BTC", "KRW-ETH", "KRW-XRP")


class Feed(threading.Thread):
    """Publish a random walk, a price every ``interval`` seconds, until ``end`` is called or the bus stops."""

    def __init__(self, bus: InMemoryEventBus, *, interval: float = 0.05, seed: int = 1) -> None:
        super().__init__(name="feed", daemon=True)
        self._bus = bus
        self._interval = interval
        self._random = Random(seed)
        self._ended = threading.Event()

    def run(self) -> None:
        """Publish from this thread. Waiting for each receipt keeps a fast feed from flooding the bus."""
        prices = dict.fromkeys(SYMBOLS, Decimal(1000))
        while not self._ended.wait(self._interval):
            symbol = self._random.choice(SYMBOLS)
            prices[symbol] += self._random.randint(-5, 5)
            try:
                self._bus.publish_threadsafe(PriceTicked(symbol, prices[symbol])).result()
            except BusNotRunningError:
                return

    def end(self) -> None:
        """Ask the thread to end."""
        self._ended.set()
