"""A component's state is a fold over the log, also after crashes and repeated deliveries."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest

from pabal import DeliveryContext, InMemoryEventBus, InMemoryEventStorage
from pabal.demo.candles import Candle, add_tick
from pabal.demo.component import Component
from pabal.demo.errors import ImpossiblePriceError
from pabal.demo.events import CandleClosed, TickReceived
from pabal.errors import StorageError
from tests.demo.support import RUN, tick

Candles = Component[Candle | None]
_TICKS = [
    tick(1, 100, 1),
    tick(2, 500, 2, symbol="Y"),
    tick(5, 120, 3),
    tick(12, 110, 4),
    tick(13, 600, 5, symbol="Y"),
    tick(15, 90, 6),
    tick(21, 130, 7),
    tick(22, 700, 8, symbol="Y"),
]


class Bench:
    """Deliver ticks of a log to a component like a bus, and record what it publishes."""

    def __init__(self, storage: InMemoryEventStorage) -> None:
        self.storage = storage
        self.bus = InMemoryEventBus(event_storage=storage)
        self.positions: dict[int, int] = {}

    async def store(self, ticks: list[TickReceived]) -> None:
        for one in ticks:
            self.positions[one.sequence] = await self.storage.store_event(one)

    def component(self, watermark: int | None = None) -> Candles:
        """Create the component as a starting process does; without a watermark, for the first time."""
        decide = partial(add_tick, seconds=10, run=RUN)
        made: Candles = Component("candles", TickReceived, decide, None, bus=self.bus, storage=self.storage)
        if watermark is not None:
            made.resume_from(watermark)
        return made

    async def restored(self, watermark: int) -> Candles:
        """Create the component as a process does that continues an earlier one."""
        made = self.component(watermark)
        async for envelope in self.storage.read():
            made.replay(envelope)
        return made

    async def deliver(self, component: Candles, one: TickReceived, attempt: int = 1) -> None:
        position = self.positions[one.sequence]
        await component.handle(
            one,
            DeliveryContext(
                "candles", one.event_id, one.event_type, attempt, position, None, None, one.symbol
            ),
        )

    async def candles(self) -> list[CandleClosed]:
        found = [envelope.event async for envelope in self.storage.read(types=[CandleClosed])]
        return sorted(found, key=lambda event: (event.symbol, event.number))


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench(InMemoryEventStorage())
    await made.store(_TICKS)
    async with made.bus:
        yield made


async def test_an_uninterrupted_component_equals_a_plain_fold(bench: Bench) -> None:
    """The reference for the other tests would be wrong."""
    component = bench.component()
    for one in _TICKS:
        await bench.deliver(component, one)
    found: list[Any] = [(e.symbol, e.number, e.high, e.low, e.volume) for e in await bench.candles()]
    assert found == [
        ("X", 1, 120, 100, 2),
        ("X", 2, 110, 90, 2),
        ("Y", 1, 500, 500, 1),
        ("Y", 2, 600, 600, 1),
    ]


@pytest.mark.parametrize("crash_after", range(len(_TICKS) + 1))
@pytest.mark.parametrize("unsaved", range(4))
async def test_a_crash_at_any_event_leaves_the_candles_unchanged(
    bench: Bench, crash_after: int, unsaved: int
) -> None:
    """A tick would count twice, or not at all, when its handler runs again because no watermark was saved."""
    component = bench.component()
    for one in _TICKS[:crash_after]:
        await bench.deliver(component, one)
    saved = max(0, crash_after - unsaved)
    again = await bench.restored(watermark=saved)
    for one in _TICKS[saved:]:
        await bench.deliver(again, one)
    crashed = [(event, event.event_id) for event in await bench.candles()]

    other = Bench(InMemoryEventStorage())
    await other.store(_TICKS)
    async with other.bus:
        whole = other.component()
        for one in _TICKS:
            await other.deliver(whole, one)
        assert crashed == [(event, event.event_id) for event in await other.candles()]


async def test_recovered_state_includes_events_finished_above_the_watermark(
    bench: Bench,
) -> None:
    """The state would have a gap if another symbol's unfinished event held the watermark back."""
    component = bench.component()
    for one in _TICKS:
        if one.symbol == "X" and one.sequence <= 4:
            await bench.deliver(component, one)
    # Y's first tick (position 2) is unfinished, so the watermark is 1; X's 1, 3 and 4 are finished.
    again = await bench.restored(watermark=1)
    for one in _TICKS:
        if one.symbol == "Y" or one.sequence > 4:
            await bench.deliver(again, one)
    found: list[Any] = [(e.symbol, e.number, e.high, e.low, e.volume) for e in await bench.candles()]
    assert found[:2] == [("X", 1, 120, 100, 2), ("X", 2, 110, 90, 2)]


async def test_a_poison_event_leaves_the_state_unchanged_before_and_after_a_restart(bench: Bench) -> None:
    """A poison event would not be part of the state while the process lives, but after a restart."""
    poison = tick(16, -1, 9)
    later = tick(31, 100, 10)
    await bench.store([poison, later])
    component = bench.component()
    for one in _TICKS:
        await bench.deliver(component, one)
    for attempt in (1, 2):
        with pytest.raises(ImpossiblePriceError):
            await bench.deliver(component, poison, attempt)
    again = await bench.restored(watermark=bench.positions[9])
    await bench.deliver(again, later)
    assert [e.low for e in await bench.candles() if e.symbol == "X"] == [100, 90, 130]


async def test_a_failed_publish_leaves_the_state_unchanged_for_the_next_attempt(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tick would count once per attempt, if the state changed before its output is in the log."""
    component = bench.component()
    for one in _TICKS[:3]:
        await bench.deliver(component, one)

    async def fail(event: object) -> None:
        raise StorageError(path="x", reason="the disk is full")

    with monkeypatch.context() as broken:
        broken.setattr(bench.bus, "publish", fail)
        with pytest.raises(StorageError):
            await bench.deliver(component, _TICKS[3])
    for one in _TICKS[3:]:
        await bench.deliver(component, one, attempt=2)
    assert [e.volume for e in await bench.candles()] == [2, 2, 1, 1]


async def test_a_retried_dead_letter_sees_the_state_at_its_own_position(bench: Bench) -> None:
    """A late delivery would be decided by later events, or turn the state back."""
    component = bench.component()
    for one in _TICKS:
        await bench.deliver(component, one)
    before = await bench.candles()
    await bench.deliver(component, _TICKS[3], attempt=6)
    assert await bench.candles() == before
    last = tick(35, 1, 9)
    await bench.store([last])
    await bench.deliver(component, last)
    newest = [e for e in await bench.candles() if e.symbol == "X"][-1]
    assert (newest.number, str(newest.close)) == (3, "130")
