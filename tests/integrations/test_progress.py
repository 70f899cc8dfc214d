"""Progress of building a projection: a bar on a terminal, occasional lines elsewhere."""

from __future__ import annotations

import sys
from datetime import timedelta
from decimal import Decimal
from io import StringIO
from pathlib import Path

import pytest

from pabal import SqliteEventStorage
from pabal.eventsourcing.pace import BuildProgress, Pace
from pabal.integrations.progress import describe, show_progress
from tests.eventsourcing.read_models import Balances
from tests.eventsourcing.samples import Deposited


class _Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class _Terminal(StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock() -> _Clock:
    return _Clock()


@pytest.fixture(autouse=True)
def _ordinary_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "120")


def test_the_rate_is_measured_over_the_last_half_minute(clock: _Clock) -> None:
    """After a slow start, the estimated time left would be wrong during the whole build."""
    pace = Pace(clock)
    assert pace.measure(1000, 50_000) == BuildProgress(1000, 50_000, None)
    assert pace.measure(1000, 50_000).per_second is None
    for position in (2000, 3000, 4000):
        clock.now += 10
        assert pace.measure(position, 50_000).per_second == 100
    for position in (14_000, 24_000):
        clock.now += 10
        pace.measure(position, 50_000)
    clock.now += 10
    measured = pace.measure(34_000, 50_000)
    assert measured.per_second == 1000
    assert measured.left == timedelta(seconds=16)


def test_the_rate_of_a_resumed_build_excludes_earlier_progress(clock: _Clock) -> None:
    """A resumed build would claim to be almost done."""
    pace = Pace(clock)
    pace.measure(900_000, 1_000_000)
    clock.now += 10
    assert pace.measure(901_000, 1_000_000).left == timedelta(seconds=990)


def test_without_a_terminal_progress_is_printed_as_occasional_lines(clock: _Clock) -> None:
    """A log file would get a thousand lines, or escape codes, or nothing for an hour."""
    stream = StringIO()
    with show_progress("open_orders", stream=stream, every=5, clock=clock) as progress:
        for position in range(1000, 13_000, 1000):
            progress(position, 20_000)
            clock.now += 1
    assert stream.getvalue().splitlines() == [
        "open_orders: 6,000 of 20,000 events, 1,000/s, 0:00:14 left",
        "open_orders: 11,000 of 20,000 events, 1,000/s, 0:00:09 left",
    ]


def test_a_bar_is_shown_on_a_terminal_and_cleared_at_the_end(clock: _Clock) -> None:
    """A user who waits for a release would see nothing, or half a bar would remain."""
    terminal = _Terminal()
    with show_progress("open [orders]:key:", stream=terminal, clock=clock) as progress:
        progress(1000, 20_000)
        clock.now += 2
        progress(5000, 20_000)
    shown = terminal.getvalue()
    assert "open [orders]:key:" in shown
    assert "5,000 of 20,000 events, 2,000/s, 0:00:08 left" in shown
    assert shown.endswith("\x1b[2K")


def test_without_rich_a_terminal_shows_lines(clock: _Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """An application without the extra would not start."""
    for name in ("rich.console", "rich.markup", "rich.progress"):
        monkeypatch.setitem(sys.modules, name, None)
    terminal = _Terminal()
    with show_progress("open_orders", stream=terminal, every=0, clock=clock) as progress:
        progress(5, 10)
    assert terminal.getvalue() == "open_orders: 5 of 10 events\n"


def test_show_progress_works_without_a_standard_error_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """On Windows, its standard error is None, and building its projection would fail."""
    monkeypatch.setattr(sys, "stderr", None)
    with show_progress("orders") as progress:
        progress(1, 2)


def test_the_formatter_replaces_the_progress_text(clock: _Clock) -> None:
    """A Korean operator would see English text."""
    stream = StringIO()
    with show_progress(
        "주문", stream=stream, every=0, formatter=lambda measured: f"{measured.head}개", clock=clock
    ) as p:
        p(5, 10)
    assert stream.getvalue() == "주문: 10개\n"
    assert describe(BuildProgress(5, 10, None)) == "5 of 10 events"


async def test_a_projection_with_nothing_to_build_shows_no_progress(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each start of an application would print noise."""
    terminal = _Terminal()
    async with SqliteEventStorage(tmp_path / "log.db") as storage:
        await storage.store_events([Deposited("a", Decimal(1))] * 1 + [Deposited("b", Decimal(1))])
        balances = Balances(storage)
        for stream in (terminal, _Terminal()):
            with show_progress("balances", stream=stream) as progress:
                await balances.start(progress=progress)
            await balances.stop()
        assert stream.getvalue() == ""
    assert "2 of 2 events" in terminal.getvalue()
    assert capsys.readouterr() == ("", "")
