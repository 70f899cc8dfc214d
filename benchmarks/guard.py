"""Guard the cost of an event: count instructions, and compare with the committed baseline.

``python -m benchmarks.guard`` counts the instructions of three fixed workloads under ``valgrind
--tool=callgrind``, or by ``perf stat`` where valgrind is missing. Unlike a time, such a count is nearly the
same on a busy machine. It is taken with few and with many events; the difference is what the events cost,
without the start of Python. Because builds of Python differ, the cost is divided by that of a workload
without pabal (the gauge), and that quotient may grow by ``TOLERANCE``.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from typing import NamedTuple

from benchmarks.harness import ROOT
from benchmarks.workloads import WORKLOADS

TOLERANCE = 0.10
BASELINE = ROOT / "benchmarks" / "guard-baseline.json"
GAUGE = "gauge"
FEW = 1_000
_NO_TOOL = "guard: neither valgrind nor a usable `perf stat -e instructions` is here; NOTHING WAS CHECKED"

Count = Callable[[Sequence[str]], int]
Baseline = dict[str, dict[str, dict[str, float]]]
"""Python version → tool → workload → instructions per event."""


class CountError(Exception):
    """A workload, or the tool that counts, failed; the message is the end of its output."""


class Finding(NamedTuple):
    """Compare one workload with the baseline; figures are multiples of the gauge."""

    workload: str
    now: float
    before: float

    @property
    def growth(self) -> float:
        """Return the growth of the cost as a share; negative if it fell."""
        return self.now / self.before - 1

    @property
    def passes(self) -> bool:
        """Return whether the growth is within the tolerance."""
        return self.growth <= TOLERANCE


def by_callgrind(command: Sequence[str]) -> int:
    """Run a command under callgrind; return the instructions it executed."""
    with tempfile.TemporaryDirectory() as folder:
        output = _run(["valgrind", "--tool=callgrind", f"--callgrind-out-file={folder}/out", *command])
    found = re.search(r"Collected\s*:\s*(\d+)", output)
    if found is None:
        raise CountError(f"callgrind said nothing of instructions: {output[-500:]}")
    return int(found[1])


def by_perf(command: Sequence[str]) -> int:
    """Run a command under perf; return the instructions it executed outside the kernel."""
    output = _run(["perf", "stat", "-x", ",", "-e", "instructions:u", *command])
    for line in output.splitlines():
        value, *rest = line.split(",")
        if any("instructions" in field for field in rest) and value.isdecimal():
            return int(value)
    raise CountError(f"perf counted nothing: {output.strip()[-500:]}")


def _run(command: Sequence[str]) -> str:
    """Run a command; return what it wrote to stderr. Raises CountError if it fails."""
    # A fixed hash seed gives dictionaries and sets the same layout in every run. Bytecode must be cached,
    # because compiling would be counted.
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CountError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return done.stderr


TOOLS: dict[str, Count] = {"callgrind": by_callgrind, "perf": by_perf}


def available_tool() -> str | None:
    """Return the tool that works here, preferring the steadier one, or None."""
    if shutil.which("valgrind"):
        return "callgrind"
    if shutil.which("perf"):
        try:
            by_perf([sys.executable, "-c", "pass"])
        except CountError:
            return None
        return "perf"
    return None


def instructions_per_event(workload: str, count: Count) -> float:
    """Return the instructions that one event costs in a workload."""
    most = WORKLOADS[workload].events
    few, many = (
        count([sys.executable, "-m", "benchmarks.workloads", workload, str(events)]) for events in (FEW, most)
    )
    return (many - few) / (most - FEW)


def count_all(count: Count) -> dict[str, float]:
    """Return what one event costs in every workload; run as many in parallel as there are cores."""
    # Run once first, to compile edited modules: compiling would be counted.
    _run([sys.executable, "-m", "benchmarks.workloads", GAUGE, str(FEW)])
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        costs = pool.map(lambda workload: instructions_per_event(workload, count), WORKLOADS)
        return {workload: round(cost, 1) for workload, cost in zip(WORKLOADS, costs, strict=True)}


def compare(now: Mapping[str, float], before: Mapping[str, float]) -> list[Finding]:
    """Compare every workload of the baseline, each divided by the gauge of its own run."""
    return [
        Finding(workload, now[workload] / now[GAUGE], cost / before[GAUGE])
        for workload, cost in before.items()
        if workload != GAUGE
    ]


def python_version() -> str:
    """Return the key of this Python's baseline."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def load() -> Baseline:
    """Return the committed baseline, or an empty one."""
    if not BASELINE.exists():
        return {}
    baseline: Baseline = json.loads(BASELINE.read_text("utf-8"))
    return baseline


def main(words: Sequence[str] | None = None) -> int:
    """Count and compare: 0 if the cost holds, 1 if it grew, 2 if nothing could be compared but had to be."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.guard", description=__doc__)
    parser.add_argument("--update", action="store_true", help="write the counts down as the new baseline")
    parser.add_argument("--require", action="store_true", help="fail where nothing can be compared (for CI)")
    options = parser.parse_args(words)
    tool = available_tool()
    if tool is None:
        print(_NO_TOOL)
        return 2 if options.require or options.update else 0
    version = python_version()
    try:
        return update(version, tool) if options.update else check(version, tool, options.require)
    except CountError as error:
        print(f"guard: {error}")
        return 2


def update(version: str, tool: str) -> int:
    """Write the medians of three counts as the new baseline; return the exit code."""
    counts = [count_all(TOOLS[tool]) for _ in range(3)]
    now = {workload: median(cost[workload] for cost in counts) for workload in WORKLOADS}
    baseline = load()
    baseline.setdefault(version, {})[tool] = now
    BASELINE.write_text(json.dumps(baseline, indent=2, sort_keys=True) + "\n", "utf-8")
    print(f"guard: new baseline for Python {version} by {tool}: {now}")
    return 0


def check(version: str, tool: str, required: bool) -> int:
    """Count and compare with the committed baseline; return the exit code."""
    before = load().get(version, {}).get(tool)
    if before is None:
        print(f"guard: no baseline for Python {version} by {tool}; NOTHING WAS CHECKED")
        return 2 if required else 0
    findings = compare(count_all(TOOLS[tool]), before)
    if not all(finding.passes for finding in findings):
        # Counts scatter by a few percent around their mean, so a workload fails only if it grew twice.
        findings = [min(pair) for pair in zip(findings, compare(count_all(TOOLS[tool]), before), strict=True)]
    return report(findings, tool)


def report(findings: Sequence[Finding], tool: str) -> int:
    """Print the result for every workload; return the exit code."""
    print(f"guard: instructions of an event by {tool}, Python {python_version()}, tolerance {TOLERANCE:.0%}")
    for finding in findings:
        print(
            f"  {finding.workload:20} {finding.now:6.2f} × gauge, "
            f"baseline {finding.before:6.2f}: {finding.growth:+.1%}  {'ok' if finding.passes else 'GREW'}"
        )
    if all(finding.passes for finding in findings):
        return 0
    print("guard: an event costs more than it did. If that is meant, `make guard ARGS=--update` and say why.")
    return 1


if __name__ == "__main__":
    sys.exit(main())
