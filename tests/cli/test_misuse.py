"""Nonsense and hostile input is answered in one line, and commands that only read change nothing."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from pabal import EventBusFactory, RetryPolicy, SqliteEventStorage
from tests.cli.conftest import Pabal
from tests.operations.conftest import ShopOrder

TOO_MUCH = 10**25
"""More than any log can count to."""
HOSTILE = "o-\x1b[2J\x9b1m\u202e[/]\nforged"
READ = "o-\\x1b[2J\\x9b1m\\u202e[/]\\nforged"


@pytest.mark.parametrize("command", [["status"], ["check"], ["audit"], ["doctor"]], ids=" ".join)
def test_commands_reject_an_empty_file_and_leave_it_empty(
    pabal: Pabal, tmp_path: Path, command: list[str]
) -> None:
    """Reading a truncated log would turn it into a new, healthy one."""
    empty = tmp_path / "empty.db"
    empty.touch()
    result = pabal(*command, empty)
    assert result.exit_code == (2 if command == ["doctor"] else 3)
    assert "is not a pabal database (an empty file); it was left untouched" in result.output
    assert empty.read_bytes() == b""


def test_projections_list_rejects_a_server_instead_of_reporting_none(pabal: Pabal) -> None:
    """Users would think that the projections are gone, although a server never has any."""
    result = pabal("projections", "list", "redis://127.0.0.1:1/0")
    assert result.exit_code == 2
    assert "projections are kept in the SQLite file of a log" in result.output


def test_characters_missing_from_the_terminal_encoding_are_escaped(tmp_path: Path) -> None:
    """A table with a Korean id would end in a traceback in a locale that is not UTF-8."""
    path = tmp_path / "log.db"

    async def fill() -> None:
        async with SqliteEventStorage(path) as storage:
            await storage.store_event(ShopOrder("주문-1", 1))

    asyncio.run(fill())
    result = subprocess.run(
        [sys.executable, "-m", "pabal", "events", "list", path],
        env={**os.environ, "PYTHONIOENCODING": "ascii", "PABAL_LANG": "en"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert "\\uc8fc\\ubb38-1" in result.stdout


def test_streams_show_explains_how_to_write_an_aggregate_given_as_type_and_id(
    pabal: Pabal, file: Path
) -> None:
    """An aggregate copied from ``events list`` would look as if it had lost its events."""
    assert "no events\n" in pabal("streams", "show", file, "o-9").output
    result = pabal("streams", "show", file, "order/o-1").output
    assert result == (
        "pabal: this aggregate has no events; give its id alone, and its type with --aggregate-type\n"
    )


@pytest.mark.parametrize("more", [(), ("--json",), ("--after-version", 7), ("--aggregate-type", "order")])
def test_streams_show_fails_for_an_unknown_aggregate(
    pabal: Pabal, file: Path, more: tuple[object, ...]
) -> None:
    """A script that misspells an id went on as if there were nothing to see."""
    result = pabal("streams", "show", file, "o-9", *more)
    assert (result.exit_code, result.stdout) == (1, "")
    assert pabal("events", "show", file, "o-9").exit_code == result.exit_code


@pytest.mark.parametrize("encoding", ["cp949", "cp1252", "latin-1"])
def test_json_output_stays_valid_if_the_encoding_lacks_characters(tmp_path: Path, encoding: str) -> None:
    """Windows pipes text in a national encoding, and JSON parsers do not know Python's escapes."""
    path = tmp_path / "log.db"
    name = "café 🎉 주문 → ₩"

    async def fill() -> None:
        async with SqliteEventStorage(path) as storage:
            await storage.store_event(ShopOrder(name, 1))

    asyncio.run(fill())
    result = subprocess.run(
        [sys.executable, "-m", "pabal", "events", "list", path, "--json"],
        env={**os.environ, "PYTHONIOENCODING": encoding},
        capture_output=True,
        check=True,
    )
    (event,) = json.loads(result.stdout.decode(encoding))["events"]
    assert event["aggregate_id"] == name


def test_doctor_reports_a_missing_file_as_a_problem(pabal: Pabal, tmp_path: Path) -> None:
    """A script that ignores warnings would ignore a missing log."""
    result = pabal("doctor", tmp_path / "gone.db")
    assert result.exit_code == 2
    assert "there is no such file" in result.output


