"""``python -m examples.qt_ticker``: open the window; close it, or press Ctrl-C, to end."""

from __future__ import annotations

import argparse
import sys

from examples.qt_ticker.events import OrderRequested, PriceTicked
from examples.qt_ticker.feed import Feed
from examples.qt_ticker.window import TickerWindow
from pabal import EventBusFactory
from pabal.integrations.qt import run_in_qt


def main() -> None:
    """Run the ticker on its own log, so that orders are shown again next time."""
    parser = argparse.ArgumentParser(prog="python -m examples.qt_ticker", description=__doc__)
    parser.add_argument("--file", default="ticker.db", help="the log (default: %(default)s)")
    parser.add_argument("--prices", type=int, help="close after so many prices")
    options = parser.parse_args()
    bus, storage = EventBusFactory.create_complete_event_system(options.file)
    feed = Feed(bus)

    async def show() -> TickerWindow:
        window = TickerWindow(bus)
        async for envelope in storage.read(types=[OrderRequested]):
            await window.show_order(envelope.event)
        bus.subscribe(PriceTicked, window.show_price, name="show-price")
        bus.subscribe(OrderRequested, window.show_order, name="show-order")

        async def close_when_done(event: PriceTicked) -> None:
            if options.prices is not None and window.ticks >= options.prices:
                window.close()

        bus.subscribe(PriceTicked, close_when_done, name="close", priority=2)
        window.show()
        feed.start()
        return window

    try:
        run_in_qt(bus, show)
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        feed.end()
        storage.close()


main()
