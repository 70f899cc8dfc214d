"""Who is told what is out of the ordinary: any number of plain functions, called with each report."""

from __future__ import annotations

import logging
from collections.abc import Callable

from pabal.delivery.handler import is_async
from pabal.errors import UsageError
from pabal.ports.telemetry import Listener, Report

_log = logging.getLogger("pabal")


class Listeners:
    """Hand reports to listeners, none of which can harm a delivery."""

    def __init__(self) -> None:
        self._attached: dict[object, Listener] = {}

    def attach(self, listener: Listener) -> Callable[[], None]:
        """Have a function called with every report from now on; return what takes it off again."""
        if not callable(listener) or is_async(listener):
            raise UsageError(f"{listener!r} is no listener; pass a plain function of the report")
        token = object()  # the same function may be attached twice, and need not be hashable
        self._attached[token] = listener

        def take_off() -> None:
            self._attached.pop(token, None)

        return take_off

    def tell(self, report: Report) -> None:
        """Hand a report to every listener; one that raises is taken off."""
        for token, listener in tuple(self._attached.items()):
            try:
                listener(report)
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException:  # what fails a test, or a CancelledError: nobody has cancelled a function
                self._attached.pop(token, None)
                _log.exception("a telemetry listener failed and was removed: %r", listener)
