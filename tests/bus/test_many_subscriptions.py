"""Thousands of subscriptions on a bus: adding one must not examine all the others."""

from __future__ import annotations

from typing import Any

import pytest

from tests.bus.samples import Moved
from tests.bus.support import Backend, Recorder, count_calls


async def _note(event: Any) -> None: ...


@pytest.mark.parametrize("started", [False, True], ids=["before the start", "while running"])
async def test_the_cost_of_subscribing_does_not_depend_on_the_number_of_subscriptions(
    memory: Backend, started: bool
) -> None:
    """A server that subscribes once per client would slow down with the square of its clients."""
    costs: list[int] = []
    for size in (20, 400):
        bus = await memory.start_bus() if started else memory.make_bus()
        for n in range(size):
            bus.subscribe(Moved, _note, name=f"client {n}")
        with count_calls() as counted:
            last = bus.subscribe(Moved, _note, name="last")
            bus.unsubscribe(last)
        costs.append(counted.calls)
        await bus.stop()
    assert costs[1] == costs[0]


class _Priority(int):
    """A priority that counts how often it is read."""

    reads = 0

    def __hash__(self) -> int:
        _Priority.reads += 1
        return int(self)


class _Id(str):
    """An id that counts how often it is compared."""

    __slots__ = ()
    compared = 0

    def __eq__(self, other: object) -> bool:
        _Id.compared += 1
        return str(self) == other

    def __hash__(self) -> int:
        return str.__hash__(self)


async def test_subscribing_and_unsubscribing_do_not_examine_every_subscription(memory: Backend) -> None:
    """Ten thousand would take seven seconds to subscribe, and each unsubscribe would search all of them."""
    reads: list[tuple[int, int]] = []
    for size in (20, 400):
        bus = await memory.start_bus()
        for n in range(size):
            bus.subscribe(Moved, _note, name=f"client {n}", priority=_Priority(1))
        _Priority.reads = _Id.compared = 0
        last = bus.subscribe(Moved, _note, name="last", priority=_Priority(1))
        assert bus.unsubscribe(_Id(last.id))
        assert not bus.unsubscribe(_Id(last.id))
        reads.append((_Priority.reads, _Id.compared))
        await bus.stop()
    assert reads[1] == reads[0]


async def test_priorities_are_computed_without_comparing_every_pair(memory: Backend) -> None:
    """With two priorities, subscribing may examine every subscription once, but not every pair."""
    bus = memory.make_bus()
    for n in range(200):
        bus.subscribe(Moved, _note, name=f"client {n}", priority=n % 2)
    with count_calls() as counted:
        bus.subscribe(Moved, _note, name="last", priority=1)
    assert counted.calls < 4 * 200


async def test_subscribing_and_unsubscribing_update_the_priority_order(memory: Backend) -> None:
    """A subscription left out of the update would run too early, or wait for ever for one that has ended."""
    bus = await memory.start_bus(worker_count=1)
    seen: Recorder[str] = Recorder()

    def recording_handler(name: str) -> Any:
        async def note(event: Moved) -> None:
            seen.add(name)

        return note

    for name, priority in (("five", 5), ("three", 3), ("four", 4)):
        bus.subscribe(Moved, recording_handler(name), name=name, priority=priority)
    first = bus.subscribe(Moved, recording_handler("one"), name="one", priority=1)
    await bus.publish(Moved("rook"))
    await bus.drain(60)
    assert list(seen) == ["one", "three", "four", "five"]
    bus.unsubscribe(first)
    for attached in bus.subscriptions.attached():
        if attached.name != "five":
            bus.unsubscribe(attached)
    bus.subscribe(Moved, recording_handler("six"), name="six", priority=6)
    await bus.publish(Moved("rook"))
    await bus.drain(60)
    assert list(seen)[4:] == ["five", "six"]
