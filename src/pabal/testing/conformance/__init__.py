"""What every backend must do, as cases that can be run by any test runner.

A backend's own test file needs no more than this::

    import asyncio
    from pathlib import Path
    import pytest
    from pabal.testing.conformance import Case, cases_for
    from my_backend import MyStorage

    @pytest.mark.parametrize("case", cases_for(MyStorage.capabilities), ids=str)
    def test_my_storage_conforms(case: Case, tmp_path: Path) -> None:
        asyncio.run(case(lambda: MyStorage(tmp_path / "log")))

Cases that need a capability which the backend does not declare are left out. Each case is called with a
factory. The first call of the factory opens an empty storage; if the capabilities say ``persistent``, later
calls open the same data again, and if they say ``shared``, also while it is open. A case that fails raises
AssertionError and says what was expected.
"""

from pabal.ports.storage import Capabilities
from pabal.testing.conformance import (
    aggregates,
    bus,
    bus_dead_letters,
    controls,
    dead_letters,
    inspection,
    log,
    queries,
    schedules,
    streams,
    subscriptions,
)
from pabal.testing.conformance.case import Case, StorageFactory, cases_of

_MODULES = {
    "log": log,
    "streams": streams,
    "aggregates": aggregates,
    "queries": queries,
    "subscriptions": subscriptions,
    "dead_letters": dead_letters,
    "controls": controls,
    "schedules": schedules,
    "inspection": inspection,
    "bus": bus,
    "bus dead letters": bus_dead_letters,
}

PORTS = tuple(_MODULES)
"""The groups of cases; those named ``bus …`` run a bus on the storage."""

__all__ = ["PORTS", "Case", "StorageFactory", "cases_for"]


def cases_for(capabilities: Capabilities, *ports: str) -> list[Case]:
    """Return the cases that a backend with these capabilities must pass, of some of ``PORTS`` or of all.

    >>> from pabal.ports.storage import Capabilities
    >>> cases = cases_for(Capabilities(persistent=False, shared=False), "log")
    >>> str(cases[0])
    'log: positions start at 1 and grow'
    """
    return [
        case
        for port in ports or PORTS
        for case in cases_of(port, _MODULES[port])
        if case.is_for(capabilities)
    ]
