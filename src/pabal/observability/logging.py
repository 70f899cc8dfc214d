"""Write telemetry reports to the standard ``logging``, with structured fields and without payloads."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping

import msgspec

from pabal.bus.base import BaseEventBus
from pabal.delivery.tracebacks import message_of
from pabal.ports.telemetry import Report

__all__ = ["LEVELS", "log_reports", "mask_secrets"]

LEVELS = {"info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
"""The level of a report by its ``severity``."""

_SECRET = re.compile(
    r"(?i)(\b\w*(?:passw(?:or)?ds?|pwd|passphrase|tokens?|authorization|credentials?|secrets?"
    r"|(?:api|access|private|secret|signing|encryption)[_-]?keys?)\b['\"]?\s*[=:]\s*)"
    r"(?:(?:bearer|basic)\s+)?(?:'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\"|[^\s,;&)}\]]+)"
)
_BEARER = re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]{8,}")
_USERINFO = re.compile(r"(://[^\s/:@]*):[^\s/]+@")


def mask_secrets(text: str) -> str:
    """Replace what looks like a password, a token or a key in ``text`` with ``***``.

    >>> mask_secrets("login failed: password=hunter2, user=kim")
    'login failed: password=***, user=kim'
    >>> mask_secrets("cannot reach redis://app:s3cret@cache:6379/0")
    'cannot reach redis://app:***@cache:6379/0'
    """
    text = _USERINFO.sub(r"\1:***@", text)
    text = _SECRET.sub(r"\1***", text)
    return _BEARER.sub(r"\1 ***", text)


def log_reports(
    bus: BaseEventBus,
    logger: logging.Logger | str = "pabal.telemetry",
    *,
    levels: Mapping[type[Report], int] | None = None,
    mask: Callable[[str], str] = mask_secrets,
) -> Callable[[], None]:
    """Log every report of ``bus``; return a function that ends it.

    The message is one line. Each field of the report is an attribute of the log record under its name with
    ``pabal_`` before it (``pabal_subscription``, ``pabal_event_id`` …), beside ``pabal_report``, its kind.
    Payloads are not logged; an error becomes ``pabal_error_type`` and ``pabal_error``, all through ``mask``.

    The level is that of the report's ``severity``; ``levels`` overrides it for single kinds.

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
            fields = _fields_of(report, mask)
            shown = " ".join(f"{name}={value!r}" for name, value in fields.items() if value is not None)
            kind = type(report).__name__
            extra = {"pabal_report": kind, **{f"pabal_{name}": value for name, value in fields.items()}}
            target.log(level, "%s %s", kind, shown, extra=extra)

    return bus.listen(write)


def _fields_of(report: Report, mask: Callable[[str], str]) -> dict[str, str | int | float | None]:
    fields: dict[str, str | int | float | None] = {}
    for name, value in msgspec.structs.asdict(report).items():
        if isinstance(value, BaseException):
            fields["error_type"] = type(value).__name__
            value = message_of(value)
        fields[name] = mask(value) if isinstance(value, str) else value
    return fields
