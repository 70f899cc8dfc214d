"""Thousands of subscriptions on one bus: each costs its own, not one more look at all the others."""

from __future__ import annotations

from typing import Any

import pytest

from tests.bus.samples import Moved
from tests.bus.support import Backend, Seen, calls_counted


async def _note(event: Any) -> None: ...


@pytest.mark.parametrize("started", [False, True], ids=["before the start", "while running"])
async def test_a_subscription_comes_and_goes_at_the_same_cost_among_many(
    memory: Backend, started: bool
) -> None:
    """A server that subscribes once for each client would slow down with the square of its clients."""
    costs: list[int] = []
    for size in (20, 400):
        bus = await memory.running() if started else memory.bus()
        for n in range(size):
            bus.subscribe(Moved, _note, name=f"client {n}")
        with calls_counted() as counted:
            last = bus.subscribe(Moved, _note, name="last")
            bus.unsubscribe(last)
        costs.append(counted.calls)
        await bus.stop()
    assert costs[1] == costs[0]


async def test_priorities_are_found_out_without_comparing_each_with_each(memory: Backend) -> None:
    """With two levels, subscribing may look at everybody once, but not at everybody for everybody."""
    bus = memory.bus()
    for n in range(200):
        bus.subscribe(Moved, _note, name=f"client {n}", priority=n % 2)
    with calls_counted() as counted:
        bus.subscribe(Moved, _note, name="last", priority=1)
    assert counted.calls < 4 * 200


async def test_who_comes_and_goes_changes_for_whom_the_others_wait(memory: Backend) -> None:
    """A subscription left out of the look at priorities would run too early, or wait for nobody for ever."""
    bus = await memory.running(worker_count=1)
    seen: Seen[str] = Seen()

    def noting(name: str) -> Any:
        async def note(event: Moved) -> None:
            seen.add(name)

        return note

    for name, priority in (("five", 5), ("three", 3), ("four", 4)):
        bus.subscribe(Moved, noting(name), name=name, priority=priority)
    first = bus.subscribe(Moved, noting("one"), name="one", priority=1)
    await bus.publish(Moved("rook"))
    await bus.drain(60)
    assert list(seen) == ["one", "three", "four", "five"]
    bus.unsubscribe(first)
    for attached in bus.subscriptions.attached():
        if attached.name != "five":
            bus.unsubscribe(attached)
    bus.subscribe(Moved, noting("six"), name="six", priority=6)
    await bus.publish(Moved("rook"))
    await bus.drain(60)
    assert list(seen)[4:] == ["five", "six"]
