"""``python -m tests.crash --full``: run every crash test with its full count, and write a report."""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

from tests.crash.check import Findings
from tests.crash.crowd import measure_delay, share_a_file
from tests.crash.disk.build import build_disk
from tests.crash.laboratory import ROOT, Laboratory
from tests.crash.points import POINTS
from tests.crash.positions import PUBLISHERS, read_while_publishing
from tests.crash.power import PowerCuts, PowerReport, run_on_simulated_disk
from tests.crash.report import FUZZED, WORDS, Report, section_in
from tests.crash.snapshot import hold_a_snapshot
from tests.crash.stopping import AT_ONCE, IN_FLIGHT, start_and_stop, stop_in_flight

MODES = ("full", "normal")


class Counts:
    """How often or how long each test runs."""

    def __init__(self, *, full: bool) -> None:
        self.rounds = 200 if full else 10
        self.acked = 100_000 if full else 1_000
        self.point_rounds = 8 if full else 1
        self.power_acks = 1_500 if full else 200
        self.shared_seconds = 60.0 if full else 3.0
        self.delay_seconds = 20.0 if full else 3.0
        self.snapshot_seconds = 60.0 if full else 3.0
        self.positions = 1_000_000 if full else 5_000
        self.cycles = 1_000 if full else 25
        self.budget = 5.0 if full else 0.5


async def kill_publishers(folder: Path, mode: str, counts: Counts) -> tuple[Laboratory, Findings]:
    """Promise 1: kill publishers at random instants, until enough rounds are run and events acked."""
    laboratory = Laboratory(folder, mode, seed=11, publishers=16, consume=False)
    within = 0.25 if mode == "full" else 0.1
    acked = 0
    while laboratory.rounds < counts.rounds or acked < counts.acked:
        await laboratory.kill_at_random(within)
        if laboratory.rounds % 25 == 0:
            findings = await asyncio.to_thread(laboratory.check_acks)
            acked = findings.acked
            print(f"{mode}: {laboratory.rounds} rounds, {acked} acked", file=sys.stderr, flush=True)
            if findings.wrong:
                break
    return laboratory, await asyncio.to_thread(laboratory.check_all)


async def kill_consumers(folder: Path, mode: str, counts: Counts) -> tuple[Laboratory, Findings]:
    """Promises 4 and 5: kill publishers with handlers, at random instants and at every named point."""
    folder = folder / "consumers"
    folder.mkdir(exist_ok=True)
    laboratory = Laboratory(folder, mode, seed=12)
    for _ in range(counts.point_rounds):
        for point in POINTS:
            await laboratory.kill_at_point(point, nth=laboratory.chance.randrange(1, 40))
            await laboratory.kill_at_random(within=0.3)
    await laboratory.finish()
    return laboratory, await asyncio.to_thread(laboratory.check_all)


async def cut_power(library: Path, folder: Path, mode: str, counts: Counts) -> PowerReport:
    """Promise 3: cut the power after each ack, and at instants in between."""
    folder = folder / f"power-{mode}"
    folder.mkdir()
    log, database = await run_on_simulated_disk(library, folder, mode, counts.power_acks)
    return await PowerCuts(folder, log, database, mode).all(between=0.05, torn=0.25, open_every=20)


async def run(counts: Counts, folder: Path) -> Report:
    report = Report()
    library = build_disk(folder)
    columns = ("durability", "rounds", "kills", "acked", "stored", *WORDS[:5])
    results = await asyncio.gather(*(kill_publishers(folder, mode, counts) for mode in MODES))
    report.section(
        "Publishers killed at random instants", "Promise 1: 16 tasks publish until the process dies."
    )
    report.table(
        columns,
        [
            [mode, lab.rounds, lab.kills, found.acked, found.stored, *report.add_findings(mode, found)[:5]]
            for mode, (lab, found) in zip(MODES, results, strict=True)
        ],
    )
    results = await asyncio.gather(*(kill_consumers(folder, mode, counts) for mode in MODES))
    report.section(
        "Handlers killed at random and at named instants",
        f"Promises 4 and 5: one handler in twenty fails and is retried. The instants: {', '.join(POINTS)}. "
        "*Again* counts what was handled once more because the process died before that was saved.",
    )
    report.table(
        ("durability", "kills", "acked", "handled", "again", *WORDS),
        [
            [
                mode,
                lab.kills,
                found.acked,
                found.handled,
                found.redelivered,
                *report.add_findings(mode, found),
            ]
            for mode, (lab, found) in zip(MODES, results, strict=True)
        ],
    )
    powers = await asyncio.gather(*(cut_power(library, folder, mode, counts) for mode in MODES))
    report.section(
        "Power cuts on a simulated disk",
        "Promise 3: after each ack, and at instants in between, what was not synced is dropped; *torn* are "
        "those looked at once more with a random part of the unsynced sectors in place. *Most lost* is how "
        "many acked events the worst cut cost: none under `full`, a suffix of the log under `normal`.",
    )
    report.table(
        ("durability", "acked", "cuts", "torn", "opened by pabal", "most lost", *WORDS[:5]),
        [
            [
                p.durability,
                p.acked,
                p.cuts,
                p.torn,
                p.opened,
                p.most_lost,
                *report.add_findings("power", p.findings)[:5],
            ]
            for p in powers
        ],
    )
    await _share_file(report, folder, counts)
    await _hold_snapshot(report, folder, counts)
    await _read_along(report, folder, counts)
    await _stop(report, folder, counts)
    return report


