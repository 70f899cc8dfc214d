"""Run a bus in Qt's event loop (extra ``qt``, with PySide6 or PyQt6), so that handlers may use widgets."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

from pabal.bus.base import BaseEventBus
from pabal.errors import MissingExtraError

__all__ = ["run_in_qt"]


def run_in_qt(bus: BaseEventBus, show: Callable[[], Any]) -> None:
    """Run ``bus`` in Qt's event loop until the last window is closed, then drain and stop it.

    ``show`` is called once the bus is started. It creates and shows the windows and may be async; its result
    is kept alive. Async handlers run in Qt's thread and may update widgets directly. Sync handlers run in
    other threads, so they must not. From slots and other threads, publish with ``bus.publish_threadsafe``.

    Closing the last window or ``QApplication.quit()`` ends it; the loop keeps running until the bus has
    stopped. Ctrl-C stops the bus without draining it and raises KeyboardInterrupt, as ``asyncio.run`` does;
    your own handler for SIGINT is left alone. Raises what ``show`` raises, and MissingExtraError if qasync
    or the Qt binding is not installed.
    """
    try:
        import qasync  # type: ignore[import-untyped]
    except ImportError as error:
        raise MissingExtraError(feature="run_in_qt", extra="qt") from error
    application: Any = qasync.QApplication.instance() or qasync.QApplication(sys.argv[:1])
    quit_on_last_window = application.quitOnLastWindowClosed()
    application.setQuitOnLastWindowClosed(False)  # the loop must outlive the windows, to stop the bus
    loop = qasync.QEventLoop(application)
    closed = asyncio.Event()

    async def run_bus() -> None:
        async with bus:
            windows = show()
            if inspect.isawaitable(windows):
                windows = await windows
            await closed.wait()
            del windows

    application.lastWindowClosed.connect(closed.set)
    try:
        task = loop.create_task(run_bus())
        task.add_done_callback(lambda _: loop.stop())
        interrupted = _cancel_on_interrupt(loop, task)
        # Not run_until_complete(): after a quit() it would resume tasks outside of a running loop.
        while not task.done():
            loop.run_forever()
            closed.set()  # if quit() stopped the loop while the bus was running: run it again to stop the bus
        if task.cancelled() and interrupted:
            raise KeyboardInterrupt
        task.result()
    finally:
        application.lastWindowClosed.disconnect(closed.set)
        application.setQuitOnLastWindowClosed(quit_on_last_window)
        loop.close()


def _cancel_on_interrupt(loop: asyncio.AbstractEventLoop, task: asyncio.Task[None]) -> list[int]:
    """Make Ctrl-C cancel ``task``, and return the list of received signals.

    Python's own handler would run only when Qt next calls Python, and raise there; Qt then prints and drops
    the exception, and the program keeps running.
    """
    received: list[int] = []

    def cancel() -> None:
        received.append(signal.SIGINT)
        task.cancel()

    if (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    ):
        with contextlib.suppress(NotImplementedError):  # not available on Windows
            loop.add_signal_handler(signal.SIGINT, cancel)
    return received
