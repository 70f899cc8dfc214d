"""The demo's output: lines without a terminal, a live view with one, and a summary in both."""

from __future__ import annotations

import io
import os
import re
import struct
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from pabal.cli.demo_summary import print_summary
from pabal.cli.demo_view import LiveView, PlainView, Rates
from pabal.demo.events import RunStarted
from pabal.demo.meter import News
from pabal.demo.portfolio import Holding
from pabal.demo.report import DeadLetterLine, Snapshot, SubscriptionFigures, SubscriptionSummary, Summary
from pabal.demo.runs import plan
from pabal.demo.tape import simulate_tape
from tests.demo.support import LIMIT, demo, environment

pty = pytest.importorskip("pty", reason="this system has no pseudo-terminals")
fcntl = pytest.importorskip("fcntl")
termios = pytest.importorskip("termios")

ESCAPE = "\x1b"
NAMES = ("candles", "strategy", "risk", "exchange", "positions", "portfolio")


@pytest.fixture
def run() -> RunStarted:
    return plan(simulate_tape(7, 100), 7, None)


def snapshot(elapsed: float = 2.0, handled: int = 100, news: tuple[News, ...] = ()) -> Snapshot:
    return Snapshot(
        phase="playing",
        elapsed=elapsed,
        fed=handled,
        length=30_001,
        by_type={
            "market.tick-received": 30_001,
            "market.candle-closed": 11_500,
            "strategy.signal-raised": 2_436,
            "order.placed": 1_306,
            "order.rejected": 1_130,
            "order.filled": 1_306,
            "position.changed": 1_306,
        },
        subscriptions=tuple(SubscriptionFigures(name, handled, 3, 2, 1) for name in NAMES),
        retries=12,
        dead_letters=1,
        news=news,
        holdings=tuple(
            Holding(f"SIM-{name}", 1_234, Decimal("0.250753"), Decimal(39_883), last_price=Decimal(40_216))
            for name in ("BTC", "ETH", "SOL")
        ),
    )


NEWS = (
    *(
        News(1.0 + n, "retry", f"exchange: unavailable for order SIM-SOL-{n}", "again in 11 ms")
        for n in range(9)
    ),
    News(
        3.5,
        "dead letter",
        "candles: tick 10001 of SIM-ETH cannot be true: 0.1 traded at -1",
        "parked " + "x" * 90,
    ),
    *(
        News(5.0 + n, "retry", f"exchange: unavailable for order SIM-BTC-{n}", "again in 11 ms")
        for n in range(9)
    ),
)


def drawn(run: RunStarted, now: Snapshot, width: int = 80, height: int = 24) -> list[str]:
    """Return the lines of the live view's screen."""
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=True, color_system=None)
    view = LiveView(console, run, 12345, ".venv/bin/pabal demo --resume")
    view.show(now)
    with console.capture() as captured:
        console.print(view.render(now))
    return captured.get().splitlines()


# -- live -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("news", [(), NEWS[:4], NEWS])
def test_the_screen_fits_a_terminal_of_80_by_24(run: RunStarted, news: tuple[News, ...]) -> None:
    """The lower half of the view would be cut off in the most common terminal."""
    lines = drawn(run, snapshot(news=news))
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80


def test_the_screen_shows_progress_lag_retries_dead_letters_and_how_to_kill_it(run: RunStarted) -> None:
    """Something that the demo is meant to show would be nowhere on the screen."""
    screen = "\n".join(drawn(run, snapshot(news=NEWS)))
    for part in (
        "SIMULATED tape (seed 7), no real market",
        "100 of 30,001 events",
        "30,001 ticks → 11,500 candles → 2,436 signals → 1,306 orders / 1,130 rejected",
        "DEAD LETTER  candles: tick 10001 of SIM-ETH cannot be true",
        "retry  exchange: unavailable for order SIM-BTC-8; again in 11 ms",
        "kill -9 12345, then: .venv/bin/pabal demo --resume",
        "+83.50",
    ):
        assert part in screen
    assert re.search(r"exchange +orders +100 +0 +3 +2 +1", screen)


def test_the_dead_letter_stays_visible_among_many_retries(run: RunStarted) -> None:
    """Nine retries a second would push away the one line that a visitor should read."""
    screen = "\n".join(drawn(run, snapshot(news=NEWS)))
    assert screen.count("DEAD LETTER") == 1
    assert screen.count("retry  ") == 1


