"""``pabal doctor``: what it checks, what it says, and its exit status."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pabal import DomainEvent, InMemoryEventBus, SqliteEventStorage
from pabal.operations.doctor import check_sqlite, check_subscriptions, examine, has_wal_reset_bug
from pabal.ports.inspection import LogFigures
from pabal.ports.storage import SubscriptionRecord
from pabal.storage.sqlite.transaction import Transaction
from tests import warm

TEN = LogFigures(first=1, head=10, scheduled=0, size_bytes=None)


class ScaleRead(DomainEvent):
    """An event to store."""

    grams: int


def record(**changes: object) -> SubscriptionRecord:
    """Return the record of a healthy subscription, with ``changes``."""
    fields: dict[str, object] = {
        "name": "scale",
        "watermark": 10,
        "frontier": 10,
        "unfinished": 0,
        "retries": 0,
        "parked": 0,
        "queued": 0,
        "owner": None,
        "epoch": 1,
        "updated_at": datetime(2026, 1, 1, tzinfo=UTC),
    }
    return SubscriptionRecord(**{**fields, **changes})  # type: ignore[arg-type]


def run(path: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a user would."""
    return warm.run(
        "pabal", "doctor", str(path), *options, warm=warm.COMMANDS, cwd=Path.cwd(), env=os.environ, timeout=60
    )


async def write_log(path: Path, *, fails: bool = False) -> None:
    """Write a small log with one subscription, and a dead letter if asked for."""

    async def handle(event: ScaleRead) -> None:
        if fails:
            raise ValueError("too heavy")

    async with SqliteEventStorage(path) as storage, InMemoryEventBus(storage) as bus:
        bus.subscribe(ScaleRead, handle, name="scale", retry_count=0)
        await bus.publish_batch([ScaleRead(n) for n in range(3)])


@pytest.mark.parametrize(
    ("version", "affected"),
    [
        ((3, 6, 23), False),
        ((3, 7, 0), True),
        ((3, 44, 5), True),
        ((3, 44, 6), False),
        ((3, 45, 0), True),
        ((3, 50, 6), True),
        ((3, 50, 7), False),
        ((3, 51, 2), True),
        ((3, 51, 3), False),
        ((3, 52, 0), False),
    ],
)
def test_sqlite_versions_with_the_wal_reset_bug_get_a_warning(
    version: tuple[int, int, int], affected: bool
) -> None:
    """A false 'ok' would let several processes share a file that SQLite itself may damage."""
    assert has_wal_reset_bug(version) is affected
    assert check_sqlite(version)[0].level == ("warning" if affected else "ok")


def test_dead_letters_and_abandoned_subscriptions_are_warnings() -> None:
    """The operator on call would not learn that events are waiting."""
    now = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=30)
    parked, abandoned, idle, busy = check_subscriptions(
        [record(parked=2), record(frontier=5), record(), record(frontier=5, owner="worker-1")], TEN, now
    )
    assert (parked.level, abandoned.level, idle.level, busy.level) == ("warning", "warning", "ok", "ok")
    assert "2 dead letters" in parked.text
    assert "30 days" in abandoned.text
    assert "lag 5" in busy.text


def test_a_count_of_one_is_followed_by_a_singular_noun() -> None:
    """An operator would read "1 dead letters" in a diagnosis."""
    [finding] = check_subscriptions([record(parked=1, queued=1, retries=1)], TEN, datetime.now(UTC))
    assert finding.text.endswith(
        "1 retry, 1 dead letter, 1 event queued behind a dead letter of the same key"
    )


def test_a_halted_subscription_is_a_problem_even_with_dead_letters() -> None:
    """A halted log would be called healthy, or only its dead letters be mentioned."""
    why = "halted at event 1 at position 4: failed 1 of 1 attempts"
    [halted] = check_subscriptions([record(parked=2, halted=why)], TEN, datetime(2026, 1, 1, tzinfo=UTC))
    assert (halted.level, halted.text) == ("problem", f"subscription 'scale' {why}")


async def test_a_healthy_log_has_no_problems(tmp_path: Path) -> None:
    """A doctor that always finds something would soon be ignored."""
    await write_log(tmp_path / "log.db")
    async with SqliteEventStorage(tmp_path / "log.db") as storage:
        diagnosis = await examine(tmp_path / "log.db", storage)
    assert [f.text for f in diagnosis.findings if f.level == "problem"] == []
    assert any("3 positions" in f.text for f in diagnosis.findings)
    assert any("all checksums" in f.text for f in diagnosis.findings)


@pytest.mark.parametrize(
    ("durability", "expected"), [("full", "is on disk"), ("normal", "may lose the newest")]
)
async def test_the_doctor_reports_the_durability_of_the_last_write(
    tmp_path: Path, durability: Any, expected: str
) -> None:
    """No operator would know that an application runs without syncing until a power failure."""
    path = tmp_path / "log.db"

    async def durability_findings() -> list[str]:
        async with SqliteEventStorage(path) as storage:
            found = [finding.text for finding in (await examine(path, storage)).findings]
        return [text for text in found if text.startswith("durability")]

    assert await durability_findings() == []

    def fail(tx: Transaction) -> None:
        tx.store_event(ScaleRead(-1))
        raise ValueError("nothing is stored")

    modes: list[Any] = ["normal", "full", durability]
    for number, mode in enumerate(modes):
        async with SqliteEventStorage(path, mode) as storage:
            with pytest.raises(ValueError, match="nothing"):
                await storage.transact(fail)
            assert await storage.noted_durability() == ([None, *modes][number])
            await storage.store_event(ScaleRead(number))
            assert await storage.noted_durability() == mode
    # Neither checking nor opening it in the stronger mode counts as writing.
    for _ in range(2):
        (text,) = await durability_findings()
        assert expected in text


async def test_the_doctor_exits_with_status_one_for_dead_letters(tmp_path: Path) -> None:
    """Scripts rely on the exit status, people on the advice."""
    await write_log(tmp_path / "log.db", fails=True)
    result = run(tmp_path / "log.db")
    assert result.returncode == 1, result.stderr
    assert "3 dead letters" in result.stdout
    assert "retry or discard" in result.stdout
    report = json.loads(run(tmp_path / "log.db", "--json").stdout)
    assert report["level"] == "warning"


async def test_the_doctor_names_the_position_of_an_altered_event_and_exits_with_two(tmp_path: Path) -> None:
    """An altered event that is not reported would be found only when it is needed."""
    path = tmp_path / "log.db"
    await write_log(path)
    connection = sqlite3.connect(path)
    connection.execute("UPDATE events SET payload = ? WHERE position = 2", (b'{"grams":7000}',))
    connection.commit()
    connection.close()
    result = run(path)
    assert result.returncode == 2
    assert "position 2" in result.stdout


def test_the_doctor_rejects_a_file_that_is_not_a_log_without_a_traceback(tmp_path: Path) -> None:
    """A traceback would not say what to do."""
    notes = tmp_path / "notes.txt"
    notes.write_text("these are notes, no log" * 10)
    result = run(notes)
    assert result.returncode == 2
    assert "is not a pabal database" in result.stderr
    assert "Traceback" not in result.stderr
    assert run(tmp_path / "missing.db").returncode != 0
    assert not (tmp_path / "missing.db").exists()
