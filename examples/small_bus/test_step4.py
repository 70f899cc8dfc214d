"""The tests of step 4: written once, and run against every kind of bus."""

from pathlib import Path

import pytest

from examples.small_bus.step1_interface import Event, OrderPlaced
from examples.small_bus.step4_factory import open_bus


@pytest.fixture(params=["memory", "sqlite"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/log.db"


async def test_an_event_reaches_every_subscription(url: str) -> None:
    seen: list[str] = []

    async def ledger(event: Event) -> None:
        seen.append(f"ledger {event.key}")

    async def stock(event: Event) -> None:
        seen.append(f"stock {event.key}")

    async with open_bus(url, [OrderPlaced]) as bus:
        bus.subscribe(OrderPlaced, ledger, name="ledger")
        bus.subscribe(OrderPlaced, stock, name="stock")
        await bus.start()
        await bus.publish(OrderPlaced("o-1", 5))
        await bus.drain()
    assert sorted(seen) == ["ledger o-1", "stock o-1"]


async def test_events_of_one_key_are_delivered_in_order(url: str) -> None:
    quantities: list[int] = []

    async def note(event: Event) -> None:
        assert isinstance(event, OrderPlaced)
        quantities.append(event.quantity)

    async with open_bus(url, [OrderPlaced]) as bus:
        bus.subscribe(OrderPlaced, note, name="note")
        await bus.start()
        for number in range(20):
            await bus.publish(OrderPlaced("o-1", number))
        await bus.drain()
    assert quantities == list(range(20))


@pytest.mark.parametrize("wrong", ["", "redis://localhost", "sqlite://", "memory"])
async def test_an_unknown_url_raises_an_error_that_names_the_known_ones(wrong: str) -> None:
    with pytest.raises(ValueError, match="use memory://"):
        async with open_bus(wrong, [OrderPlaced]):
            pass
