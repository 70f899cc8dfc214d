"""The crash laboratory's checker finds every kind of problem; a checker that finds nothing proves nothing."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pabal import InMemoryEventBus, SqliteEventStorage
from tests.crash.check import Findings, check_acked, check_deliveries, check_watermark, read_log
from tests.crash.events import Step
from tests.crash.record import ACKED, BEGUN, DONE, FAILED, SAVED, SAVING, STARTED, Line

STEPS = [("a", 0), ("b", 0), ("a", 1), ("b", 1), ("a", 2), ("b", 2)]
Lines = list[Line]


@pytest.fixture
async def correct_log(tmp_path: Path) -> tuple[Path, Lines]:
    """A correct log of six steps that a consumer has handled, and its record."""
    path = tmp_path / "log.db"
    events = [Step(key, number) for key, number in STEPS]

    async def handle(event: Step) -> None: ...

    async with SqliteEventStorage(path, durability="normal") as storage, InMemoryEventBus(storage) as bus:
        bus.subscribe(Step, handle, name="consumer", start="beginning")
        await bus.publish_batch(events)
        await bus.drain(60)
    record = [Line(STARTED, ("1",))]
    for position, event in enumerate(events, start=1):
        record.append(Line(ACKED, (str(position), event.event_id, event.key, str(event.number))))
    for position, event in enumerate(events, start=1):
        fields = (str(position), event.key, str(event.number), "1")
        record += [Line(BEGUN, fields), Line(DONE, fields), Line(SAVING, ()), Line(SAVED, ())]
    return path, record


def check(path: Path, record: Lines) -> Findings:
    findings = Findings()
    stored = read_log(path, findings)
    check_acked(stored, record, findings)
    check_deliveries(stored, record, findings, complete=True)
    check_watermark(path, "consumer", stored, findings)
    return findings


def alter(path: Path, sql: str) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(sql)
    connection.close()


def handled(position: int, kinds: str = BEGUN + DONE, number: int | None = None) -> Lines:
    """Return the lines that an attempt records."""
    key, right = STEPS[position - 1]
    return [Line(kind, (str(position), key, str(right if number is None else number), "1")) for kind in kinds]


def without(record: Lines, position: int) -> Lines:
    """Return a record without the lines about handling a position."""
    return [line for line in record if line.kind not in (BEGUN, DONE) or line.fields[0] != str(position)]


def test_the_checker_finds_nothing_wrong_in_a_correct_log(correct_log: tuple[Path, Lines]) -> None:
    """Nobody would believe a checker that always reports problems."""
    findings = check(*correct_log)
    assert not findings.wrong, findings
    assert (findings.acked, findings.stored, findings.handled, findings.redelivered) == (6, 6, 6, 0)


def test_the_checker_counts_redeliveries_and_lost_acks_without_reporting_them(
    correct_log: tuple[Path, Lines],
) -> None:
    """A failed or unsaved attempt is made again, and an ack may be lost with its process: both are fine."""
    path, record = correct_log
    *before, _, _ = without(record, 6)  # the last save covered it
    before += [*handled(6, BEGUN + FAILED), *handled(6), *handled(6, BEGUN)]
    unacked = [line for line in before if line.kind != ACKED or line.fields[0] != "6"]
    findings = check(path, [*unacked, Line(STARTED, ("2",)), *handled(6)])
    assert not findings.wrong, findings
    assert (findings.redelivered, findings.unacked) == (1, 1)


RENUMBERED = """
    UPDATE events SET payload = CAST(replace(CAST(payload AS TEXT), '"number":1', '"number":{}') AS BLOB)
    WHERE position = 3
"""
ALTERED_LOGS = {
    "lost": "DELETE FROM events WHERE position = 6",
    "hole": "DELETE FROM events WHERE position = 3",
    "non-monotonic": RENUMBERED.format(9),
    "duplicate": RENUMBERED.format(0),
    "corrupt": "UPDATE events SET event_id = x'00' WHERE position = 2",
    "altered": "UPDATE events SET aggregate_id = 'c' WHERE position = 4",
    "phantom": "DELETE FROM events WHERE position = 6",
    "skipped": "UPDATE subscriptions SET watermark = 7, frontier = 7",
}


@pytest.mark.parametrize("word", ALTERED_LOGS)
def test_the_checker_finds_each_kind_of_damage_to_a_log(
    correct_log: tuple[Path, Lines], tmp_path: Path, word: str
) -> None:
    """Otherwise every round with a loss would pass."""
    path, record = correct_log
    copy = Path(shutil.copy(path, tmp_path / "copy.db"))
    alter(copy, ALTERED_LOGS[word])
    assert check(copy, record).wrong[word] >= 1


ALTERED_RECORDS: dict[str, Callable[[Lines], Lines]] = {
    "unseen": lambda record: without(record, 5),
    "out of order": lambda record: [*without(record, 3), *handled(3)],
    "duplicate": lambda record: [*record, Line(STARTED, ("2",)), *handled(2)],
    "concurrent on one key": lambda record: [
        *without(without(record, 5), 6),
        *handled(5, BEGUN),
        *handled(5),
        *handled(6),
    ],
    "altered": lambda record: [*without(record, 6), *handled(6, number=7)],
    "lost": lambda record: [*record, Line(ACKED, ("7", "0" * 32, "a", "3"))],
}


@pytest.mark.parametrize("word", ALTERED_RECORDS)
def test_the_checker_finds_each_kind_of_wrong_delivery(correct_log: tuple[Path, Lines], word: str) -> None:
    """Otherwise events handled never, twice or out of order would pass."""
    path, record = correct_log
    wrong: Any = check(path, ALTERED_RECORDS[word](record)).wrong
    assert wrong == {word: 1}
