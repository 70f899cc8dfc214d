"""``pabal demo`` as a command: what it refuses, which file it uses, how it is stopped, what it prints."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pabal import DomainEvent, SqliteEventStorage
from tests.demo.support import LIMIT, demo, environment, outcome, write_candles

SMALL = ("--events", "300", "--speed", "max")


class Foreign(DomainEvent):
    event_type = "foreign.happened"
    note: str


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_resume_command_names_the_program_as_it_was_called(tmp_path: Path) -> None:
    """The printed command would not be found, or run another pabal than the one that plays."""
    called = tmp_path / "bin" / "pabal"
    called.parent.mkdir()
    called.write_text(f"#!{sys.executable}\nfrom pabal.cli import main\nmain()\n")
    called.chmod(0o755)
    on_path = environment(PATH=f"{called.parent}{os.pathsep}{os.environ['PATH']}")
    for number, (env, words) in enumerate(((on_path, "pabal"), (environment(), str(called)))):
        played = subprocess.run(
            [called, "demo", "--file", f"{number}.db", "--plain", *SMALL],
            cwd=tmp_path,
            env=env,
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=True,
        )
        assert f"; if interrupted: {words} demo --resume --file {number}.db\n" in played.stdout


# -- bad input --------------------------------------------------------------------------------------------


def test_an_invalid_tape_is_rejected_with_its_line_and_creates_no_file(tmp_path: Path) -> None:
    """Half a tape would be published before its invalid line is found, or an empty log be left behind."""
    tape = write_candles(tmp_path / "x-1m.csv", 100)
    lines = tape.read_text().splitlines()
    lines[80] = lines[80].replace(".0,", ".x,", 1)
    tape.write_text("\n".join(lines))
    ended = demo(tmp_path, ["--tape", "x-1m.csv"])
    assert ended.returncode == 2
    assert ended.stderr.startswith("pabal demo: x-1m.csv, line 81, column 'open': ")
    assert len(ended.stderr.splitlines()) == 1
    assert files(tmp_path) == ["x-1m.csv"]


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--tape", "missing.csv"], "missing.csv: No such file or directory"),
        (["--resume"], "pabal-demo.db: there is nothing to resume; start without --resume"),
        (["--resume", "--file", "other.db"], "other.db: there is nothing to resume"),
        (["--speed", "fast"], "neither a positive number of events per second nor 'max'"),
        (["--speed", "0"], "neither a positive number"),
        (["--speed", "nan"], "neither a positive number"),
        (["--events", "0"], "--events"),
        (["--durability", "none"], "--durability"),
        (["--resume", "--new"], "--resume continues an old run, --new starts a new one"),
        (["--file", "nowhere/log.db", *SMALL], "nowhere/log.db"),
        (["--file", "text.db", *SMALL], "text.db is not a pabal database"),
        (["--file", "strange.db", *SMALL], "strange.db is not a pabal database"),
        (["--file", "foreign.db", *SMALL], "this log begins with 'foreign.happened'"),
        (["--resume", "--file", "foreign.db"], "this log begins with 'foreign.happened'"),
    ],
)
def test_impossible_requests_are_rejected_with_a_sentence(
    tmp_path: Path, arguments: list[str], part: str
) -> None:
    """It would end in a traceback, an exit code of success, or a change to a foreign file."""
    (tmp_path / "text.db").write_text("dear diary, " * 200)
    with sqlite3.connect(tmp_path / "strange.db") as connection:
        connection.execute("CREATE TABLE customers (name TEXT)")
    connection.close()
    asyncio.run(_store_foreign(tmp_path / "foreign.db"))
    before = {name: (tmp_path / name).read_bytes() for name in ("text.db", "strange.db")}
    ended = demo(tmp_path, arguments)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert part in ended.stderr
    assert "Traceback" not in ended.stderr
    assert {name: (tmp_path / name).read_bytes() for name in before} == before
    assert asyncio.run(_head(tmp_path / "foreign.db")) == 1


async def _store_foreign(path: Path) -> None:
    async with SqliteEventStorage(path) as storage:
        await storage.store_event(Foreign("mine"))


async def _head(path: Path) -> int:
    async with SqliteEventStorage(path) as storage:
        return await storage.head()


def test_resume_rejects_a_tape_that_has_changed(tmp_path: Path) -> None:
    """The result would be half of one tape and half of another."""
    write_candles(tmp_path / "x-1m.csv", 60)
    assert demo(tmp_path, ["--tape", "x-1m.csv"]).returncode == 0
    write_candles(tmp_path / "x-1m.csv", 60, seed=9)
    ended = demo(tmp_path, ["--resume"])
    assert ended.returncode == 2
    assert "x-1m.csv is not that tape or has changed since" in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("--seed", "8"), "its run was started with --seed 7; leave --seed out to resume it"),
        (("--events", "200"), "its run was started with --events 300; leave --events out to resume it"),
    ],
)
def test_resume_rejects_other_settings(tmp_path: Path, arguments: tuple[str, ...], part: str) -> None:
    """Other settings than the run's own would be silently ignored."""
    assert demo(tmp_path, SMALL).returncode == 0
    ended = demo(tmp_path, ["--resume", *arguments])
    assert ended.returncode == 2
    assert part in ended.stderr


# -- files ------------------------------------------------------------------------------------------------


