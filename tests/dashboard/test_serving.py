"""``pabal dashboard`` as a process, and its answer to a target that is not a log."""

from __future__ import annotations

import asyncio
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from pabal import InMemoryEventStorage, SqliteEventStorage
from pabal.dashboard import create_dashboard
from pabal.dashboard.server import QuietServer, ensure_token, listen
from pabal.errors import MissingExtraError, UsageError
from tests.dashboard.support import Shipped

PABAL = [sys.executable, "-m", "pabal"]
LONG = 60


@pytest.fixture
def log(tmp_path: Path) -> Path:
    async def fill() -> None:
        async with SqliteEventStorage(tmp_path / "log.db") as storage:
            await storage.store_event(Shipped("p-1", 1))

    asyncio.run(fill())
    return tmp_path / "log.db"


@contextmanager
def started(*arguments: str, stderr: int | None = None) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run the command and yield it with the address it prints; end it like Ctrl-C."""
    command = [*PABAL, "dashboard", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True)
    try:
        assert process.stdout is not None
        found = re.search(r"http://\S+", process.stdout.readline())
        assert found
        yield process, found[0]
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(LONG)
        assert process.stdout is not None
        process.stdout.close()


def test_the_command_serves_a_file_until_ctrl_c(log: Path) -> None:
    """The command would end at once, serve nothing, or leave something running."""
    with started(str(log), "--port", "0") as (process, address):
        assert httpx.get(f"{address}api/events", timeout=LONG).json()["items"][0]["aggregate_id"] == "p-1"
        with httpx.stream("GET", f"{address}api/live", timeout=LONG) as stream:
            lines = stream.iter_lines()
            assert any(line == "event: report" for line in lines)
    assert process.returncode == 0


def test_ctrl_c_with_an_open_page_exits_without_a_traceback(log: Path) -> None:
    """A user who ends it with a page open, as is usual, would see a traceback of the server."""
    with started(str(log), "--port", "0", stderr=subprocess.PIPE) as (process, address):
        with httpx.stream("GET", f"{address}api/live", timeout=LONG) as stream:
            lines = stream.iter_lines()
            assert any(line == "event: report" for line in lines)
            process.send_signal(signal.SIGINT)
            assert all(line != "event: trouble" for line in lines)  # until the stream ends
        assert process.stderr is not None
        assert process.stderr.read() == ""
        process.stderr.close()
    assert process.returncode == 0


def test_a_second_ctrl_c_does_not_interrupt_the_shutdown() -> None:
    """A user who presses it twice would see a traceback of the interrupted shutdown."""
    server = QuietServer(uvicorn.Config(create_dashboard(InMemoryEventStorage())))
    for _ in range(2):
        server.handle_exit(signal.SIGINT, None)
    assert (server.should_exit, server.force_exit) == (True, False)


def test_listening_on_another_host_generates_and_requires_a_token(log: Path) -> None:
    """Anyone in the same network could read the log."""
    with started(str(log), "--host", "0.0.0.0", "--port", "0") as (_, address):
        place, _, token = address.partition("#token=")
        assert len(token) >= 16
        assert httpx.get(f"{place}api/events", timeout=LONG).status_code == 401
        known = httpx.get(f"{place}api/events", headers={"authorization": f"Bearer {token}"}, timeout=LONG)
        assert known.status_code == 200


@pytest.mark.parametrize(
    ("target", "status", "words"),
    [
        ("nothing.db", 3, "no such file"),
        ("text.db", 3, "not a pabal database"),
        ("http://127.0.0.1:1/", 2, "has no log"),
    ],
)
def test_dashboard_rejects_a_target_that_is_not_a_log(
    tmp_path: Path, target: str, status: int, words: str
) -> None:
    """A typing error in the path would create a new file, or end in a traceback."""
    (tmp_path / "text.db").write_text("no database\n" * 20)
    run = subprocess.run(
        [*PABAL, "dashboard", target], capture_output=True, text=True, cwd=tmp_path, timeout=LONG, check=False
    )
    assert (run.returncode, run.stdout) == (status, "")
    assert words in run.stderr
    assert "Traceback" not in run.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["text.db"]


def test_dashboard_reports_a_port_in_use(log: Path) -> None:
    """The dashboard of another log would be opened instead, silently."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        run = subprocess.run(
            [*PABAL, "dashboard", str(log), "--port", port],
            capture_output=True,
            text=True,
            timeout=LONG,
            check=False,
        )
    assert run.returncode == 3
    assert run.stderr == f"pabal dashboard: port {port} is in use; choose another with --port\n"


@pytest.mark.parametrize(
    ("lang", "words"),
    [
        ("en", 'the dashboard needs an optional dependency: pip install "pabal[dashboard]"'),
        ("ko", 'pip install "pabal[dashboard]"'),
    ],
)
def test_without_the_dashboard_extra_the_command_names_the_package_to_install(
    log: Path, lang: str, words: str
) -> None:
    """A new user would see the name of an unknown module."""
    script = (
        "import sys; sys.modules['starlette'] = None\n"
        "from pabal import InMemoryEventStorage\n"
        "from pabal.dashboard import create_dashboard\n"
        "from pabal.errors import MissingExtraError\n"
        "try: create_dashboard(InMemoryEventStorage())\n"
        "except MissingExtraError as error: assert error.extra == 'dashboard'\n"
        "from pabal.cli import main; main()"
    )
    run = subprocess.run(
        [sys.executable, "-c", script, "--lang", lang, "dashboard", str(log)],
        capture_output=True,
        text=True,
        timeout=LONG,
        check=False,
    )
    assert (run.returncode, run.stdout) == (2, "")
    assert words in run.stderr
    assert len(run.stderr.splitlines()) == 1
    assert (re.search("[가-힣]", run.stderr) is not None) == (lang == "ko")


def test_a_missing_pabal_module_is_not_reported_as_a_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user who has the extra would be told to install it, and never learn what is broken."""
    monkeypatch.setitem(sys.modules, "pabal.dashboard.app", None)
    with pytest.raises(ModuleNotFoundError, match="app") as caught:
        create_dashboard(InMemoryEventStorage())
    assert not isinstance(caught.value, MissingExtraError)


@pytest.mark.parametrize(
    ("lang", "words"),
    [
        ("en", "is not a host to listen on: a part of it is empty, or too long"),
        ("ko", "들을 수 있는 주소가 아닙니다: 이름의 한 부분이 비었거나 너무 깁니다"),
    ],
)
def test_dashboard_rejects_an_invalid_host(log: Path, lang: str, words: str) -> None:
    """A dot too many in the command would end in a traceback."""
    run = subprocess.run(
        [sys.executable, "-m", "pabal", "--lang", lang, "dashboard", str(log), "--host", "a..b"],
        capture_output=True,
        text=True,
        timeout=LONG,
        check=False,
    )
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.startswith("pabal dashboard: 'a..b'")
    assert run.stderr.endswith(f"{words}\n")


@pytest.mark.parametrize("port", [70000, -1, "8420", None])
def test_dashboard_rejects_an_invalid_port(port: Any) -> None:
    """With a digit too many it would be served on port 4464; with a sign, the host be called invalid."""
    with pytest.raises(UsageError, match=f"port is {port!r}; it must be"):
        listen("127.0.0.1", port)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.9.9.9"])
def test_listening_on_this_machine_needs_no_token(host: str) -> None:
    """Users would have to copy a token to look at their own file."""
    assert ensure_token(host, {})[1] is None
    assert ensure_token("shop.example.com", {})[1] is not None
    assert ensure_token("0.0.0.0", {"token": "given"}) == ({"token": "given"}, "given")
