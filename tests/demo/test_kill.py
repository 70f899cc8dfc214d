"""kill -9 midway, then ``--resume``: the same orders, fills and positions as an uninterrupted run."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import warm
from tests.demo.support import LIMIT, demo, environment, outcome, write_candles

pytestmark = [
    pytest.mark.crash,
    pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL"),
]

FULL = os.environ.get("PABAL_FULL") == "1"
"""Whether to try all points; by default, only the first ones of each list."""
CANDLES = ("--tape", "x-1m.csv", "--file")
TICKS = ("--events", "4000", "--speed", "max")
POINTS = [
    ("committed:demo.run-started", 1),
    ("committed:market.tick-received", 2500),
    ("committed:order.placed", 4),
    ("committed:order.filled", 3),
    ("handling:order.placed", 5),
    ("handled:market.tick-received", 1777),
    ("saving", 9),
    ("parked", 1),
    ("committed:market.tick-received", 1),
    ("committed:market.candle-closed", 60),
    ("committed:strategy.signal-raised", 5),
    ("committed:position.changed", 6),
    ("committed:demo.run-finished", 1),
    ("handled:strategy.signal-raised", 6),
    ("handled:order.filled", 4),
    ("saved", 12),
    ("failed", 3),
][: None if FULL else 8]
CANDLE_POINTS = [
    ("committed:order.filled", 20),
    ("handled:market.candle-closed", 444),
    ("committed:market.candle-closed", 700),
    ("failed", 6),
][: None if FULL else 2]


def killed(folder: Path, point: str, count: int, arguments: tuple[str, ...]) -> bool:
    """Run the demo until it kills itself at a point; return whether it got there."""
    ended = warm.run(
        *("tests.demo.killed", point, str(count), "--", *arguments),
        warm=warm.COMMANDS,
        cwd=folder,
        env=environment(),
        timeout=LIMIT,
    )
    assert ended.returncode in (0, -signal.SIGKILL), ended.stderr
    return ended.returncode == -signal.SIGKILL


def finished(folder: Path, *arguments: str) -> dict[str, Any]:
    """Run the demo to its end and return its summary."""
    ended = demo(folder, [*arguments, "--json"])
    assert ended.returncode == 0, ended.stderr
    summary: dict[str, Any] = json.loads(ended.stdout)
    return summary


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Any]:
    """An uninterrupted run of the simulated tape: its summary and outcome."""
    folder = tmp_path_factory.mktemp("whole")
    summary = finished(folder, *TICKS, "--file", "log.db")
    assert summary["by_type"]["order.filled"] > 6
    return summary, outcome(folder / "log.db")


@pytest.fixture(scope="module")
def whole_candles(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Any]:
    """An uninterrupted run of a tape of candles."""
    folder = tmp_path_factory.mktemp("candles")
    write_candles(folder / "x-1m.csv", 1500)
    summary = finished(folder, *CANDLES, "whole.db")
    assert summary["by_type"]["order.filled"] > 20
    return summary, outcome(folder / "whole.db")


@pytest.mark.parametrize(("point", "count"), POINTS)
def test_a_run_killed_at_any_point_and_resumed_has_the_same_result(
    tmp_path: Path, whole: tuple[dict[str, Any], Any], point: str, count: int
) -> None:
    """A crash would lose an order, double it, or fill it at another price (Promises 4 and 5 from outside)."""
    assert killed(tmp_path, point, count, (*TICKS, "--file", "log.db"))
    summary = finished(tmp_path, "--resume", "--file", "log.db", "--speed", "max")
    assert outcome(tmp_path / "log.db") == whole[1]
    assert summary["result"] == whole[0]["result"]
    assert summary["holdings"] == whole[0]["holdings"]
    assert summary["profit"] == whole[0]["profit"]
    assert summary["parked"] == 1


@pytest.mark.parametrize(("point", "count"), CANDLE_POINTS)
def test_a_candle_tape_killed_and_resumed_has_the_same_result(
    tmp_path: Path, whole_candles: tuple[dict[str, Any], Any], point: str, count: int
) -> None:
    """Candles from a tape enter by another path than built ones, which must survive a crash too."""
    write_candles(tmp_path / "x-1m.csv", 1500)
    assert killed(tmp_path, point, count, (*CANDLES, "log.db"))
    summary = finished(tmp_path, "--resume", "--file", "log.db")
    whole, expected_outcome = whole_candles
    assert outcome(tmp_path / "log.db") == expected_outcome
    assert (summary["result"], summary["profit"]) == (whole["result"], whole["profit"])


def test_a_run_killed_repeatedly_while_resuming_has_the_same_result(
    tmp_path: Path, whole: tuple[dict[str, Any], Any]
) -> None:
    """If a resumed run were less careful than the first one, a second crash would do damage."""
    draw = random.Random(11)
    path = tmp_path / "log.db"
    assert killed(tmp_path, "saved", 3, (*TICKS, "--file", "log.db"))
    kills = 1
    while kills < 8:
        point, most = draw.choice(
            [
                ("committed:market.tick-received", 600),
                ("committed:market.candle-closed", 20),
                ("handled:market.tick-received", 600),
                ("committed:order.filled", 2),
                ("saving", 8),
            ]
        )
        arguments = ("--resume", "--file", "log.db", "--speed", "max")
        if not killed(tmp_path, point, draw.randint(1, most), arguments):
            break
        kills += 1
    assert kills >= 4
    summary = finished(tmp_path, "--resume", "--file", "log.db", "--speed", "max")
    assert outcome(path) == whole[1]
    assert summary["result"] == whole[0]["result"]


def test_a_run_killed_by_kill_9_and_resumed_has_the_same_result(
    tmp_path: Path, whole: tuple[dict[str, Any], Any]
) -> None:
    """It does what the documentation says: kill -9 the process named on the screen, then --resume."""
    command = [sys.executable, "-m", "pabal", "demo", "--events", "4000", "--speed", "2000"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "playing: " in line and "playing: 0 of" not in line:
                os.kill(process.pid, signal.SIGKILL)
                break
        assert process.wait(LIMIT) == -signal.SIGKILL
    ended = demo(tmp_path, ["--resume", "--speed", "max"])
    assert ended.returncode == 0, ended.stderr
    assert "Resumed after" in ended.stdout
    assert outcome(tmp_path / "pabal-demo.db") == whole[1]
    assert f"result {whole[0]['result']}" in ended.stdout
