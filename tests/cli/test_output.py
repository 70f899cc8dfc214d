"""What each command prints for people, in full; times, ids and positions are replaced by words."""

from __future__ import annotations

import json
import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.cli.conftest import Pabal, rewrite


def plain(text: str, file: Path) -> str:
    """Return an output without what differs from run to run."""
    text = text.replace(str(file), "FILE")
    text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "TIME", text)
    text = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "ID", text)
    return re.sub(r"position \d+", "position N", text)


@pytest.fixture
def first(pabal: Pabal, file: Path) -> str:
    """The id of the first event, an order that was packed."""
    return str(json.loads(pabal("events", "list", file, "--json").stdout)["events"][-1]["event_id"])


def test_events_show_prints_the_event_its_effects_and_its_deliveries(
    pabal: Pabal, file: Path, first: str
) -> None:
    """An operator would look for the cause of a failure in half an event."""
    shown = plain(pabal("events", "show", file, first).stdout, file)
    assert shown == (
        "shop.ordered ID\n"
        "position N  recorded TIME  order/o-0 v1\n"
        '{\n  "order_id": "o-0",\n  "quantity": 1,\n  "email": "•••"\n}\n'
        "caused shop.packed ID\n"
        "delivery pack: finished\n"
    )
    parked = json.loads(pabal("events", "list", file, "--aggregate", "o-1", "--json").stdout)["events"][0]
    shown = plain(pabal("events", "show", file, parked["event_id"]).stdout, file)
    assert shown.splitlines()[-3:] == [
        "delivery pack: parked  dead letter 1",
        "  1. TIME ValueError: •••",
        "  2. TIME ValueError: •••",
    ]


def test_an_event_without_type_of_aggregate_or_version_is_shown_without_them(
    pabal: Pabal, file: Path
) -> None:
    """An aggregate would be shown as one of the type None, at the version None."""
    rewrite(file, "events", 1, aggregate_type=None, stream_version=None)
    line = pabal("events", "list", file).stdout.splitlines()[-1]
    assert re.sub(r"^ +1  [\d-]+ [\d:]+  shop.ordered  (\S+)  +[0-9a-f-]{36}$", r"\1", line) == "o-0"


def test_dead_letters_show_prints_the_reason_the_payload_and_every_attempt(pabal: Pabal, file: Path) -> None:
    """An operator would have to guess whether a retry can succeed."""
    head = "1 pack: parked, failed 2 of 2 attempts\nshop.ordered ID  position N\n"
    masked = plain(pabal("dead-letters", "show", file, 1).stdout, file)
    assert masked == (
        head + '{\n  "order_id": "o-1",\n  "quantity": -1,\n  "email": "•••"\n}\n'
        "1. TIME ValueError: •••\n2. TIME ValueError: •••\n"
    )
    hint = "error messages and tracebacks are hidden: --payloads full shows them\n"
    assert pabal("dead-letters", "show", file, 1).stderr == hint
    assert pabal("dead-letters", "show", file, 1, "--payloads", "full").stderr == ""
    full = plain(pabal("dead-letters", "show", file, 1, "--payloads", "full").stdout, file)
    assert full.startswith(head)
    attempts = re.findall(
        r"^\d\. TIME ValueError: no such quantity for kim@example.com\n   Traceback", full, re.MULTILINE
    )
    assert len(attempts) == 2
    assert full.count('raise ValueError(f"no such quantity for {event.email}")\n') == 2


def test_dead_letters_are_listed_singly_and_in_groups(pabal: Pabal, file: Path) -> None:
    """An operator would see headings without rows, and believe that all is well."""
    listed = plain(pabal("dead-letters", "list", file).stdout, file).splitlines()
    assert [line.split() for line in listed[1:]] == [
        [number, "pack", "shop.ordered", "ValueError", "2", "TIME", "parked"] for number in ("1", "2")
    ]
    groups = plain(pabal("dead-letters", "list", file, "--groups").stdout, file).splitlines()
    assert [line.split() for line in groups[1:]] == [["2", "pack", "ValueError", "TIME", "TIME", "2"]]


def test_tail_prints_one_line_for_each_event(pabal: Pabal, file: Path) -> None:
    """Whoever watches would see nothing, or since a time only what comes."""
    newest = plain(pabal("tail", file, "--since", "1h", "--count", 1).stdout, file)
    assert newest == '1 TIME shop.ordered {"order_id":"o-0","quantity":1,"email":"•••"}\n'
    later = pabal("tail", file, "--since", "1h", "--after", 6, "--count", 2).stdout
    assert [line.split()[0] for line in later.splitlines()] == ["7", "8"]


