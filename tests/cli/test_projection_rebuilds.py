"""``pabal projections rebuild``: what it builds and shows, and what it leaves behind when it fails."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from pabal import SqliteEventStorage
from tests import warm
from tests.cli.conftest import Pabal
from tests.cli.english import HANGUL, english_in
from tests.cli.models import Quantities
from tests.cli.test_processes import LIMIT, ROOT, Terminal, environment
from tests.cli.test_projections import application, listed
from tests.operations.conftest import ShopOrder

_PABAL = (sys.executable, "-m", "pabal")


async def _project(path: Path, more: int = 0) -> None:
    async with SqliteEventStorage(path, durability="normal") as storage:
        if more:
            await storage.store_events([ShopOrder(f"more-{number}", 1) for number in range(more)])
        async with Quantities(storage) as quantities:
            await quantities.reached(await storage.head(), timeout=30)


@pytest.fixture
def projected(file: Path) -> Path:
    asyncio.run(_project(file))
    return file


def _quantities(file: Path) -> list[tuple[Any, ...]]:
    async def read() -> list[Any]:
        async with SqliteEventStorage(file) as storage:
            return await storage.query("SELECT count(*), sum(quantity) FROM quantities")

    return asyncio.run(read())


def test_rebuild_repairs_a_damaged_projection(pabal: Pabal, projected: Path) -> None:
    """Fixing wrong rows in a read model would need a release."""

    async def damage() -> None:
        async with SqliteEventStorage(projected) as storage:
            await storage.transact(lambda tx: tx.execute("UPDATE quantities SET quantity = 99"))

    asyncio.run(damage())
    done = pabal("projections", "rebuild", projected, "tests.cli.models:Quantities")
    assert (done.exit_code, done.output) == (0, "1 done, now at position 8\n")
    assert _quantities(projected) == [(5, 3)]
    (entry,) = json.loads(pabal("audit", projected, "--json").stdout)
    assert (entry["action"], entry["subject"], entry["details"]) == (
        "rebuild",
        "projection quantities",
        {"version": 1},
    )


def test_rebuild_works_while_the_application_runs(file: Path) -> None:
    """The application would have to stop for it, or stop because of it."""
    with application(file) as app:
        assert app.says() == "running at 8"
        command = ("pabal", "projections", "rebuild", str(file), "tests.cli.models:Quantities", "--json")
        done = warm.run(*command, warm=warm.COMMANDS, timeout=LIMIT, env=environment(), cwd=ROOT)
        assert done.returncode == 0
        assert json.loads(done.stdout)["position"] == 8
        assert done.stderr == ""
        assert app.order("o-10") == "reached 9"


def test_rebuild_asks_before_replacing_another_version(pabal: Pabal, projected: Path) -> None:
    """Code of the next release would stop the projection of the running one."""
    rebuild = ("projections", "rebuild", projected, "tests.cli.models:Slow")
    refused = pabal(*rebuild, input="n\n")
    assert refused.exit_code == 1
    assert (
        "Replace version 1 of 'quantities' by version 2? Processes that run version 1 stop." in refused.output
    )
    assert listed(pabal, projected)[0]["version"] == 1
    assert "버전 1 대신 버전 2를 쓸까요?" in pabal("--lang", "ko", *rebuild, input="n\n").output
    assert pabal(*rebuild, input="y\n").exit_code == 0
    assert listed(pabal, projected)[0]["version"] == 2


@pytest.mark.parametrize(
    ("model", "code", "part"),
    [
        ("tests.cli.models", 2, "name a class: MODULE:CLASS"),
        ("tests.cli.models:Nothing", 2, "'tests.cli.models' has no projection named 'Nothing'"),
        ("tests.cli.models:main", 2, "has no projection named 'main'"),
        ("pabal.eventsourcing:Projection", 2, "has no projection named 'Projection'"),
        ("no_such_module:Model", 2, "cannot import 'no_such_module'"),
        ("tests.cli.models:Demanding", 2, "Demanding cannot be created from a storage alone"),
        ("tests.cli.models:Failing", 1, "its handler for 'shop.ordered' raised ValueError"),
    ],
)
def test_a_rejected_rebuild_leaves_the_live_projection_unchanged(
    pabal: Pabal, projected: Path, model: str, code: int, part: str
) -> None:
    """A mistake would end in a traceback, or remove the model that the application still reads."""
    before = listed(pabal, projected, "--rows")
    refused = pabal("projections", "rebuild", projected, model)
    assert (refused.exit_code, refused.stdout) == (code, "")
    assert part in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    assert listed(pabal, projected, "--rows") == before
    korean = pabal("--lang", "ko", "projections", "rebuild", projected, model)
    assert (korean.exit_code, HANGUL.search(korean.stderr) is not None) == (code, True)
    if "Demanding" not in model:
        assert english_in(korean.stderr) == []


def test_rebuild_rejects_a_trimmed_log_in_both_languages(pabal: Pabal, projected: Path) -> None:
    """Good tables would be replaced by ones that lack the beginning."""
    assert pabal("retention", projected, "--max-events", 3, "--yes").exit_code == 0
    rebuild = ("projections", "rebuild", projected, "tests.cli.models:Quantities")
    refused = pabal(*rebuild)
    assert (refused.exit_code, "the log begins at position 6" in refused.stderr) == (1, True)
    assert english_in(pabal("--lang", "ko", *rebuild).stderr) == []
    assert listed(pabal, projected)[0]["position"] == 8


def test_ctrl_c_during_a_rebuild_leaves_the_live_projection_unchanged(file: Path, pabal: Pabal) -> None:
    """Half a model would stay in the file and hold back retention, or the application lose its tables."""
    asyncio.run(_project(file, more=3000))
    before = listed(pabal, file, "--rows")
    terminal = Terminal(*_PABAL, "projections", "rebuild", str(file), "tests.cli.models:Slow", "--yes")
    try:
        terminal.wait_for(lambda screen: "of 3,008 events" in screen and " left" in screen)
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.end() == 130, terminal.screen
    finally:
        terminal.process.kill()
    assert "Traceback" not in terminal.screen
    assert listed(pabal, file, "--rows") == before
    (entry,) = json.loads(pabal("audit", file, "--json").stdout)
    assert (entry["action"], entry["succeeded"]) == ("rebuild", False)
