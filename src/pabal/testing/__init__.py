"""Tools for testing applications and backends: a virtual clock, a recorder, fixtures, conformance cases.

``given`` starts a test of an aggregate, a decider, a projection or a process manager. pytest finds three
fixtures automatically: ``virtual_clock``, a ``VirtualClock``; ``event_bus``, an in-memory bus on that clock,
to be started with ``async with event_bus:``; and ``recorded_events``, an ``EventRecorder`` of that bus.
``pabal.testing.conformance.cases_for`` returns what every storage must do, as cases for any test runner.

Names are loaded on first use, because pytest imports this package at every start, used or not.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pabal.testing.clock import VirtualClock
    from pabal.testing.process_scenario import ProcessScenario
    from pabal.testing.recorder import Delivery, EventRecorder
    from pabal.testing.scenario import Scenario, given

_MODULES = {
    "Delivery": "pabal.testing.recorder",
    "EventRecorder": "pabal.testing.recorder",
    "ProcessScenario": "pabal.testing.process_scenario",
    "Scenario": "pabal.testing.scenario",
    "VirtualClock": "pabal.testing.clock",
    "given": "pabal.testing.scenario",
}

__all__ = ["Delivery", "EventRecorder", "ProcessScenario", "Scenario", "VirtualClock", "given"]


def __getattr__(name: str) -> Any:
    home = _MODULES.get(name)
    if home is None:
        raise AttributeError(f"module 'pabal.testing' has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value
