"""``start()`` on a log that holds unfinished work."""

from __future__ import annotations

import pytest

from pabal import InMemoryEventBus
from tests.bus.samples import Moved, Noted
from tests.bus.support import ONCE, Backend, figures


@pytest.mark.parametrize("others", [1, 8])
async def test_a_handler_of_the_backlog_can_publish_from_the_first_delivery(
    stored: Backend, others: int
) -> None:
    """Handlers that run while the bus still opens its subscriptions: what they publish is refused, attempts
    are wasted.

    Seen in the trading demo, resumed after kill -9: deliveries failed with "the bus is starting".
    """
    storage = stored.storage()
    assert storage is not None
    await storage.append_events([Moved("rook", n) for n in range(500)])
    bus = InMemoryEventBus(event_storage=storage)

    async def answer(event: Moved) -> None:
        await bus.publish(Noted(event.n))

    async def ignore(event: Noted) -> None:
        return

    bus.subscribe(Moved, answer, name="answer", start="beginning", retry=ONCE)
    for number in range(others):
        bus.subscribe(Noted, ignore, name=f"other-{number}", start="beginning")
    async with bus:
        await bus.drain(60)
        assert figures(bus, "answer")["failed_attempts"] == 0
        assert figures(bus, "other-0")["handled"] == 500