async def _share_file(report: Report, folder: Path, counts: Counts) -> None:
    accounts, wrong = await share_a_file(folder / "shared.db", 8, counts.shared_seconds)
    longest = max(account.longest_wait for account in accounts)
    if longest > 2.0:
        wrong.append(f"a publisher waited {longest:.2f} s")
    for what in wrong:
        report.add_failure(f"shared file: {what}")
    published = sum(account.published for account in accounts)
    report.section(
        "Eight processes publishing into one file",
        f"Promise 36, for {counts.shared_seconds:.0f} s: {published:,} events published, "
        f"{len(wrong)} errors, the longest wait {longest:.2f} s; "
        f"{sum(bool(a.handled) for a in accounts)} of the processes held the subscription, one at a time.",
    )
    delays = await measure_delay(folder / "delay.db", counts.delay_seconds)
    middle, late = delays[len(delays) // 2], delays[int(len(delays) * 0.99)]
    report.section(
        "From a publish in one process to the handler in another",
        f"Promise 39: {len(delays):,} events, 50 per second: "
        f"p50 {middle * 1000:.1f} ms, p99 {late * 1000:.1f} ms. The promise is 5 ms and 15 ms on a machine "
        "that does nothing else; a higher figure does not fail the run; it means that the machine was "
        "busy or slow.",
    )


async def _hold_snapshot(report: Report, folder: Path, counts: Counts) -> None:
    held = await hold_a_snapshot(folder / "snapshot.db", counts.snapshot_seconds)
    if held.truncated_after is None:
        report.add_failure("the write-ahead log was not truncated within a minute of the reader's end")
    after = "not within 60 s" if held.truncated_after is None else f"{held.truncated_after:.1f} s later"
    report.section(
        "A reader that holds a snapshot",
        f"Promise 35, for {counts.snapshot_seconds:.0f} s under load, `full`: {held.published:,} events were "
        f"published meanwhile, the longest wait {held.longest_wait:.2f} s. The write-ahead log had grown to "
        f"{held.largest >> 20:,} MiB when the reader let go, and was below 64 MiB {after}, with publishing "
        "going on.",
    )


async def _read_along(report: Report, folder: Path, counts: Counts) -> None:
    wrong = await read_while_publishing(folder / "positions.db", counts.positions)
    for what in wrong:
        report.add_failure(f"positions: {what}")
    report.section(
        "A reader that follows the log",
        f"Promise 15: {counts.positions:,} events by {PUBLISHERS} publishers, read meanwhile through another "
        f"connection: {len(wrong)} positions came out of order, twice or not at all.",
    )


async def _stop(report: Report, folder: Path, counts: Counts) -> None:
    (folder / "cycles").mkdir()
    acked, wrong = await start_and_stop(folder / "cycles" / "log.db", counts.cycles)
    report.section(
        "Starts and stops under traffic",
        f"Promise 7: {counts.cycles:,} times, a bus and its storage were opened, given {AT_ONCE} events at "
        f"once and stopped in the middle of them. Of {acked:,} acked events, and of the tasks, threads and "
        f"files of the process, {len(wrong)} were lost, handled twice or left over.",
    )
    stopped = await stop_in_flight(folder / "stop.db", counts.budget)
    late = stopped.seconds - counts.budget
    if late > 0.5:
        stopped.wrong.append(f"it took {late:.2f} s longer than its budget")
    for what in (*wrong, *stopped.wrong):
        report.add_failure(f"stop: {what}")
    report.section(
        "A stop in the middle of everything",
        f"Promise 8: {IN_FLIGHT:,} handlers under way, half of which never end, and a publisher at work. "
        f"With a budget of {counts.budget:g} s the stop returned after {stopped.seconds:.2f} s; "
        f"{stopped.finished} handlers had ended and were saved, {stopped.redelivered} deliveries came again "
        "after the next start.",
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description=__doc__)
    parser.add_argument("--full", action="store_true", help="the counts of the promises: about 15 minutes")
    parser.add_argument("--report", type=Path, help="where the report goes (docs/reliability.md with --full)")
    options = parser.parse_args()
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="pabal-crash-") as name:
        report = asyncio.run(run(Counts(full=options.full), Path(name)))
        text = report.text(Path(name), time.monotonic() - begun)
    target = options.report or (ROOT / "docs" / "reliability.md" if options.full else None)
    if target is not None:
        fuzzed = section_in(ROOT / "docs" / "reliability.md", FUZZED)
        target.write_text(f"{text}\n{fuzzed}\n" if fuzzed else text, "utf-8")
    print(f"{len(report.failures)} failures, {time.monotonic() - begun:.0f} s", file=sys.stderr)
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
