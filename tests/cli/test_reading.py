"""The commands that only read: what they print for people, and as JSON for programs."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar
from unittest.mock import AsyncMock

import pytest

from pabal import EventBusFactory, SqliteEventStorage
from tests import warm
from tests.cli.conftest import Pabal, rewrite
from tests.cli.test_processes import LIMIT, ROOT, environment
from tests.operations.conftest import ShopOrder, retry_dead_letters


class ParcelSent(ShopOrder):
    """An event of another type of aggregate, with the id of an order."""

    event_type: ClassVar[str] = "shop.parcel-sent"
    aggregate_type: ClassVar[str | None] = "parcel"
    quantity: int = 1


READING = [
    ["status"],
    ["events", "list"],
    ["streams", "list"],
    ["streams", "show", "o-1"],
    ["subscriptions", "list"],
    ["dead-letters", "list"],
    ["dead-letters", "list", "--groups"],
    ["dead-letters", "show", "1"],
    ["check"],
    ["audit"],
]


def on(file: Path, command: list[str]) -> list[str]:
    """Insert the file after the words of a command."""
    words = 2 if command[0] in ("events", "streams", "subscriptions", "dead-letters") else 1
    return [*command[:words], str(file), *command[words:]]


@pytest.mark.parametrize("command", READING, ids=" ".join)
def test_every_reading_command_prints_text_and_json(pabal: Pabal, file: Path, command: list[str]) -> None:
    """A script that reads ``--json`` would get text, or a user nothing."""
    result = pabal(*on(file, command))
    assert (result.exit_code, result.output != "") == (0, True)
    machine = pabal(*on(file, command), "--json")
    assert machine.exit_code == 0
    json.loads(machine.stdout)


def test_status_limits_the_reasons_and_counts_the_rest(pabal: Pabal, tmp_path: Path) -> None:
    """Thousands of reasons would scroll the health out of sight, and say no more than fifty."""
    path = tmp_path / "shop.db"

    async def fill() -> None:
        async with EventBusFactory.create_default_event_bus(path, durability="normal") as bus:
            for number in range(60):
                bus.subscribe(ShopOrder, AsyncMock(), name=f"clerk-{number}")
        async with SqliteEventStorage(path) as storage:
            await storage.store_event(ShopOrder("o-1", 1))

    asyncio.run(fill())
    result = pabal("status", path).stdout.splitlines()
    assert sum("no process handles it" in line for line in result) == 50
    assert result[51] == "  and 10 more; --json has them all"
    assert len(json.loads(pabal("status", path, "--json").stdout)["reasons"]) == 60


def test_status_names_what_is_stuck(pabal: Pabal, file: Path) -> None:
    """The operator on call would have to search for it."""
    result = pabal("status", file)
    assert "degraded" in result.output
    assert "subscription 'pack' has dead letters (2); retry or discard them" in result.output
    assert "8 events, 1 subscription, largest lag 0" in result.output


def test_events_list_filters_and_pages(pabal: Pabal, file: Path) -> None:
    """The filter of the command line would work differently from that of the dashboard."""
    page = json.loads(pabal("events", "list", file, "--type", "shop.*ed", "--limit", 3, "--json").stdout)
    assert [event["position"] for event in page["events"]] == [8, 7, 6]
    older = json.loads(pabal("events", "list", file, "--before", page["older"], "--json").stdout)
    assert [event["position"] for event in older["events"]] == [5, 4, 3, 2, 1]
    assert older["events"][0]["payload"].get("email", "•••") == "•••"
    assert "no event matches" in pabal("events", "list", file, "--since", "2999-01-01").output


def test_events_trace_draws_the_tree_and_events_show_prints_the_event(pabal: Pabal, file: Path) -> None:
    """Cause and effect would have to be pieced together by hand."""
    page = json.loads(pabal("events", "list", file, "--type", "shop.packed", "--json").stdout)
    packed = page["events"][-1]
    drawn = pabal("events", "trace", file, packed["event_id"])
    assert [line.split()[0] for line in drawn.output.splitlines()] == ["shop.ordered", "└──"]
    shown = pabal("events", "show", file, packed["causation_id"])
    assert f"caused shop.packed {packed['event_id']}" in shown.output
    assert "delivery pack: finished" in shown.output
    effect = ("events", "show", file, packed["event_id"])
    assert f"caused by shop.ordered {packed['causation_id']}\n" in pabal(*effect).output
    assert f"원인 shop.ordered {packed['causation_id']}\n" in pabal("--lang", "ko", *effect).output
    machine = json.loads(pabal("events", "show", file, packed["event_id"], "--json").stdout)
    assert machine["cause"]["event_id"] == packed["causation_id"]
    tree = json.loads(pabal("events", "trace", file, packed["event_id"], "--json").stdout)
    assert tree["roots"][0]["effects"][0]["event"]["event_id"] == packed["event_id"]


@pytest.mark.parametrize("place", ["3", "4:17"])
def test_events_show_with_a_position_says_that_it_takes_an_id(pabal: Pabal, file: Path, place: str) -> None:
    """The position is the first column of a list, and the answer would be that no such event exists."""
    result = pabal("events", "show", file, place)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == (
        f"pabal: {place} is a position; give the event's id, which pabal events list prints last\n"
    )


def test_events_trace_prints_every_id_in_full(pabal: Pabal, tmp_path: Path) -> None:
    """A long aggregate id would cut the event id off, which is what the tree is read for."""
    cause = ShopOrder("order-of-the-warehouse-in-the-harbour-of-busan-2026-11-29-0000000001", 1)
    effect = ShopOrder(cause.order_id, 2, correlation_id=cause.event_id, causation_id=cause.event_id)

    async def fill() -> None:
        async with SqliteEventStorage(tmp_path / "shop.db") as storage:
            await storage.store_events([cause, effect])

    asyncio.run(fill())
    drawn = pabal("events", "trace", tmp_path / "shop.db", cause.event_id).stdout.splitlines()
    assert [line.split()[-1] for line in drawn] == [cause.event_id, effect.event_id]


def test_streams_show_distinguishes_streams_that_share_an_id(pabal: Pabal, tmp_path: Path) -> None:
    """Two histories would follow each other, each beginning with version 1, as if they were one."""

    async def fill() -> None:
        async with SqliteEventStorage(tmp_path / "shared.db") as storage:
            await storage.store_events([ShopOrder("o-1", 1), ParcelSent("o-1")])

    asyncio.run(fill())
    lines = pabal("streams", "show", tmp_path / "shared.db", "o-1").output.splitlines()
    assert [line.split()[:2] for line in lines[1:]] == [["order/o-1", "1"], ["parcel/o-1", "1"]]
    one = pabal("streams", "show", tmp_path / "shared.db", "o-1", "--aggregate-type", "parcel").output
    assert [line.split()[0] for line in one.splitlines()] == ["version", "1"]


def test_events_show_includes_failed_attempts_of_a_delivery_that_succeeded(pabal: Pabal, file: Path) -> None:
    """Errors of a past incident would be gone once the event is handled."""
    letter = json.loads(pabal("dead-letters", "show", file, 1, "--json").stdout)
    asyncio.run(retry_dead_letters(file))
    show = ("events", "show", file, letter["event"]["event_id"])
    (delivery,) = json.loads(pabal(*show, "--json").stdout)["deliveries"]
    assert (delivery["state"], delivery["attempts"]) == ("finished", 3)
    assert [failure["error_type"] for failure in delivery["failures"]] == ["ValueError"] * 2
    assert delivery["finished_at"].endswith("Z")
    _, *lines = pabal(*show, "--payloads", "full").output.partition("delivery pack: ")[2].splitlines()
    assert [line.split()[0] for line in lines] == ["1.", "2.", "succeeded"]
    assert "ValueError: no such quantity for kim@example.com" in lines[0]


def test_events_export_writes_every_event_with_its_payload(pabal: Pabal, file: Path, tmp_path: Path) -> None:
    """An exported file would lack events, or values."""
    done = pabal("events", "export", file, "--type", "shop.ordered", "-o", tmp_path / "out.jsonl")
    assert (done.exit_code, done.stderr) == (0, "5 events written\n")
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["payload"]["quantity"] for row in rows] == [1, -1, 2, -2, 3]
    assert rows[0]["payload"]["email"] == "kim@example.com"


def test_a_name_between_colons_is_not_shown_as_an_emoji(pabal: Pabal, file: Path) -> None:
    """``tenant:key:17`` would be shown with a picture of a key, and a search for it find nothing."""
    rewrite(file, "events", 1, payload=b'{"order_id":"tenant:key:17","quantity":1,"email":""}')
    rewrite(file, "events", 1, aggregate_id="tenant:key:17")
    (event_id,) = [
        event["event_id"]
        for event in json.loads(pabal("events", "list", file, "--json").stdout)["events"]
        if event["position"] == 1
    ]
    shown = pabal("events", "show", file, event_id).output
    assert shown.count("tenant:key:17") == 2
    assert "order/tenant:key:17 v1" in pabal("events", "list", file).output


def test_a_row_that_is_not_printed_on_a_terminal_is_one_line(pabal: Pabal, file: Path) -> None:
    """``grep`` would not find what was folded, and a script that counts lines would count wrong."""
    long_id = "o-" + 300 * "0" + "-end"
    rewrite(file, "events", 1, aggregate_id=long_id)
    lines = pabal("events", "list", file).stdout.splitlines()
    assert len(lines) == 1 + 8
    assert f"order/{long_id} v1" in lines[-1]
    assert lines[0].split() == ["position", "recorded", "type", "aggregate", "event", "id"]
    assert {line[:8] for line in lines} == {"position", *(f"{number:>8}" for number in range(1, 9))}


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine whose local time is twelve hours ahead of UTC."""
    monkeypatch.setenv("TZ", "AHEAD-12")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.skipif(sys.platform == "win32", reason="the zone of a process cannot be changed there")