def test_rates_cover_the_last_seconds() -> None:
    """A rate over the whole run would hardly change when something stalls."""
    rates = Rates()
    rates.note(msgspec.structs.replace(snapshot(elapsed=0.0, handled=0), subscriptions=()))
    assert rates.of("") == 0
    rates.note(snapshot(elapsed=1.0, handled=1000))
    assert rates.of("candles") == rates.of("") == 1000
    for second in range(2, 10):
        rates.note(snapshot(elapsed=float(second), handled=1000))
    assert rates.of("candles") == 0


def test_events_already_in_the_log_do_not_count_towards_the_rate() -> None:
    """A resumed run would seem to begin at 30,000 events a second."""
    rates = Rates()
    assert rates.of("") == 0
    rates.note(msgspec.structs.replace(snapshot(elapsed=0.0, handled=0), phase="starting"))
    rates.note(snapshot(elapsed=0.1, handled=20_000))
    assert rates.of("") == 0
    rates.note(snapshot(elapsed=1.1, handled=20_100))
    assert rates.of("") == pytest.approx(100)


def test_the_final_line_is_printed_once() -> None:
    """There would be two final lines that say the same."""
    written = io.StringIO()
    started = plan(simulate_tape(7, 100), 7, None)
    view = PlainView(Console(file=written, width=200), started, Path("log.db"), 1, "pabal demo --resume")
    end = msgspec.structs.replace(snapshot(elapsed=3.0), phase="finished", retries=1)
    for _ in range(3):
        view.show(end)
    assert written.getvalue().count("finished") == 1
    assert "1 retry, 1 dead letter" in written.getvalue()


def in_terminal(folder: Path, arguments: list[str], **more: str) -> str:
    """Run the demo in a pseudo-terminal of 80 by 24 and return all its output."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    with subprocess.Popen(
        [sys.executable, "-m", "pabal", "demo", *arguments],
        cwd=folder,
        env=environment(**more),
        stdin=slave,
        stdout=slave,
        stderr=slave,
    ) as process:
        os.close(slave)
        sent = b""
        while True:
            try:
                block = os.read(master, 65536)
            except OSError:  # EIO on Linux, when the other side is closed
                break
            if not block:
                break
            sent += block
        assert process.wait(LIMIT) == 0
    os.close(master)
    return sent.decode()


def test_a_terminal_view_is_redrawn_in_place_and_followed_by_the_summary(tmp_path: Path) -> None:
    """Hundreds of screens would follow each other, or the last screen hide the summary."""
    sent = in_terminal(tmp_path, ["--events", "2000", "--speed", "2000"])
    before, _, after = sent.partition("Played a SIMULATED tape")
    assert before.count("subscription") >= 3
    assert before.count(f"{ESCAPE}[1A") >= 20
    assert "kill -9" in before
    assert "per second" not in after
    assert "profit and loss" in after


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The whole terminal output of a short run."""
    return in_terminal(tmp_path_factory.mktemp("shown"), ["--events", "500", "--speed", "max"])


def test_the_cursor_stays_visible_while_the_view_runs(shown: str) -> None:
    """kill -9, which the screen suggests, would leave a terminal without a cursor."""
    hidden, again = shown.find(f"{ESCAPE}[?25l"), shown.find(f"{ESCAPE}[?25h")
    assert hidden < again < shown.find("subscription")
    assert shown.count(f"{ESCAPE}[?25l") <= shown.count(f"{ESCAPE}[?25h")


def test_no_color_is_honoured(tmp_path: Path, shown: str) -> None:
    """A user who cannot use colours, and says so, would get them."""
    colour = re.compile(ESCAPE + r"\[[0-9;]*3[0-7]m")
    assert colour.search(shown)
    assert not colour.search(in_terminal(tmp_path, ["--events", "500", "--speed", "max"], NO_COLOR="1"))


@pytest.mark.parametrize(("arguments", "more"), [(["--plain"], {}), ([], {"TERM": "dumb"})])
def test_a_terminal_that_cannot_redraw_gets_plain_lines(
    tmp_path: Path, arguments: list[str], more: dict[str, str]
) -> None:
    """Escape sequences would litter the screen."""
    sent = in_terminal(tmp_path, ["--events", "500", "--speed", "max", *arguments], **more)
    assert f"{ESCAPE}[1A" not in sent
    assert "of 501 events" in sent


