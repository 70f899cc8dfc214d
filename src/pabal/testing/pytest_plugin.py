"""Fixtures for applications' tests; pytest finds them automatically once pabal is installed.

The fixtures import pabal when first used: plugins are loaded before coverage starts to measure.
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
    """Return a clock that stands still until ``await virtual_clock.advance(seconds)``; new for each test."""
    from pabal.testing.clock import VirtualClock

    return VirtualClock()


@pytest.fixture
def event_bus(virtual_clock: VirtualClock) -> InMemoryEventBus:
    """Return an in-memory bus without storage, on ``virtual_clock``; start it with ``async with event_bus:``.

    Its jitter is the same in each run.
    """
    from pabal.bus.in_memory import InMemoryEventBus

    return InMemoryEventBus(clock=virtual_clock, seed=0)


@pytest.fixture
def recorded_events(event_bus: InMemoryEventBus) -> EventRecorder:
    """Return a recorder of everything that ``event_bus`` publishes and delivers."""
    from pabal.testing.recorder import EventRecorder

    return EventRecorder(event_bus)
