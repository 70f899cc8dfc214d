"""The guard notices growing costs per event, and reports when it could not measure."""

from __future__ import annotations

import pytest
from benchmarks import guard
from benchmarks.workloads import WORKLOADS

BASELINE = {"publish": 10_000.0, "publish_batch": 40_000.0, "encode_and_decode": 90_000.0, "gauge": 3_000.0}


def test_a_cost_within_the_tolerance_passes_and_one_above_fails(capsys: pytest.CaptureFixture[str]) -> None:
    """A guard that passes everything would be useless."""
    now = {**BASELINE, "publish": 10_900.0, "publish_batch": 44_500.0}

    code = guard.report(guard.compare(now, BASELINE), "callgrind")

    lines = capsys.readouterr().out.splitlines()
    assert code == 1
    assert [line.split()[-1] for line in lines[1:4]] == ["ok", "GREW", "ok"]


def test_growth_is_reported_only_when_a_second_count_confirms_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts scatter: one that is high by chance must not stop a release, and real growth must not pass."""
    by_chance, grown = {**BASELINE, "publish": 12_000.0}, {**BASELINE, "publish_batch": 60_000.0}
    monkeypatch.setattr(guard, "available_tool", lambda: "callgrind")
    monkeypatch.setattr(guard, "load", lambda: {guard.python_version(): {"callgrind": BASELINE}})

    for counts, code in ([by_chance, BASELINE], 0), ([grown, grown], 1):
        left = iter(counts)
        monkeypatch.setattr(guard, "count_all", lambda count, left=left: next(left))
        assert guard.main(["--require"]) == code


def test_another_build_of_python_does_not_count_as_growth() -> None:
    """A slower interpreter increases the cost of the gauge in the same proportion."""
    now = {workload: cost * 1.4 for workload, cost in BASELINE.items()}

    assert all(finding.passes for finding in guard.compare(now, BASELINE))


def test_a_missing_tool_is_reported_and_fails_only_when_it_is_required(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A guard that skips silently would be mistaken for one that passed."""
    monkeypatch.setattr(guard, "available_tool", lambda: None)

    assert guard.main([]) == 0
    assert guard.main(["--require"]) == 2
    assert capsys.readouterr().out.count("NOTHING WAS CHECKED") == 2


def test_a_python_version_without_a_baseline_is_reported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Comparing with the baseline of another Python would measure Python itself."""
    monkeypatch.setattr(guard, "available_tool", lambda: "callgrind")
    monkeypatch.setattr(guard, "count_all", lambda count: dict(BASELINE))
    monkeypatch.setattr(guard, "python_version", lambda: "9.9")

    assert guard.main(["--require"]) == 2
    assert "no baseline for Python 9.9" in capsys.readouterr().out


@pytest.mark.parametrize("name", WORKLOADS)
async def test_every_workload_completes_its_work(name: str) -> None:
    """A workload that does nothing costs nothing, and would never grow."""
    await WORKLOADS[name].run(200)


def test_the_committed_baseline_covers_every_workload() -> None:
    """A workload without a baseline would not be compared."""
    baseline = guard.load()

    assert baseline
    for tools in baseline.values():
        for costs in tools.values():
            assert set(costs) == set(WORKLOADS)
