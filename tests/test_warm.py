"""A process forked from one that has its modules loaded behaves like one that was started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests import warm

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")

PROGRAM = """
import json, os, sys

print(json.dumps([sys.argv[1:], os.getcwd(), sys.path[0], dict(os.environ), __name__, os.isatty(1)]))
print("so it is", file=sys.stderr)
sys.exit({"well": 0, "fail": 3}[sys.argv[1]])
"""

ENVIRONMENT = {"LETTER": "가", "LC_ALL": "C.UTF-8"}


@pytest.fixture
def program(tmp_path: Path) -> Path:
    (tmp_path / "program.py").write_text(PROGRAM)
    return tmp_path


def run(folder: Path, *arguments: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    return warm.run(*("program", *arguments), warm=("json",), cwd=folder, env=ENVIRONMENT, timeout=timeout)


@pytest.mark.parametrize("mode", ["well", "fail", "raises"])
def test_a_forked_process_behaves_like_a_started_one(program: Path, mode: str) -> None:
    """The tests would check something that no user ever runs."""
    started = subprocess.run(
        [sys.executable, "-m", "program", mode],
        cwd=program,
        env=ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    forked = run(program, mode)
    assert (forked.returncode, forked.stdout) == (started.returncode, started.stdout)
    assert forked.stderr.splitlines()[0] == started.stderr.splitlines()[0] == "so it is"
    assert forked.stderr.splitlines()[-1] == started.stderr.splitlines()[-1]


def test_a_forked_process_inherits_only_the_standard_files(tmp_path: Path) -> None:
    """Files inherited from the forking process would keep open what a test waits to see closed."""
    (tmp_path / "program.py").write_text("import os; print(sorted(os.listdir('/dev/fd')))")
    assert run(tmp_path).stdout == "['0', '1', '2', '3']\n"  # the last one belongs to the listing


async def test_a_forked_process_can_be_killed_and_reports_its_exit_code(program: Path) -> None:
    """A test that kills a process would continue before it is dead."""
    (program / "program.py").write_text("import signal; print('ready', flush=True); signal.pause()")
    process = await warm.Process.start("program", warm=("json",), cwd=program, env={})
    assert (await process.stdout.readline(), process.returncode) == (b"ready\n", None)
    os.kill(process.pid, 0)
    process.kill()
    assert await process.wait() == process.returncode == -signal.SIGKILL
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)


def test_run_raises_when_a_process_exceeds_its_timeout(tmp_path: Path) -> None:
    """A test would hang for ever, and leave a process behind."""
    (tmp_path / "program.py").write_text("import signal; signal.pause()")
    with pytest.raises(subprocess.TimeoutExpired):
        run(tmp_path, timeout=0.5)
