"""``pabal projections`` on the file of a stopped and of a running application, without its classes."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pabal import SqliteEventStorage
from tests import warm
from tests.cli.conftest import Pabal
from tests.cli.models import Quantities
from tests.cli.test_processes import LIMIT, ROOT, Terminal, environment

_PABAL = (sys.executable, "-m", "pabal")


class _StopHereError(BaseException):
    pass


def _stop_here(position: int, head: int) -> None:
    raise _StopHereError


async def _project(path: Path, *, interrupt: bool = False, trim: bool = False) -> None:
    async with SqliteEventStorage(path) as storage, Quantities(storage, batch=4) as quantities:
        await quantities.reached(await storage.head(), timeout=30)
        if interrupt:
            with pytest.raises(_StopHereError):
                await quantities.rebuild(progress=_stop_here)
        if trim:
            await storage.trim(max_events=2)


@pytest.fixture
def projected(file: Path) -> Path:
    """The shop's file with its model, as a stopped application leaves it."""
    asyncio.run(_project(file))
    return file


def listed(pabal: Pabal, file: Path, *more: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(pabal("projections", "list", file, "--json", *more).stdout)
    return found


def test_projections_list_prints_a_table_and_json(pabal: Pabal, projected: Path) -> None:
    """The operator on call would need SQL to see how far a read model is."""
    result = pabal("projections", "list", projected, "--rows")
    assert result.output.splitlines()[0].split() == [
        *("projection", "version", "position", "lag", "tables", "rebuild")
    ]
    assert re.search(r"^quantities +1 +8 +0 +quantities \(5 rows\) *$", result.output, re.MULTILINE)
    (view,) = listed(pabal, projected)
    assert view == {
        "name": "quantities",
        "version": 1,
        "position": 8,
        "lag": 0,
        "tables": ["quantities"],
        "rebuild": None,
        "rows": None,
    }
    assert listed(pabal, projected, "--rows")[0]["rows"] == {"quantities": 5}


def test_projections_list_says_that_a_file_has_no_projection(pabal: Pabal, file: Path) -> None:
    """Empty output would look like a failure."""
    assert pabal("projections", "list", file).output == "there is no projection\n"
    refused = pabal("projections", "remove", file, "quantities", "--yes")
    assert (refused.exit_code, refused.stderr) == (
        1,
        "pabal: there is no projection 'quantities'; known projections: none\n",
    )


def test_projections_remove_asks_first_and_is_recorded_in_the_audit_log(
    pabal: Pabal, projected: Path
) -> None:
    """A typing error would cost a read model, without a record of who did it."""
    question = "Drop 'quantities' and its tables (quantities)? Only its class can rebuild them."
    remove = ("projections", "remove", projected, "quantities")
    assert pabal(*remove, "--dry-run").output == f"{question}\nnothing was changed\n"
    refused = pabal(*remove, input="n\n")
    assert (refused.exit_code, question in refused.output) == (1, True)
    assert len(listed(pabal, projected)) == 1
    assert pabal("projections", "remove", projected, "quantity", "--yes").exit_code == 1
    done = pabal(*remove, "--yes", "--json")
    assert (done.exit_code, json.loads(done.stdout)["count"]) == (0, 1)
    assert listed(pabal, projected) == []
    (entry,) = json.loads(pabal("audit", projected, "--json").stdout)
    assert (entry["action"], entry["subject"], entry["succeeded"]) == (
        "remove",
        "projection quantities",
        True,
    )
    asyncio.run(_project(projected))
    assert listed(pabal, projected)[0]["position"] == 8


def test_projections_remove_warns_if_a_trimmed_log_prevents_a_rebuild(pabal: Pabal, file: Path) -> None:
    """Tables would be dropped in the belief that the log can still rebuild them."""
    asyncio.run(_project(file, trim=True))
    dry = pabal("projections", "remove", file, "quantities", "--dry-run")
    assert "The log was trimmed: they cannot be rebuilt." in dry.output


def test_an_unfinished_rebuild_is_listed_and_can_be_dropped_by_itself(pabal: Pabal, file: Path) -> None:
    """It holds back retention, and only manual SQL could remove it."""
    asyncio.run(_project(file, interrupt=True))
    assert "version 1, at position 4" in pabal("projections", "list", file).output
    assert listed(pabal, file)[0]["rebuild"] == {"version": 1, "position": 4, "lag": 4}
    remove = ("projections", "remove", file, "quantities", "--unfinished")
    assert "up to position 4?" in pabal(*remove, "--dry-run").output
    assert (pabal(*remove, "--yes").output, listed(pabal, file)[0]["rebuild"]) == ("1 done\n", None)
    assert listed(pabal, file)[0]["position"] == 8
    again = pabal(*remove, "--yes")
    assert (again.exit_code, again.stderr) == (
        1,
        "pabal: there is no unfinished rebuild of 'quantities'\n",
    )


@pytest.mark.parametrize(
    ("lang", "said"),
    [
        ("en", "there is no unfinished rebuild of 'quantities'"),
        ("ko", "'quantities': 다시 만들다 남은 것이 없습니다"),
    ],
)
def test_dropping_an_unfinished_rebuild_fails_if_it_was_dropped_meanwhile(
    pabal: Pabal, file: Path, monkeypatch: pytest.MonkeyPatch, lang: str, said: str
) -> None:
    """Two operators who clean up at once would both be told that they removed it."""
    asyncio.run(_project(file, interrupt=True))
    remove = ("projections", "remove", file, "quantities", "--unfinished")

    def answer(question: str, *, yes: bool) -> None:
        monkeypatch.undo()
        assert pabal("--lang", lang, *remove, "--yes").exit_code == 0

    monkeypatch.setattr("pabal.cli.projections.confirm", answer)
    late = pabal("--lang", lang, *remove)
    assert (late.exit_code, late.stderr) == (1, f"pabal: {said}\n")


def test_projections_commands_print_korean(pabal: Pabal, projected: Path) -> None:
    """A Korean operator would be asked in English whether to drop tables."""
    listing = pabal("--lang", "ko", "projections", "list", projected, "--rows").output
    assert "프로젝션" in listing
    assert "quantities(5행)" in listing
    result = pabal("--lang", "ko", "projections", "remove", projected, "quantities", input="n\n")
    assert "'quantities'의 테이블(quantities)과 위치를 지울까요?" in result.output
    unknown = pabal("--lang", "ko", "projections", "remove", projected, "nope", "--yes")
    assert unknown.stderr == "pabal: 프로젝션이 없습니다: 'nope'. 있는 프로젝션: quantities\n"


# -- processes --------------------------------------------------------------------------------------------


class _Application:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def says(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def order(self, name: str) -> str:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{name}\n")
        self._process.stdin.flush()
        return self.says()


@contextmanager
def application(file: Path) -> Iterator[_Application]:
    command = [sys.executable, "-m", "tests.cli.models", str(file)]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield _Application(process)
        finally:
            assert process.stdin is not None
            process.stdin.close()
            assert process.wait(LIMIT) == 0


def _pabal(*arguments: str) -> subprocess.CompletedProcess[str]:
    return warm.run("pabal", *arguments, warm=warm.COMMANDS, timeout=LIMIT, env=environment(), cwd=ROOT)


def test_a_projection_of_a_running_application_can_be_listed_and_removed(file: Path) -> None:
    """With the application running, an operator could not see its models, or would damage them."""
    with application(file) as app:
        assert app.says() == "running at 8"
        assert app.order("o-10") == "reached 9"
        (view,) = json.loads(_pabal("projections", "list", str(file), "--json").stdout)
        assert (view["name"], view["position"], view["lag"]) == ("quantities", 9, 0)
        terminal = Terminal(*_PABAL, "projections", "remove", str(file), "quantities")
        terminal.wait_for(lambda screen: "Only its class can rebuild them. [y/N]" in screen)
        assert json.loads(_pabal("projections", "list", str(file), "--json").stdout) == [view]
        terminal.type("y\n")
        assert terminal.end() == 0, terminal.screen
        assert app.order("o-11") == "projection 'quantities' cannot continue: its tables were removed"
    with application(file) as app:
        assert app.says() == "running at 10"
    (view,) = json.loads(_pabal("projections", "list", str(file), "--rows", "--json").stdout)
    assert (view["position"], view["rows"]) == (10, {"quantities": 7})