def test_each_new_run_gets_its_own_file_and_resume_uses_the_latest(tmp_path: Path) -> None:
    """A finished run would be overwritten, or a second ``make demo`` refused."""
    for expected in ("pabal-demo.db", "pabal-demo-2.db", "pabal-demo-3.db"):
        ended = demo(tmp_path, [*SMALL, "--json"])
        assert json.loads(ended.stdout)["file"] == expected
    assert json.loads(demo(tmp_path, ["--resume", "--json"]).stdout)["file"] == "pabal-demo-3.db"


def test_a_named_file_with_a_run_is_not_overwritten(tmp_path: Path) -> None:
    """Two runs would be mixed in one log."""
    assert demo(tmp_path, [*SMALL, "--file", "log.db"]).returncode == 0
    before = outcome(tmp_path / "log.db")
    ended = demo(tmp_path, [*SMALL, "--file", "log.db"])
    assert ended.returncode == 2
    assert "log.db: this file holds a finished run. For a new run choose another --file" in ended.stderr
    assert outcome(tmp_path / "log.db") == before


def test_an_empty_file_starts_a_run_with_and_without_resume(tmp_path: Path) -> None:
    """A run killed before its first event was stored could be neither resumed nor started again."""
    for name, more in (("a.db", ()), ("b.db", ("--resume",))):
        asyncio.run(_make_empty(tmp_path / name))
        assert demo(tmp_path, [*SMALL, "--file", name, *more]).returncode == 0
    assert outcome(tmp_path / "a.db") == outcome(tmp_path / "b.db")


async def _make_empty(path: Path) -> None:
    await SqliteEventStorage(path).aclose()


# -- stopping ---------------------------------------------------------------------------------------------


# A shell ignores Ctrl-C for background commands, and child processes inherit that.
_HEEDING_SIGNALS = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execv(sys.executable, sys.argv[1:])
"""


def interrupted(folder: Path, number: signal.Signals) -> tuple[int, str]:
    """Start a run, send it a signal once it plays, and return its exit code and final output."""
    run = [sys.executable, "-m", "pabal", "demo", "--events", "4000", "--speed", "1000"]
    with subprocess.Popen(
        [sys.executable, "-c", _HEEDING_SIGNALS, *run],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "playing: " in line and "playing: 0 of" not in line:
                process.send_signal(number)
                break
        _, errors = process.communicate(timeout=LIMIT)
        return process.returncode, errors


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Any]:
    """The result of an uninterrupted run, and the outcome of its log."""
    folder = tmp_path_factory.mktemp("whole")
    ended = demo(folder, ["--events", "4000", "--speed", "max", "--file", "whole.db", "--json"])
    return json.loads(ended.stdout)["result"], outcome(folder / "whole.db")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_prints_how_to_resume_and_can_be_resumed(
    tmp_path: Path, whole: tuple[str, Any], number: signal.Signals, code: int
) -> None:
    """Ctrl-C would end in a traceback, or leave a run that cannot be resumed or goes unnoticed."""
    ended, printed = interrupted(tmp_path, number)
    assert ended == code
    assert printed == (
        "Stopped; all published events are stored. Continue with: python -m pabal demo --resume\n"
    )
    refused = demo(tmp_path, SMALL)
    assert refused.returncode == 2
    assert (
        "there is an unfinished run. Continue it: python -m pabal demo --resume. Or start" in refused.stderr
    )
    beside = demo(tmp_path, [*SMALL, "--new", "--json"])
    assert json.loads(beside.stdout)["file"] == "pabal-demo-2.db"
    resumed = demo(tmp_path, ["--resume", "--file", "pabal-demo.db", "--speed", "max", "--json"])
    result, expected_outcome = whole
    assert json.loads(resumed.stdout)["result"] == result
    assert outcome(tmp_path / "pabal-demo.db") == expected_outcome


# -- output -----------------------------------------------------------------------------------------------


def test_stdout_contains_only_the_json_summary(tmp_path: Path) -> None:
    """Progress would be mixed into the summary, and no program could read it."""
    ended = demo(tmp_path, [*SMALL, "--json"])
    summary: dict[str, Any] = json.loads(ended.stdout)
    wanted = "by_type handled retried parked events_per_second latency_p50 latency_p99 profit file result"
    assert set(wanted.split()) <= set(summary)
    assert (summary["simulated"], summary["by_type"]["market.tick-received"]) == (True, 301)
    assert "300" in ended.stderr or "301" in ended.stderr


def test_demo_help_lists_every_option(tmp_path: Path) -> None:
    """An option would be undiscoverable."""
    printed = demo(tmp_path, ["--help"]).stdout
    wanted = {"tape", "resume", "new", "file", "speed", "events", "seed", "durability", "json", "plain"}
    assert {option for option in wanted if f"--{option}" in printed} == wanted


@pytest.mark.parametrize("missing", ["click", "rich"])
def test_without_the_cli_extra_one_line_says_how_to_install_it(tmp_path: Path, missing: str) -> None:
    """The first command of a new user would end in a ModuleNotFoundError."""
    script = f"import sys; sys.modules[{missing!r}] = None; from pabal.cli import main; main()"
    ended = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT,
    )
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == 'pabal\'s commands need an optional dependency: pip install "pabal[cli]"\n'


def test_pabal_cli_can_be_imported_without_the_extra() -> None:
    """Packaging tools and test collectors that import ``pabal.cli`` would fail without click."""
    script = "import sys, pabal.cli; sys.exit('click' in sys.modules or 'rich' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", script], check=False, timeout=LIMIT)
    assert ended.returncode == 0
