"""Run the benchmarks: ``python -m benchmarks [scenario …] [--quick] [--runs N]``."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from benchmarks import machine, report
from benchmarks.goals import judge
from benchmarks.harness import ROOT, Settings, say
from benchmarks.model import Outcome
from benchmarks.report import Measured, Report
from benchmarks.scenarios import (
    catch_up,
    commands,
    durable,
    growth,
    importing,
    in_memory,
    isolation,
    latency,
    memory,
    processes,
    recovery,
    redis_streams,
    retention,
    sourcing,
    specification,
)

SCENARIOS: dict[str, Callable[[Settings], Outcome]] = {
    in_memory.NAME: in_memory.measure,
    in_memory.BATCH_NAME: in_memory.measure_batches,
    latency.NAME: latency.measure,
    isolation.NAME: isolation.measure,
    durable.NAME: durable.measure,
    durable.BATCH_NAME: durable.measure_batches,
    catch_up.NAME: catch_up.measure,
    growth.NAME: growth.measure,
    recovery.NAME: recovery.measure,
    retention.NAME: retention.measure,
    processes.NAME: processes.measure,
    sourcing.NAME: sourcing.measure,
    redis_streams.NAME: redis_streams.measure,
    memory.NAME: memory.measure,
    commands.NAME: commands.measure,
    importing.NAME: importing.measure,
    specification.NAME: specification.measure,
}
FULL_ONLY = {growth.NAME, redis_streams.NAME}
DOCS = ROOT / "docs"
DATA = ROOT / "build" / "benchmarks"
QUICK = DATA / "quick"


def arguments() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure pabal beside its peers. "
        "The whole suite writes docs/benchmarks.md, docs/benchmarks.json and "
        "docs/benchmarks/*.svg; --quick writes the same below build/benchmarks/quick; single scenarios "
        "only print, unless --save is given: then they take their place in the report.",
    )
    parser.add_argument("scenario", nargs="*", help="scenarios to run (default: all)")
    parser.add_argument(
        "--only", action="append", default=[], metavar="SCENARIO", help="the same, as an option"
    )
    parser.add_argument(
        "--quick", action="store_true", help="small sizes: under three minutes, an indication only"
    )
    parser.add_argument("--runs", type=int, help="rounds that count (default: 5, or 3 with --quick)")
    parser.add_argument("--rival", action="append", default=[], help="only these rivals (repeatable)")
    parser.add_argument("--save", action="store_true", help="write the report though not all scenarios run")
    parser.add_argument("--out", type=Path, help="folder for the report")
    parser.add_argument("--data", type=Path, default=DATA, help="folder on the disk to measure")
    parser.add_argument("--list", action="store_true", help="list the scenarios")
    return parser


def main(words: Sequence[str] | None = None) -> int:
    """Measure, print, and write the report if asked to; return the exit code."""
    parser = arguments()
    options = parser.parse_args(words)
    if options.list:
        print("\n".join(SCENARIOS))
        return 0
    chosen = [*options.scenario, *options.only]
    unknown = [name for name in chosen if name not in SCENARIOS]
    if unknown:
        parser.error(f"no such scenario: {', '.join(unknown)}; known are {', '.join(SCENARIOS)}")
    if options.runs is None:
        options.runs = 3 if options.quick else 5
    if options.runs < 1:
        parser.error("--runs must be at least 1")
    if not chosen:
        chosen = [name for name in SCENARIOS if not (options.quick and name in FULL_ONLY)]
    settings = Settings(options.runs, options.quick, options.data, tuple(options.rival))
    measured = [_measure(name, settings) for name in SCENARIOS if name in chosen]
    if options.save or options.out or not (options.scenario or options.only):
        folder = options.out or (QUICK if options.quick else DOCS)
        merged = report.merge(report.load(folder), measured, list(SCENARIOS))
        report.write(merged, folder)
        _write_goals(merged, folder)
        print(report.goals_table(judge(merged.outcomes())))
        say(f"written: {folder / report.MARKDOWN}")
    failures = [one for m in measured for one in m.outcome.series if one.note.startswith("failed:")]
    return 1 if failures else 0


def _write_goals(new: Report, folder: Path) -> None:
    """Write the goals into the pages. A Korean page that was up to date is then marked as such again."""
    translations = [sys.executable, str(DOCS / "translations.py")]
    lagging = subprocess.run(translations, capture_output=True, text=True, check=False).stdout
    for page in report.write_goals(new, folder):
        if page.parent == DOCS and page.name.endswith(".ko.md") and page.name not in lagging:
            subprocess.run([*translations, "accept", str(page)], check=True)


def _measure(name: str, settings: Settings) -> Measured:
    say(f"{name} …")
    environment = machine.describe(settings.data)
    start = time.monotonic()
    outcome = msgspec.structs.replace(SCENARIOS[name](settings), quick=settings.quick)
    say(f"{name}: {time.monotonic() - start:.0f} s")
    print(f"## {outcome.title}\n")
    for table in outcome.tables:
        print(report.figures_table(outcome, table))
    print(environment.line, end="\n\n", flush=True)
    return Measured(outcome, environment)


if __name__ == "__main__":
    sys.exit(main())
