"""The virtual clock: time moves only when a test says so, and due calls are made on the way."""

import asyncio
from functools import partial

import pytest

from pabal.errors import UsageError
from pabal.testing import VirtualClock


async def test_time_stands_still_until_it_is_advanced() -> None:
    """The outcome of a test would depend on its speed."""
    clock = VirtualClock(start=1000.0)
    assert (clock.time(), clock.monotonic()) == (1000.0, 0.0)
    await asyncio.sleep(0)
    assert (clock.time(), clock.monotonic()) == (1000.0, 0.0)
    await clock.advance(2.5)
    assert (clock.time(), clock.monotonic()) == (1002.5, 2.5)


async def test_advance_makes_due_calls_in_order_each_at_its_own_time() -> None:
    """A delay would be measured from the end of the jump instead of from when the call was due."""
    clock = VirtualClock()
    calls: list[tuple[str, float]] = []
    delays = {"late": 3.0, "early": 1.0, "also early": 1.0, "at once": -5.0, "never": 9.0}

    def note(name: str) -> None:
        calls.append((name, clock.monotonic()))

    for name, delay in delays.items():
        clock.call_later(delay, partial(note, name))
    await clock.advance(3.0)
    assert calls == [("at once", 0.0), ("early", 1.0), ("also early", 1.0), ("late", 3.0)]


async def test_calls_scheduled_by_a_call_are_made_on_time() -> None:
    """A chain of retries would need one jump of the clock for each."""
    clock = VirtualClock()
    calls: list[float] = []

    def repeat() -> None:
        calls.append(clock.monotonic())
        clock.call_later(1.0, repeat)

    async def schedule_in_a_task() -> None:
        clock.call_later(0.5, lambda: calls.append(clock.monotonic()))

    tasks: list[asyncio.Task[None]] = []
    clock.call_later(1.0, repeat)
    clock.call_later(2.0, lambda: tasks.append(asyncio.ensure_future(schedule_in_a_task())))
    await clock.advance(3.5)
    assert calls == [1.0, 2.0, 2.5, 3.0]


async def test_a_cancelled_call_is_not_made() -> None:
    """A deadline that was met would still cancel its handler."""
    clock = VirtualClock()
    calls: list[str] = []
    first = clock.call_later(1.0, lambda: calls.append("first"))
    second = clock.call_later(1.0, lambda: calls.append("second"))
    first.cancel()
    await clock.advance(1.0)
    second.cancel()
    await clock.advance(1.0)
    assert calls == ["second"]


async def test_time_never_goes_back() -> None:
    """A test with a wrong sign would pass, or hang, at a time that no program meets."""
    clock = VirtualClock()
    await asyncio.gather(clock.advance(10), clock.advance(5))
    assert clock.monotonic() == 10
    for seconds in (-1, float("nan"), float("inf")):
        with pytest.raises(UsageError, match="time only moves forward"):
            await clock.advance(seconds)
    assert clock.monotonic() == 10