def test_doctor_prints_every_finding_with_its_advice(pabal: Pabal, file: Path) -> None:
    """An operator would learn what is wrong, and not what to do."""
    path, *lines = plain(pabal("doctor", file).stdout, file).splitlines()
    assert path == "FILE"
    assert "ok      the log has 8 positions" in lines
    assert lines[-3:] == [
        "warning subscription 'pack': lag 0, 0 retries, 2 dead letters",
        "         → list them with pabal dead-letters list, fix the cause, then retry or discard them",
        "ok      structure and all checksums are correct",
    ]
    assert sum(line.startswith(" ") for line in lines) >= 2


def test_retention_asks_before_it_deletes(pabal: Pabal, file: Path) -> None:
    """A mistyped number would delete a year of events."""
    refused = pabal("retention", file, "--max-events", 2, input="n\n")
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert refused.stderr == "Delete the 6 oldest of 8 events? [y/N]: pabal: nothing was changed\n"
    assert json.loads(pabal("status", file, "--json").stdout)["totals"]["events"] == 8
    done = pabal("retention", file, "--max-events", 2, input="y\n")
    assert (done.exit_code, done.stdout) == (0, "6 events deleted\n")


def test_backup_and_vacuum_print_what_they_have_done(pabal: Pabal, file: Path) -> None:
    """A script's log would not tell how large the copy was, or whether space was gained."""
    copy = file.parent / "copy.db"
    assert pabal("backup", file, copy).stdout == f"{copy.stat().st_size:,} bytes in {copy}\n"
    assert re.fullmatch(r"[\d,]+ bytes given back\n", pabal("vacuum", file).stdout)


def test_status_of_a_failing_bus_exits_with_one(pabal: Pabal, file: Path) -> None:
    """A monitoring script would raise no alarm while a subscription has stopped."""
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("UPDATE subscriptions SET owner = 'web-1', lease_until = 4000000000000000")
        connection.execute("INSERT INTO halts SELECT name, epoch, 'halted for a test' FROM subscriptions")
    failing = pabal("status", file)
    assert failing.exit_code == 1
    head, halted, parked, events, rest = plain(failing.stdout, file).splitlines()
    assert (head, halted) == ("FILE: failing", "  subscription 'pack' halted for a test")
    assert parked == "  subscription 'pack' has dead letters (2); retry or discard them"
    assert events.startswith("8 events, 1 subscription, largest lag 0, ")
    assert rest == "0 retries, 2 dead letters, 0 queued behind them, 0 scheduled"
    machine = pabal("status", file, "--json")
    assert (machine.exit_code, json.loads(machine.stdout)["health"]) == (1, "failing")
    korean = pabal("--lang", "ko", "status", file).stdout
    assert "구독 'pack': 데드 레터 2개. 재시도하거나 폐기하세요" in korean


def test_status_names_dead_letters_of_a_forgotten_subscription(pabal: Pabal, file: Path) -> None:
    """It would say ok while dead letters use up the limit of the log."""
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("DELETE FROM subscriptions")
    text = (
        "  dead letters (2) belong to no subscription; "
        "discard them, or subscribe under their names and retry them"
    )
    lines = plain(pabal("status", file).stdout, file).splitlines()
    assert lines[:2] == ["FILE: degraded", text]
    assert lines[3] == "0 retries, 2 dead letters, 0 queued behind them, 0 scheduled"
    korean = pabal("--lang", "ko", "status", file).stdout
    assert "구독이 없어진 데드 레터 2개. 폐기하거나, 그 이름으로 구독한 뒤 재시도하세요" in korean


def test_subscriptions_are_listed_and_actions_on_them_print_their_result(pabal: Pabal, file: Path) -> None:
    """An operator would not see where a subscription is, or whether it was paused."""
    _, row = plain(pabal("subscriptions", "list", file).stdout, file).splitlines()
    assert row.split() == ["pack", "idle", "8", "0", "0", "2", "0", "TIME"]
    assert pabal("subscriptions", "pause", file, "pack").stdout.startswith("1 done")
    assert pabal("subscriptions", "resume", file, "pack").stdout.startswith("1 done")


def test_replay_asks_before_it_delivers_again(pabal: Pabal, file: Path) -> None:
    """A mistyped name would send every mail a second time."""
    for bounds, question in (
        (("--from", 2, "--to", 99), "Deliver positions 2 to 8 to 'pack' again?"),
        (("--from", "1h"), "Deliver the events between 1h and 8 to 'pack' again?"),
        (("--to", "0s"), "Deliver the events between 1 and 0s to 'pack' again?"),
    ):
        refused = pabal("replay", file, "pack", *bounds, input="n\n")
        assert (refused.exit_code, refused.stdout) == (1, "")
        assert refused.stderr == f"{question} [y/N]: pabal: nothing was changed\n"
    assert pabal("audit", file).stdout == "the audit log is empty\n"
    agreed = pabal("replay", file, "pack", "--from", 2, input="y\n")
    assert (agreed.exit_code, agreed.stdout.partition(";")[0]) == (0, "7 done")
