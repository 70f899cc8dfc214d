"""Fixtures for applications' tests; pytest finds them by itself once pabal is installed.

Nothing of pabal is imported before a test asks for it: a plugin is loaded before coverage begins to measure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pabal.bus.in_memory import InMemoryEventBus
    from pabal.testing.clock import VirtualClock
    from pabal.testing.recorder import EventRecorder


@pytest.fixture
def virtual_clock() -> VirtualClock:
    """Return a clock that stands still until ``await virtual_clock.advance(seconds)``; new in each test."""
    from pabal.testing.clock import VirtualClock

    return VirtualClock()


@pytest.fixture
def event_bus(virtual_clock: VirtualClock) -> InMemoryEventBus:
    """Return a bus in memory, without storage, on ``virtual_clock``; begin with ``async with event_bus:``.

    Its jitter is the same in each run.
    """
    from pabal.bus.in_memory import InMemoryEventBus

    return InMemoryEventBus(clock=virtual_clock, seed=0)


@pytest.fixture
def recorded_events(event_bus: InMemoryEventBus) -> EventRecorder:
    """Return a recorder of what ``event_bus`` publishes and delivers."""
    from pabal.testing.recorder import EventRecorder

    return EventRecorder(event_bus)
