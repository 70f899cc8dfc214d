"""Write telemetry reports to the standard ``logging``, with structured fields and without payloads."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from pabal.bus.base import BaseEventBus
from pabal.delivery.default_log import LEVELS, LOGGER, mask_secrets, write_report
from pabal.ports.telemetry import Report

__all__ = ["LEVELS", "log_reports", "mask_secrets"]


def log_reports(
    bus: BaseEventBus,
    logger: logging.Logger | str = LOGGER,
    *,
    levels: Mapping[type[Report], int] | None = None,
    mask: Callable[[str], str] = mask_secrets,
) -> Callable[[], None]:
    """Log every report of ``bus``, replacing its default logging; return a function that stops it.

    The message is one line. Each field of the report is an attribute of the log record, prefixed with
    ``pabal_`` (``pabal_subscription``, ``pabal_event_id`` …); ``pabal_report`` is the report's kind. Payloads
    are not logged. An error becomes ``pabal_error_type`` and ``pabal_error``. All texts pass through
    ``mask``.

    The level follows from the report's ``severity``; ``levels`` overrides it for single kinds.

    >>> from pabal import InMemoryEventBus
    >>> from pabal.ports import telemetry
    >>> bus = InMemoryEventBus()
    >>> end = log_reports(bus, "shop.events", levels={telemetry.AttemptFailed: logging.INFO})
    >>> end()
    """
    target = logging.getLogger(logger) if isinstance(logger, str) else logger
    chosen = levels or {}

    def write(report: Report) -> None:
        level = chosen.get(type(report), LEVELS[report.severity])
        if target.isEnabledFor(level):
            write_report(target, level, report, mask)

    return bus.listen(write, logs=True)
