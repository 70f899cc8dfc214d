"""Run a bus in Qt's event loop (extra ``qt``, beside PySide6 or PyQt6), so handlers may touch widgets."""

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

    ``show`` is called once the bus delivers; it makes and shows the windows, may be async, and what it
    returns is kept alive. Handlers run in Qt's thread: async ones update widgets directly. Sync handlers run
    in threads of their own, so they must not. Slots and other threads use ``bus.publish_threadsafe``.

    Closing the last window, or ``QApplication.quit()``, ends it; the loop runs on until the bus has stopped.
    Ctrl-C stops the bus without draining it, and raises KeyboardInterrupt, as ``asyncio.run`` does; a handler
    for SIGINT of your own is left alone. Raises what ``show`` raises, and MissingExtraError without qasync or
    a binding of Qt.
    """
    try:
        import qasync  # type: ignore[import-untyped]
    except ImportError as error:
        raise MissingExtraError(feature="run_in_qt", extra="qt") from error
    application: Any = qasync.QApplication.instance() or qasync.QApplication(sys.argv[:1])
    quits = application.quitOnLastWindowClosed()
    application.setQuitOnLastWindowClosed(False)  # the loop has to outlive the windows, for the bus to end
    loop = qasync.QEventLoop(application)
    closed = asyncio.Event()

    async def live() -> None:
        async with bus:
            windows = show()
            if inspect.isawaitable(windows):
                windows = await windows
            await closed.wait()
            del windows

    application.lastWindowClosed.connect(closed.set)
    try:
        task = loop.create_task(live())
        task.add_done_callback(lambda _: loop.stop())
        interrupted = _cancel_on_interrupt(loop, task)
        # Not run_until_complete(): after a quit() it would go on with tasks outside of any running loop.
        while not task.done():
            loop.run_forever()
            closed.set()  # if it was quit() that ended the loop under the bus: once more, for its end
        if task.cancelled() and interrupted:
            raise KeyboardInterrupt
        task.result()
    finally:
        application.lastWindowClosed.disconnect(closed.set)
        application.setQuitOnLastWindowClosed(quits)
        loop.close()


def _cancel_on_interrupt(loop: asyncio.AbstractEventLoop, task: asyncio.Task[None]) -> list[int]:
    """Let Ctrl-C cancel ``task``, and return the list of the signals that came.

    Python's own handler would wait until Qt calls Python again, and raise wherever that happens to be: Qt
    prints and drops it there, and the program runs on.
    """
    came: list[int] = []

    def cancel() -> None:
        came.append(signal.SIGINT)
        task.cancel()

    if (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    ):
        with contextlib.suppress(NotImplementedError):  # Windows has no such handlers
            loop.add_signal_handler(signal.SIGINT, cancel)
    return came