# -- plain ------------------------------------------------------------------------------------------------


def test_output_that_is_not_a_terminal_gets_lines_of_text(tmp_path: Path) -> None:
    """A log file would be full of escape sequences, or a run silent until its end."""
    ended = demo(tmp_path, ["--events", "2400", "--speed", "2000"])
    assert ended.returncode == 0, ended.stderr
    assert ESCAPE not in ended.stdout
    assert "\r" not in ended.stdout
    lines = ended.stdout.splitlines()
    assert lines[0] == "pabal demo: SIMULATED tape (seed 7), no real market"
    assert re.fullmatch(
        r"log pabal-demo.db, process \d+; if interrupted: python -m pabal demo --resume", lines[1]
    )
    progress = [line for line in lines if " of 2,401 events" in line]
    assert len(progress) >= 3
    assert any("lag: " in line and "retries" in line for line in progress)
    (letter,) = [line for line in lines if "DEAD LETTER" in line]
    assert "candles: tick 801 of SIM-" in letter


def test_each_dead_letter_is_printed_once(run: RunStarted) -> None:
    """The same line would be printed every second."""
    written = io.StringIO()
    view = PlainView(Console(file=written, width=200), run, Path("log.db"), 1, "pabal demo --resume")
    with view:
        for second in range(5):
            view.show(snapshot(elapsed=float(second), news=NEWS))
    assert written.getvalue().count("DEAD LETTER") == 1


# -- summary ----------------------------------------------------------------------------------------------

SUMMARY = Summary(
    tape="simulated",
    simulated=True,
    file="pabal-demo.db",
    durability="full",
    resumed_at=None,
    seconds=10.04,
    events=31_908,
    by_type={"order.filled": 91, "market.tick-received": 30_001, "demo.run-started": 1},
    handled=33_353,
    retried=15,
    parked=1,
    events_per_second=3178.2,
    paced_at=3000.0,
    latency_p50=2.345,
    latency_p99=170.12,
    subscriptions=(SubscriptionSummary("exchange", 91, 11, 0, 2.25, None),),
    dead_letters=(
        DeadLetterLine("candles", "market.tick-received", "id-1", 5, "tick 10001 cannot be true", True),
    ),
    holdings=(),
    realized=Decimal("790.35"),
    unrealized=Decimal("73.93"),
    fees=Decimal("364.38"),
    profit=Decimal("499.90"),
    result="3a98abaf2790d306",
)


def printed(summary: Summary) -> str:
    console = Console(file=io.StringIO(), width=80)
    with console.capture() as captured:
        print_summary(console, summary)
    return captured.get()


def test_the_summary_shows_every_documented_figure() -> None:
    """A figure would be missing at the end of the run."""
    output = printed(SUMMARY)
    for pattern in (
        r"Played a SIMULATED tape in 10.0 s\.",
        r"ticks +market.tick-received +30,001",
        r"handled +33,353",
        r"retried +15",
        r"parked +1 ",
        r"events/s +3,178",
        r"publish → handled +p50 2.3 ms, p99 170.1 ms",
        r"exchange +orders +91 +11 +0 +2.2 +-",
        r"profit and loss \+499.90 in paper money: realized \+790.35, unrealized \+73.93, fees -364.38",
        r"candles gave up market.tick-received id-1 after 5 attempts: tick 10001 cannot be true \(the",
        r"result 3a98abaf2790d306",
        r"log +pabal-demo.db, 31,908 events, durability full",
    ):
        assert re.search(pattern, output), pattern
    assert (
        output.index("market.tick-received") < output.index("order.filled") < output.index("demo.run-started")
    )


def test_the_summary_says_if_nothing_was_left_to_handle() -> None:
    """A p99 without any data would be printed as 0 ms."""
    output = printed(
        msgspec.structs.replace(
            SUMMARY, resumed_at=30_001, handled=0, latency_p50=None, latency_p99=None, paced_at=None
        )
    )
    assert "Resumed after 30,001 events of the tape" in output
    assert "nothing was left to handle" in output
    assert "as fast as possible" in output
