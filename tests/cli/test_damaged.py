"""A damaged log: what is reported of it, with control characters escaped."""

from __future__ import annotations

import asyncio
import json
import signal
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from pabal import SqliteEventStorage
from pabal.errors import StorageUnavailableError
from pabal.storage.sqlite.retention import Trimmed
from tests.cli.conftest import Pabal, rewrite
from tests.cli.english import english_in

RED = "\x1b[31mred"
ESCAPED = r"\x1b[31mred"


def alter(file: Path, *statements: str) -> None:
    """Change the file as no bus would."""
    with closing(sqlite3.connect(file)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


@pytest.fixture
def damaged(file: Path) -> Path:
    """A file in which the payload of an event and a stream's index were changed."""
    alter(
        file,
        "UPDATE events SET payload = x'7b7d' WHERE position = 2",
        f"UPDATE streams SET aggregate_id = '{RED}' WHERE aggregate_id = 'o-0'",
    )
    return file


def test_check_reports_every_kind_of_damage(pabal: Pabal, damaged: Path) -> None:
    """A backup would be deleted because the check reported the damaged log as healthy."""
    result = pabal("check", damaged)
    first, second, third = result.stdout.splitlines()
    assert result.exit_code == 1
    assert first.startswith(f"{damaged}: the log is damaged at position 2 (checksum mismatch)")
    assert second == f"the index of stream order/{ESCAPED} is wrong about version 1 at position 1"
    assert third == "the index of stream order/o-0 is wrong about version 1 at position 1"


def test_a_damaged_dead_letter_can_be_discarded_but_not_retried(pabal: Pabal, file: Path) -> None:
    """One that is damaged would keep all others from being listed, for ever."""
    alter(file, "UPDATE dead_letters SET payload = x'7b7d' WHERE id = 1")
    listed = pabal("dead-letters", "list", file)
    assert (listed.exit_code, "dead letter 1, of the event" in listed.stderr) == (3, True)
    assert pabal("dead-letters", "retry", file, 1).exit_code == 3
    dry = pabal("dead-letters", "discard", file, 1, "--dry-run")
    assert dry.stdout.startswith("Discard dead letter 1 (damaged) for good?")
    assert pabal("dead-letters", "discard", file, 1, "--yes").exit_code == 0
    (left,) = json.loads(pabal("dead-letters", "list", file, "--json").stdout)["dead_letters"]
    assert left["id"] == 2
    assert pabal("check", file).exit_code == 0


@pytest.mark.parametrize("form", ["json", "cloudevents"])
def test_an_export_reports_damaged_events_and_goes_on_behind_them(
    pabal: Pabal, file: Path, form: str
) -> None:
    """One damaged byte would keep back every event of the log, although all others are intact."""
    alter(file, "UPDATE events SET payload = x'7b7d' WHERE position IN (2, 3, 8)")
    every = pabal("events", "export", file, "--format", form)
    assert every.exit_code == 3
    assert len(every.stdout.splitlines()) == 5
    *named, last = every.stderr.splitlines()
    assert [line.partition(" at position ")[2][:3] for line in named] == ["2 (", "3 (", "8 ("]
    assert last == "pabal: 3 damaged events left out"
    some = pabal("events", "export", file, "--limit", 3)
    assert [json.loads(line)["position"] for line in some.stdout.splitlines()] == [1, 4, 5]
    assert some.stderr.splitlines()[-1] == "pabal: 2 damaged events left out"
    korean = pabal("--lang", "ko", "events", "export", file)
    assert english_in(korean.stderr) == []


def test_an_export_ends_at_damage_that_it_cannot_pass_over(pabal: Pabal, file: Path) -> None:
    """It would report the same damage for ever."""
    alter(file, "UPDATE events SET payload = x'7b7d' WHERE position = 1")
    filtered = pabal("events", "export", file, "--aggregate", "order/")
    assert (filtered.exit_code, filtered.stdout) == (3, "")
    assert "at position 1 (" in filtered.stderr


def test_check_reports_damage_in_korean(pabal: Pabal, damaged: Path) -> None:
    """When something is broken, the report would be in a foreign language."""
    result = pabal("--lang", "ko", "check", damaged)
    assert (result.exit_code, english_in(result.output)) == (1, [])
    first, _, third = result.stdout.splitlines()
    assert first.startswith(f"{damaged}: 로그의 위치 2가 손상되었습니다(체크섬 불일치)")
    assert third == "스트림 order/o-0의 인덱스가 위치 1의 버전 1과 맞지 않습니다"


def test_check_json_output_stays_english_with_lang_ko(pabal: Pabal, damaged: Path) -> None:
    """A monitoring script would raise no alarm, or get output in a language it cannot parse."""
    result = pabal("--lang", "ko", "check", damaged, "--json")
    problems = json.loads(result.stdout)["problems"]
    assert result.exit_code == 1
    assert [problem.partition(" is wrong")[0] for problem in problems[1:]] == [
        f"the index of stream order/{RED}",
        "the index of stream order/o-0",
    ]


@pytest.mark.parametrize("lang", ["en", "ko"])
def test_doctor_escapes_control_characters(pabal: Pabal, damaged: Path, lang: str) -> None:
    """An id chosen by an attacker could hide what follows it from the operator who looks for damage."""
    result = pabal("--lang", lang, "doctor", damaged)
    assert (result.exit_code, "\x1b" in result.output, ESCAPED in result.output) == (2, False, True)


def test_a_confirmation_prompt_escapes_control_characters(pabal: Pabal, file: Path) -> None:
    """An event type from a foreign file could rewrite the question that the user answers with yes."""
    rewrite(file, "dead_letters", 1, event_type=f"shop.{RED}")
    result = pabal("dead-letters", "discard", file, 1, input="n\n")
    assert result.stderr.startswith(f"Discard dead letter 1 (shop.{ESCAPED}) for good? [y/N]: ")
    dry = pabal("dead-letters", "discard", file, 1, "--dry-run")
    assert dry.stdout == f"Discard dead letter 1 (shop.{ESCAPED}) for good?\nnothing was changed\n"


# -- failures are recorded --------------------------------------------------------------------------------


def results(pabal: Pabal, file: Path) -> list[tuple[str, bool | None, str]]:
    """Return the result of each recorded action, newest first."""
    entries = json.loads(pabal("audit", file, "--json").stdout)
    return [(entry["action"], entry["succeeded"], entry["result"]) for entry in entries]


def test_the_audit_log_records_a_failed_action(
    pabal: Pabal, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The audit log would say that a retention on a full disk never finished."""
    measure = SqliteEventStorage.trim

    async def trim(storage: SqliteEventStorage, *, dry_run: bool, **options: Any) -> Trimmed:
        if not dry_run:
            raise StorageUnavailableError(path=storage.path, reason="database or disk is full")
        return await measure(storage, dry_run=dry_run, **options)

    monkeypatch.setattr(SqliteEventStorage, "trim", trim)
    monkeypatch.chdir(file.parent)  # with a long path, the sentence would not fit into the table
    failed = pabal("retention", file.name, "--max-events", 2, "--yes")
    assert (failed.exit_code, "database or disk is full" in failed.stderr) == (3, True)
    ((action, succeeded, result),) = results(pabal, file)
    assert (action, succeeded) == ("retention", False)
    assert f"pabal: {result.removeprefix('StorageUnavailableError: ')}\n" == failed.stderr
    korean = pabal("--lang", "ko", "audit", file).stdout
    assert "StorageUnavailableError: " in korean
    assert "데이터베이스나 디스크가 가득 찼습니다" in " ".join(korean.split())
    assert json.loads(pabal("status", file, "--json").stdout)["totals"]["events"] == 8


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Have Ctrl-C handled even if the tests were started in the background of a shell."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_the_audit_log_records_an_interrupted_action(
    pabal: Pabal, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interrupted vacuum would look as if it were still running."""

    async def vacuum(storage: SqliteEventStorage) -> None:
        signal.raise_signal(signal.SIGINT)
        await asyncio.Event().wait()

    monkeypatch.setattr(SqliteEventStorage, "vacuum", vacuum)
    assert pabal("vacuum", file).exit_code == 130
    assert results(pabal, file) == [("vacuum", False, "CancelledError")]


def test_the_audit_log_shows_an_unfinished_action_as_not_finished(pabal: Pabal, file: Path) -> None:
    """An action of a killed process would look as if it had succeeded."""
    pabal("vacuum", file)
    alter(file, "UPDATE audit SET result = '', succeeded = NULL")
    assert "not finished" in pabal("audit", file).stdout
    assert "끝나지 않음" in pabal("--lang", "ko", "audit", file).stdout


def test_the_audit_log_records_an_action_of_a_user_without_a_name(
    pabal: Pabal, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a container whose user has no name, and on Windows, no action would be possible."""
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pabal.cli.base.os.getuid", lambda: 4_000_000)
    assert pabal("subscriptions", "pause", file, "pack").exit_code == 0
    monkeypatch.setitem(sys.modules, "pwd", None)
    monkeypatch.delattr("pabal.cli.base.os.getuid")
    assert pabal("subscriptions", "resume", file, "pack").exit_code == 0
    entries = json.loads(pabal("audit", file, "--json").stdout)
    assert [entry["actor"] for entry in entries] == ["unknown", "uid 4000000"]
