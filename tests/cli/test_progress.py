"""Long commands show progress on a terminal, and print nothing of it into a file or pipe."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from pabal import SqliteEventStorage
from pabal.cli import base, doctor, events
from pabal.cli.app import commands
from tests.cli.conftest import Pabal
from tests.cli.models import Quantities
from tests.docs.test_cli_page import leaves
from tests.operations.conftest import ShopOrder

LONG = [
    ("backup FILE copy.db", "copying"),
    ("bench --events 1000 --rounds 1", "measuring"),
    ("check FILE", "checking"),
    ("dead-letters discard FILE --all --yes", "working"),
    ("dead-letters retry FILE --all --yes", "working"),
    ("doctor FILE", "checking"),
    ("events export FILE -o out.jsonl", "exporting"),
    ("events import FILE --import tests.operations.conftest -i in.jsonl", "importing"),
    ("projections list FILE --rows", "counting"),
    ("retention FILE --max-events 2 --yes", "deleting"),
    ("vacuum FILE", "giving space back"),
]
"""Commands that read or write a whole log, with the text of their progress bar."""
QUICK = {
    *("asyncapi", "audit", "completion", "dashboard", "demo", "replay", "status", "tail"),
    *("dead-letters edit", "dead-letters list", "dead-letters show"),
    *("events list", "events show", "events trace", "streams list", "streams show"),
    *("projections rebuild", "projections remove", "schema check", "schema export"),
    *("subscriptions list", "subscriptions pause", "subscriptions reset", "subscriptions resume"),
}
"""Commands that read one page, ask a question, or have their own display."""


def test_every_command_is_listed_as_quick_or_shows_progress() -> None:
    """A new command would be silent for minutes, and users would interrupt it."""
    long = {re.split(" FILE| --", line)[0] for line, _ in LONG}
    assert long | QUICK == {path for path, _ in leaves(commands)}
    assert not long & QUICK


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> StringIO:
    """Make standard error a terminal as far as progress bars can tell."""
    shown = StringIO()
    monkeypatch.setattr(
        base, "console", lambda *, err=False: Console(file=shown, force_terminal=True, width=100)
    )
    return shown


async def _project(path: Path) -> None:
    async with SqliteEventStorage(path) as storage, Quantities(storage):
        pass


@pytest.fixture
def place(file: Path, monkeypatch: pytest.MonkeyPatch, pabal: Pabal) -> Path:
    """A working directory with a log, its model, and events to import."""
    monkeypatch.chdir(file.parent)
    asyncio.run(_project(file))
    pabal("events", "export", file, "--type", "shop.ordered", "--format", "cloudevents", "-o", "in.jsonl")
    return file


@pytest.mark.parametrize(("line", "text"), LONG, ids=[line for line, _ in LONG])
def test_long_commands_show_their_progress(
    line: str, text: str, place: Path, pabal: Pabal, screen: StringIO
) -> None:
    """Waiting users would not know whether anything happens, and interrupt it."""
    ended = pabal(*line.replace("FILE", place.name).split())
    assert ended.exit_code in (0, 1), ended.output
    assert text in screen.getvalue()
    assert screen.getvalue().endswith("\x1b[2K"), "a bar is left on the screen"
    assert "\x1b" not in ended.output


def test_the_progress_bar_of_doctor_moves(place: Path, pabal: Pabal, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would stay at zero until everything is done."""
    result: list[int] = []

    @contextmanager
    def progress(text: str, total: int | None) -> Iterator[Callable[[int], None]]:
        yield result.append

    monkeypatch.setattr(doctor, "progress", progress)
    pabal("doctor", place)
    assert result[-1] == 100


def test_the_progress_bar_of_an_export_moves(
    tmp_path: Path, pabal: Pabal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a limit of millions, it would show nothing for minutes."""
    result: list[int] = []

    @contextmanager
    def progress(text: str, total: int | None) -> Iterator[Callable[[int], None]]:
        assert total == 1100
        yield result.append

    async def fill() -> None:
        async with SqliteEventStorage(tmp_path / "many.db") as storage:
            await storage.store_events([ShopOrder(f"o-{number}", 1) for number in range(1200)])

    asyncio.run(fill())
    monkeypatch.setattr(events, "progress", progress)
    done = pabal("events", "export", tmp_path / "many.db", "--limit", 1100, "-o", tmp_path / "out.jsonl")
    assert done.stderr == "1,100 events written\n"
    assert result == [500, 1000]


@pytest.mark.parametrize("line", [line for line, _ in LONG if not line.startswith("bench")])
def test_no_progress_bar_is_shown_without_a_terminal(line: str, place: Path, pabal: Pabal) -> None:
    """A log file of a nightly job would be full of escape codes."""
    ended = pabal(*line.replace("FILE", place.name).split())
    assert "\x1b" not in ended.output