@pytest.mark.usefixtures("elsewhere")
def test_a_printed_time_can_be_given_back(pabal: Pabal, file: Path) -> None:
    """A subscription reset to the time of an incident would skip or repeat half a day."""
    (newest,) = pabal("events", "list", file, "--limit", 1).stdout.splitlines()[1:]
    _, day, second, *_ = newest.split()
    at = f"{day} {second}"
    for option, is_included in (("--since", True), ("--until", False)):
        listed = json.loads(pabal("events", "list", file, option, at, "--json").stdout)["events"]
        assert (8 in [event["position"] for event in listed]) is is_included, option
    for command in (("subscriptions", "reset", file, "pack", "--to"), ("replay", file, "pack", "--from")):
        plan = json.loads(pabal(*command, at, "--dry-run", "--json").stdout)
        assert plan.get("again", plan.get("count")) >= 1, command


def test_tail_starts_at_a_cursor_and_stops_after_count_events(pabal: Pabal, file: Path) -> None:
    """Users could not catch up on events published while they were not watching."""
    result = pabal("tail", file, "--after", "6", "--count", 2, "--json")
    assert [json.loads(line)["position"] for line in result.output.splitlines()] == [7, 8]


def test_a_backup_is_a_readable_log(pabal: Pabal, file: Path, tmp_path: Path) -> None:
    """The copy would turn out to be unreadable when it is needed."""
    assert pabal("backup", file, tmp_path / "copy.db").exit_code == 0
    assert json.loads(pabal("status", tmp_path / "copy.db", "--json").stdout)["totals"]["events"] == 8
    again = pabal("backup", file, tmp_path / "copy.db")
    assert (again.exit_code, "copy.db" in again.stderr) == (3, True)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script_for_the_shell(pabal: Pabal, shell: str) -> None:
    """Completion would be documented but missing."""
    assert f"_PABAL_COMPLETE={shell}_complete" in pabal("completion", shell).output


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("pabal dead", ["dead-letters"]),
        ("pabal subscriptions re", ["reset", "resume"]),
        ("pabal events list --ty", ["--type"]),
        ("pabal --lang ", ["en", "ko"]),
        ("pabal events export --format c", ["cloudevents"]),
    ],
)
def test_the_shell_completes_commands_options_and_choices(typed: str, offered: list[str]) -> None:
    """The script would exist, but the Tab key do nothing, because commands are imported when called."""
    words = typed.split(" ")
    variables = {"_PABAL_COMPLETE": "bash_complete", "COMP_WORDS": typed, "COMP_CWORD": str(len(words) - 1)}
    ended = warm.run("pabal", warm=warm.COMMANDS, cwd=ROOT, env=environment(**variables), timeout=LIMIT)
    assert ended.stdout.splitlines() == [f"plain,{word}" for word in offered]


def test_bench_measures_every_storage(pabal: Pabal, tmp_path: Path) -> None:
    """A figure would be missing."""
    result = pabal("bench", "--events", 1000, "--rounds", 1, "--directory", tmp_path, "--json")
    assert [one["way"] for one in json.loads(result.stdout)] == [
        "in memory",
        "on disk, normal",
        "on disk, full",
    ]
    assert list(tmp_path.iterdir()) == []