def test_doctor_accepts_a_sqlite_url(pabal: Pabal, file: Path) -> None:
    """The URL that the application is configured with would be refused by the doctor alone."""
    assert "all checksums" in pabal("doctor", f"sqlite:///{file}").output


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("streams", "show", "FILE", "o-1", "--after-version", TOO_MUCH), 0, "has no events"),
        (("dead-letters", "list", "FILE", "--after", TOO_MUCH), 0, "no dead letter matches"),
        (("dead-letters", "show", "FILE", TOO_MUCH), 1, f"there is no dead letter {TOO_MUCH}"),
        (("dead-letters", "discard", "FILE", TOO_MUCH, "--yes"), 1, f"there is no dead letter {TOO_MUCH}"),
        (("audit", "FILE", "--before", TOO_MUCH), 0, "the audit log is empty"),
    ],
    ids=lambda value: " ".join(map(str, value[:2])) if isinstance(value, tuple) else "",
)
def test_a_number_beyond_every_log_is_no_damage(
    pabal: Pabal, file: Path, arguments: tuple[object, ...], code: int, said: str
) -> None:
    """A digit too many would be reported as a damaged file, and an operator might restore a backup."""
    result = pabal(*(file if one == "FILE" else one for one in arguments))
    assert (result.exit_code, said in result.output) == (code, True), result.output


@pytest.mark.parametrize(
    "arguments",
    [
        ("subscriptions", "reset", "FILE", "pack", "--to", "", "--yes"),
        ("replay", "FILE", "pack", "--from", "", "--yes"),
        ("dead-letters", "retry", "FILE", "1", "--import", ""),
        ("dead-letters", "retry", "FILE", "1", "--import", ".shop"),
        ("dashboard", "FILE", "--import", ""),
        ("dashboard", "FILE", "--import", "no_such_module"),
        ("status", "redis://risk:half[other@127.0.0.1:1/0"),
        ("status", "redis://risk:[other]@127.0.0.1:1/0"),
        ("status", "redis://risk:half@127.0.0.1:1/zero"),
        ("status", "redis://risk:half@127.0.0.1:1/0?colour=other"),
        ("doctor", "redis://risk:half[other@127.0.0.1:1/0"),
    ],
    ids=" ".join,
)
def test_invalid_arguments_are_rejected_in_one_line_without_repeating_secrets(
    pabal: Pabal, file: Path, arguments: tuple[str, ...]
) -> None:
    """The operator on call would get a traceback, which may contain a password."""
    result = pabal(*(file if one == "FILE" else one for one in arguments))
    assert result.exit_code == 2, result.output
    assert result.output.count("\n") == 1
    assert "half" not in result.output
    assert "other" not in result.output


def test_importing_a_file_that_is_not_utf8_names_the_line(pabal: Pabal, file: Path, tmp_path: Path) -> None:
    """A wrong file would end in a traceback, as if pabal were at fault."""
    (tmp_path / "wrong.jsonl").write_bytes(b"\n\xff\xfe\n")
    result = pabal("events", "import", file, "--input", tmp_path / "wrong.jsonl")
    assert result.exit_code == 1
    assert "line 2: not UTF-8 text" in result.output or "line 1: not UTF-8 text" in result.output
    assert result.output.count("\n") == 1


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A log with an id and an error text chosen by an attacker."""
    path = tmp_path / "hostile.db"

    async def fill() -> None:
        async with EventBusFactory.create_default_event_bus(path) as bus:

            def refuse(event: ShopOrder) -> None:
                raise ValueError(event.order_id)

            bus.subscribe(ShopOrder, refuse, name=HOSTILE, retry=RetryPolicy(max_attempts=1))
            await bus.publish(ShopOrder(HOSTILE, 1))
            await bus.drain()

    asyncio.run(fill())
    return path


def test_commands_escape_control_characters_in_stored_text(pabal: Pabal, hostile: Path) -> None:
    """An id could clear the operator's screen, forge a line of the output, or break the command."""

    async def the_id() -> str:
        async with SqliteEventStorage(hostile) as storage:
            async for one in storage.read():
                return str(one.event.event_id)
        raise AssertionError

    event_id = asyncio.run(the_id())
    for arguments in (
        ("status", hostile),
        ("events", "list", hostile),
        ("events", "show", hostile, event_id, "--payloads", "full"),
        ("events", "trace", hostile, event_id),
        ("streams", "list", hostile),
        ("streams", "show", hostile, HOSTILE, "--payloads", "full"),
        ("subscriptions", "list", hostile),
        ("subscriptions", "pause", hostile, HOSTILE),
        ("subscriptions", "pause", hostile, HOSTILE),
        ("subscriptions", "resume", hostile, "nobody"),
        ("dead-letters", "list", hostile),
        ("dead-letters", "list", hostile, "--groups"),
        ("dead-letters", "show", hostile, "1", "--payloads", "full"),
        ("tail", hostile, "--after", "0", "--count", "1"),
        ("audit", hostile),
    ):
        result = pabal(*arguments)
        assert result.exception is None or isinstance(result.exception, SystemExit), arguments
        assert not set(result.output) & set("\x1b\x9b\u202e"), (arguments, result.output)
        assert "\nforged" not in result.output, (arguments, result.output)
    for command in (
        ("status", hostile, "--json"),
        ("events", "list", hostile, "--json", "--payloads", "full"),
        ("events", "export", hostile),
        ("events", "export", hostile, "--format", "cloudevents"),
        ("streams", "list", hostile, "--json"),
        ("dead-letters", "show", hostile, "1", "--payloads", "full", "--json"),
        ("tail", hostile, "--after", "0", "--count", "1", "--json"),
    ):
        result = pabal(*command)
        assert not set(result.output) & set("\x1b\x9b\u202e"), (command, result.output)
        assert json.dumps(HOSTILE)[1:-1] in json.dumps(json.loads(result.stdout)), command
    assert READ in pabal("events", "list", hostile).output


