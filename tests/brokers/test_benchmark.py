"""The benchmark on a server counts handled events, for every rival."""

from __future__ import annotations

import pytest
from benchmarks.__main__ import SCENARIOS
from benchmarks.harness import IncompleteError, Settings
from benchmarks.scenarios import redis_streams

from tests.brokers.server import valkey_binary


@pytest.mark.parametrize("rival", ["pabal", "raw"])
def test_the_benchmark_measures_a_rate_for_each_rival(rival: str) -> None:
    """Otherwise work that was not done would give a good figure."""
    assert redis_streams.end_to_end(rival, 500)[redis_streams.RATE] > 0


def test_a_role_that_does_not_start_raises_incomplete_error() -> None:
    """Otherwise a broken rival would hang the whole suite."""
    role = redis_streams.RoleProcess("nobody", "redis://127.0.0.1:1/0", 1)
    with pytest.raises(IncompleteError, match="did not start"):
        role.__enter__()
    assert role.process.returncode


def test_the_scenario_is_listed_and_notes_a_missing_server_or_package(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without a server or a package, the suite would fail, or print figures without rivals."""
    assert redis_streams.NAME in SCENARIOS
    assert redis_streams.server_binary() == valkey_binary()
    monkeypatch.setattr(redis_streams, "server_binary", lambda: None)
    outcome = redis_streams.measure(Settings(runs=1, quick=True))
    assert {series.measured for series in outcome.series} == {False}
    assert all(series.note.startswith("no server") for series in outcome.series)
    monkeypatch.setattr(redis_streams, "installed", lambda name: None)
    monkeypatch.setattr(redis_streams, "server_binary", valkey_binary)
    outcome = redis_streams.measure(Settings(runs=1, quick=True, rivals=(redis_streams.FASTSTREAM,)))
    assert [series.note for series in outcome.series] == ["not installed"]
