"""Telemetry listeners: any number of plain functions, called with each report."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

from pabal.delivery.default_log import DefaultLog
from pabal.delivery.handler import is_async
from pabal.errors import UsageError
from pabal.ports.telemetry import Listener, Report

_log = logging.getLogger("pabal")


class Listeners:
    """Pass reports to listeners, and remove a listener that raises, so that none can harm a delivery.

    Warnings and errors are also logged, unless a listener that logs is attached.
    """

    def __init__(self) -> None:
        self._attached: dict[object, Listener] = {}
        self._logging: set[object] = set()
        self._own_log = DefaultLog()

    def attach(self, listener: Listener, *, logs: bool = False) -> Callable[[], None]:
        """Call a function with every report from now on; return a function that removes it."""
        if not callable(listener) or is_async(listener):
            raise UsageError(f"{listener!r} is not a listener; pass a plain function of the report")
        token = object()  # the same function may be attached twice, and need not be hashable
        self._attached[token] = listener
        if logs:
            self._logging.add(token)
        return partial(self._detach, token)

    def _detach(self, token: object) -> None:
        self._attached.pop(token, None)
        self._logging.discard(token)

    def notify(self, report: Report) -> None:
        """Pass a report to every listener; a listener that raises is removed."""
        if not self._logging:
            self._own_log(report)
        for token, listener in tuple(self._attached.items()):
            try:
                listener(report)
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException:  # as pytest's failures, or a CancelledError that it raises itself
                self._detach(token)
                _log.exception("a telemetry listener failed and was removed: %r", listener)