def test_a_full_disk_is_reported_in_one_line(hostile: Path) -> None:
    """An export to a full disk would end in a traceback."""
    for command in ("export", "list"):
        with Path("/dev/full").open("w") as full:
            done = subprocess.run(
                [sys.executable, "-m", "pabal", "--lang", "en", "events", command, str(hostile)],
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
                check=False,
                timeout=60,
            )
        assert done.returncode == 1
        assert done.stderr == "pabal: [Errno 28] No space left on device\n"


@pytest.mark.parametrize(
    ("closed", "command", "code", "words"),
    [
        (
            "<&-",
            ["subscriptions", "reset", "{}", "pack", "--to", "now"],
            1,
            "Move 'pack' from position 8 to now? [y/N]: \nAborted!\n",
        ),
        (">&-", ["events", "export", "{}"], 0, ""),
    ],
    ids=["stdin", "stdout"],
)
def test_a_closed_standard_stream_is_treated_as_empty(
    file: Path, closed: str, command: list[str], code: int, words: str
) -> None:
    """A command of a service without this stream would end in a traceback."""
    arguments = [sys.executable, "-m", "pabal", "--lang", "en", *(part.format(file) for part in command)]
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {closed}', "sh", *arguments], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (code, words)


@pytest.mark.parametrize("command", ["status", "doctor"])
def test_commands_reject_a_pipe_instead_of_waiting_for_it(pabal: Pabal, tmp_path: Path, command: str) -> None:
    """A command on a pipe without a writer would never return."""
    os.mkfifo(tmp_path / "pipe.db")
    assert "a pipe, a socket or a device, not a file" in pabal(command, tmp_path / "pipe.db").output


def test_commands_work_on_a_file_whose_name_is_not_valid_utf8(pabal: Pabal, file: Path) -> None:
    """Retention would be refused for it, and JSON output end in a traceback."""
    named = file.rename(file.with_name(os.fsdecode(b"shop-\xff.db")))
    assert json.loads(pabal("status", named, "--json").stdout)["target"]["address"].endswith(
        "shop-\\udcff.db"
    )
    assert json.loads(pabal("doctor", named, "--json").stdout)["path"].endswith("shop-\\udcff.db")
    assert pabal("vacuum", named).exit_code == 0
    assert pabal("retention", named, "--max-events", 1, "--yes").exit_code == 0
    assert "retention" in pabal("audit", named).output


def test_export_rejects_a_source_with_a_lone_surrogate(pabal: Pabal, hostile: Path) -> None:
    """The export would end in a traceback."""
    result = pabal("events", "export", hostile, "--format", "cloudevents", "--source", "shop-\udcff")
    assert (result.exit_code, "which a CloudEvent cannot hold" in result.output) == (1, True), result.output


@pytest.mark.parametrize(
    ("lang", "words"),
    [
        ("en", "is not a host to listen on: [Errno -2] Name or service not known"),
        ("ko", "들을 수 있는 주소가 아닙니다: 알 수 없는 호스트입니다 (errno -2)"),
    ],
)
def test_dashboard_reports_an_unknown_host(
    file: Path, pabal: Pabal, monkeypatch: pytest.MonkeyPatch, lang: str, words: str
) -> None:
    """A mistyped host would end in a traceback, or the dashboard listen elsewhere."""

    def unknown(*arguments: object, **options: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    refused = pabal("--lang", lang, "dashboard", file, "--host", "shop")
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert refused.stderr.startswith("pabal dashboard: 'shop'")
    assert refused.stderr.endswith(f"{words}\n")


def test_ctrl_c_during_the_imports_exits_silently_with_130() -> None:
    """A user who interrupts the command at once would see a traceback through half-imported modules."""
    script = (
        "import sys\n"
        "class Impatient:\n"
        "    def find_spec(self, name, *place):\n"
        "        if name == 'pabal.cli.app': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Impatient())\n"
        "from pabal.cli import main; main()"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script, "status"], capture_output=True, text=True, timeout=60, check=False
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "")
