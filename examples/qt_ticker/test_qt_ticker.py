"""The ticker without a screen, each test in its own process: a process can have only one QApplication."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from examples.qt_ticker.events import OrderRequested, PriceTicked
from pabal import SqliteEventStorage

ROOT = Path(__file__).parents[2]
_CLICK = """
import sys
from examples.qt_ticker.events import OrderRequested
from examples.qt_ticker.window import TickerWindow
from pabal import EventBusFactory
from pabal.integrations.qt import run_in_qt

bus = EventBusFactory.create_default_event_bus(sys.argv[1])
shown = []

async def show():
    window = TickerWindow(bus)
    window.show()

    async def order_shown(event):
        await window.show_order(event)
        shown.append(window.orders.count())
        END

    bus.subscribe(OrderRequested, order_shown, name="show")
    window.buy.click()
    return window

run_in_qt(bus, show)
print("ended", shown, bus.is_running)
"""


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "QT_QPA_PLATFORM": "offscreen"}
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=120
    )


async def _prices_and_orders(file: Path) -> tuple[int, int]:
    async with SqliteEventStorage(file) as storage:
        by_type = (await storage.get_event_statistics())["events_by_type"]
    return by_type.get(PriceTicked.event_type, 0), by_type.get(OrderRequested.event_type, 0)


async def test_prices_from_a_thread_reach_the_widgets_and_the_window_closes(tmp_path: Path) -> None:
    """A desktop application would hang or crash at its end, or lose prices."""
    # With this many, PySide6 6.12.0 crashed Python 3.11: each signal lost it a reference.
    result = _run("-m", "examples.qt_ticker", "--file", str(tmp_path / "ticker.db"), "--prices", "40")
    assert result.returncode == 0, result.stderr
    prices, _ = await _prices_and_orders(tmp_path / "ticker.db")
    assert prices >= 40


async def test_a_click_publishes_an_order_and_the_handler_lists_it(tmp_path: Path) -> None:
    """A slot could not publish, or a handler could not use a widget."""
    result = _run("-c", _CLICK.replace("END", "window.close()"), str(tmp_path / "log.db"))
    assert (result.stdout, result.returncode) == ("ended [1] False\n", 0), result.stderr
    assert await _prices_and_orders(tmp_path / "log.db") == (0, 1)


def test_quitting_the_application_stops_the_bus(tmp_path: Path) -> None:
    """The loop would end while the bus still has progress to save."""
    quit_now = "from PySide6.QtWidgets import QApplication; QApplication.quit()"
    result = _run("-c", _CLICK.replace("END", quit_now), str(tmp_path / "log.db"))
    assert (result.stdout, result.returncode) == ("ended [1] False\n", 0), result.stderr


def test_run_in_qt_raises_an_error_from_creating_the_window() -> None:
    """An application that fails to start would hang without a window."""
    script = """
from pabal import InMemoryEventBus
from pabal.integrations.qt import run_in_qt
bus = InMemoryEventBus()
try:
    run_in_qt(bus, lambda: 1 / 0)
except ZeroDivisionError:
    print("raised", bus.is_running)
"""
    result = _run("-c", script)
    assert (result.stdout, result.returncode) == ("raised False\n", 0), result.stderr


def test_an_interrupt_ends_an_idle_window(tmp_path: Path) -> None:
    """Ctrl-C would do nothing, or Qt would drop the exception, and the program would keep running."""
    script = """
import sys
from examples.qt_ticker.window import TickerWindow
from pabal import EventBusFactory
from pabal.integrations.qt import run_in_qt

bus = EventBusFactory.create_default_event_bus(sys.argv[1])

def show():
    window = TickerWindow(bus)
    window.show()
    print("shown", flush=True)
    return window

try:
    run_in_qt(bus, show)
except KeyboardInterrupt:
    print("interrupted", bus.is_running)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "log.db")],
        cwd=ROOT,
        env={**os.environ, "QT_QPA_PLATFORM": "offscreen"},
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "shown\n"
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=20)[0] == "interrupted False\n"
    finally:
        process.kill()
        process.communicate()
    assert os.listdir(tmp_path) == ["log.db"]  # no write-ahead log left: the storage was closed


def test_run_in_qt_keeps_a_signal_handler_of_the_application() -> None:
    """An application's own handler for Ctrl-C would no longer be called."""
    script = """
import signal
from qasync import QApplication
from pabal import InMemoryEventBus
from pabal.integrations.qt import run_in_qt

def mine(number, frame): pass

def show():
    print(signal.getsignal(signal.SIGINT) is mine)
    QApplication.quit()

signal.signal(signal.SIGINT, mine)
run_in_qt(InMemoryEventBus(), show)
"""
    result = _run("-c", script)
    assert (result.stdout, result.returncode) == ("True\n", 0), result.stderr


def test_without_qasync_the_error_says_how_to_install_it() -> None:
    """Users would see a bare ImportError from inside pabal."""
    script = """
import sys
sys.modules["qasync"] = None
from pabal import InMemoryEventBus
from pabal.errors import MissingExtraError
from pabal.integrations.qt import run_in_qt
try:
    run_in_qt(InMemoryEventBus(), print)
except MissingExtraError as error:
    print(error)
"""
    assert 'pip install "pabal[qt]"' in _run("-c", script).stdout
