"""Compare what processes recorded with what the database holds, in the terms of the promises."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tests.crash.record import ACKED, BEGUN, DONE, FAILED, SAVED, SAVING, STARTED, Line


@dataclass
class Findings:
    """What was checked, and what was found wrong; ``wrong`` is empty if every promise was kept."""

    acked: int = 0
    stored: int = 0
    unacked: int = 0
    """Events stored although the process died before their publisher got the ack: allowed."""
    handled: int = 0
    redelivered: int = 0
    """Events handled again because the process died before saving that they were handled: allowed."""
    wrong: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)

    def add(self, word: str, what: str) -> None:
        self.wrong[word] += 1
        if self.wrong[word] <= 5:
            self.examples.append(f"{word}: {what}")

    def __str__(self) -> str:
        return "\n".join([f"{dict(self.wrong) or 'nothing wrong'}", *self.examples])


Stored = dict[int, tuple[str, str, int]]
"""Event id, key and number by position."""


def read_log(path: Path, findings: Findings, *, full: bool = True) -> Stored:
    """Read the database with sqlite3 alone, not with pabal; check its structure and positions."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        pragma = "integrity_check" if full else "quick_check"
        for (text,) in connection.execute(f"PRAGMA {pragma}"):
            if text != "ok":
                findings.add("corrupt", text)
        rows = connection.execute(
            "SELECT position, lower(hex(event_id)), aggregate_id, payload ->> 'number' FROM events ORDER BY 1"
        ).fetchall()
    finally:
        connection.close()
    stored: Stored = {}
    for expected, (position, event_id, key, number) in enumerate(rows, start=1):
        if position != expected:
            findings.add("hole", f"position {position} where {expected} should be")
            break
        stored[position] = (event_id, key, int(number))
    for position, (event_id, *_) in stored.items():
        if len(event_id) != 32:
            findings.add("corrupt", f"event id {event_id!r} at {position}")
    ids = Counter(event_id for event_id, _, _ in stored.values())
    steps = Counter((key, number) for _, key, number in stored.values())
    for name, times in (*ids.items(), *steps.items()):
        if times > 1:
            findings.add("duplicate", f"{name} is stored {times} times")
    _check_order(stored, findings)
    findings.stored = len(stored)
    return stored


def _check_order(stored: Stored, findings: Findings) -> None:
    last: dict[str, int] = {}
    for position, (_, key, number) in stored.items():
        if number <= last.get(key, -1):
            findings.add("non-monotonic", f"{key} {number} at {position} after {last[key]}")
        last[key] = number


def check_acked(stored: Stored, record: Iterable[Line], findings: Findings) -> None:
    """Check that every acked event is stored, at the position its publisher got. Promise 1."""
    acked: set[int] = set()
    for line in record:
        if line.kind != ACKED:
            continue
        position, event_id, key, number = line.fields
        acked.add(int(position))
        expected = (event_id.replace("-", ""), key, int(number))
        if stored.get(int(position)) != expected:
            findings.add("lost", f"{line.fields}, the log has {stored.get(int(position))} there")
    findings.acked = len(acked)
    findings.unacked = len(stored) - len(acked)


def check_deliveries(stored: Stored, record: Iterable[Line], findings: Findings, *, complete: bool) -> None:
    """Check that all events were handled, in order per key, and again only if not saved. Promise 4.

    With ``complete``, the last process has drained the bus, so no event may be left.
    """
    done: dict[int, int] = {}
    first_done: dict[str, int] = {}
    running: dict[str, int] = {}
    finished: set[int] = set()
    covered: set[int] = set()
    safe: set[int] = set()
    for line in record:
        if line.kind == STARTED:
            # The last process died with what it had not saved.
            running.clear()
            finished, covered = set(), set()
        elif line.kind == SAVING:
            covered = set(finished)
        elif line.kind == SAVED:
            safe |= covered
            finished -= covered
        if line.kind not in (BEGUN, DONE, FAILED):
            continue
        position, key, number = int(line.fields[0]), line.fields[1], int(line.fields[2])
        if line.kind == BEGUN:
            if key in running:
                findings.add("concurrent on one key", f"{key} {number} while {running[key]}")
            running[key] = number
            if position in safe:
                findings.add("duplicate", f"{key} {number} at {position} again, though saved as finished")
            if position not in done and number < first_done.get(key, -1):
                findings.add("out of order", f"{key} {number} after {first_done[key]}")
            continue
        running.pop(key, None)
        if line.kind == FAILED:
            continue
        if position in done:
            findings.redelivered += 1
        else:
            first_done[key] = number
        done[position] = done.get(position, 0) + 1
        finished.add(position)
        if position in stored and stored[position][1:] != (key, number):
            findings.add("altered", f"{key} {number} at {position}, the log has {stored[position]}")
    findings.handled = len(done)
    if complete:
        for position in stored.keys() - done.keys():
            findings.add("unseen", f"{stored[position]} at {position}")
    for position in done.keys() - stored.keys():
        findings.add("phantom", f"position {position} was handled and is not in the log")


def check_watermark(path: Path, name: str, stored: Stored, findings: Findings) -> None:
    """Check that after a drain the cursor has everything finished, with nothing skipped or pending."""
    connection = sqlite3.connect(path)
    try:
        watermark, frontier, unfinished = connection.execute(
            "SELECT watermark, frontier, unfinished FROM subscriptions WHERE name = ?", (name,)
        ).fetchone()
        retries = connection.execute("SELECT count(*) FROM retries").fetchone()[0]
    finally:
        connection.close()
    if (watermark, frontier, unfinished, retries) != (len(stored), len(stored), None, 0):
        findings.add(
            "skipped", f"watermark {watermark}, frontier {frontier} of {len(stored)}, {retries} retries"
        )
