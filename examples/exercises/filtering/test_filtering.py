"""The tests of the exercise. They test the solution, or the module named by EXERCISE.

EXERCISE=mine python -m pytest examples/exercises/filtering
"""

import importlib
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from examples.small_bus.step1_interface import Event, OrderPlaced

_module = importlib.import_module(f"examples.exercises.filtering.{os.environ.get('EXERCISE', 'solution')}")


@dataclass(frozen=True)
class ExpressOrderPlaced(OrderPlaced):
    """An urgent order."""

    hours: int


@dataclass(frozen=True)
class OrderCancelled(Event):
    """An order was cancelled."""


class Recorder:
    """A handler that records its events."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    async def __call__(self, event: Event) -> None:
        self.events.append(event)


@pytest.fixture
async def bus() -> AsyncIterator[Any]:
    bus = _module.FilteringBus(workers=2, delay=0.0)
    await bus.start()
    yield bus
    await bus.stop()


def is_large(event: Event) -> bool:
    return isinstance(event, OrderPlaced) and event.quantity >= 100


async def test_task_1_a_condition_delivers_only_events_it_accepts(bus: Any) -> None:
    handler = Recorder()
    bus.subscribe(OrderPlaced, handler, name="large", where=is_large)
    await bus.publish(OrderPlaced("o-1", 1))
    await bus.publish(OrderPlaced("o-2", 100))
    await bus.drain()
    assert handler.events == [OrderPlaced("o-2", 100)]


async def test_task_1_a_subscription_without_a_condition_receives_every_event(bus: Any) -> None:
    large, all_ = Recorder(), Recorder()
    bus.subscribe(OrderPlaced, large, name="large", where=is_large)
    bus.subscribe(OrderPlaced, all_, name="all")
    await bus.publish(OrderPlaced("o-1", 1))
    await bus.drain()
    assert large.events == []
    assert all_.events == [OrderPlaced("o-1", 1)]


async def test_task_2_a_subscription_to_a_type_receives_its_derived_types(bus: Any) -> None:
    orders, express, everything = Recorder(), Recorder(), Recorder()
    bus.subscribe(OrderPlaced, orders, name="orders")
    bus.subscribe(ExpressOrderPlaced, express, name="express")
    bus.subscribe(Event, everything, name="everything")
    events = [OrderPlaced("o-1", 1), ExpressOrderPlaced("o-1", 1, 24), OrderCancelled("o-1")]
    for event in events:
        await bus.publish(event)
    await bus.drain()
    assert orders.events == events[:2]
    assert express.events == events[1:2]
    assert everything.events == events


async def test_task_3_a_condition_that_raises_loses_one_delivery_and_is_not_retried(bus: Any) -> None:
    handler, other = Recorder(), Recorder()
    calls: list[Event] = []

    def broken(event: Event) -> bool:
        calls.append(event)
        raise KeyError("quantity")

    bus.subscribe(OrderPlaced, handler, name="broken", where=broken)
    bus.subscribe(OrderPlaced, other, name="other")
    await bus.publish(OrderPlaced("o-1", 1))
    await bus.drain()
    assert len(calls) == 1, "a condition gives the same result each time: a retry is a waste"
    assert handler.events == []
    assert other.events == [OrderPlaced("o-1", 1)]
    assert [type(error) for _, error in bus.given_up] == [KeyError], "the error has to be reported"


async def test_task_4_the_publisher_does_not_wait_for_conditions(bus: Any) -> None:
    calls: list[Event] = []

    def slow(event: Event) -> bool:
        calls.append(event)
        return True

    bus.subscribe(OrderPlaced, Recorder(), name="slow", where=slow)
    await bus.publish(OrderPlaced("o-1", 1))
    assert calls == []
    await bus.drain()
    assert len(calls) == 1
