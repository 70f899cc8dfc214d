"""Turn reports into lines of ``logging``; and the log that a bus writes when no listener does."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable

import msgspec

from pabal.delivery.tracebacks import message_of
from pabal.ports.telemetry import Report

LOGGER = "pabal.telemetry"
LEVELS = {"info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
"""The ``logging`` level for each ``severity`` of a report."""

_QUIET = 10.0
"""Seconds in which similar reports are counted instead of written."""
_MOST_TOLD = 1_000

_SECRET = re.compile(
    r"(?i)(\b\w*(?:passw(?:or)?ds?|pwd|passphrase|tokens?|authorization|credentials?|secrets?"
    r"|(?:api|access|private|secret|signing|encryption)[_-]?keys?)\b['\"]?\s*[=:]\s*)"
    r"(?:(?:bearer|basic)\s+)?(?:'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\"|[^\s,;&)}\]]+)"
)
_BEARER = re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]{8,}")
_USERINFO = re.compile(r"(://[^\s/:@]*):[^\s/]+@")


def mask_secrets(text: str) -> str:
    """Replace everything in ``text`` that looks like a password, token or key with ``***``.

    >>> mask_secrets("login failed: password=hunter2, user=kim")
    'login failed: password=***, user=kim'
    >>> mask_secrets("cannot reach redis://app:s3cret@cache:6379/0")
    'cannot reach redis://app:***@cache:6379/0'
    """
    text = _USERINFO.sub(r"\1:***@", text)
    text = _SECRET.sub(r"\1***", text)
    return _BEARER.sub(r"\1 ***", text)


def write_report(
    logger: logging.Logger, level: int, report: Report, mask: Callable[[str], str], addition: str = ""
) -> None:
    """Write a report as one line, with each of its fields as an attribute of the log record."""
    fields = _fields_of(report, mask)
    shown = " ".join(f"{name}={value!r}" for name, value in fields.items() if value is not None)
    kind = type(report).__name__
    extra = {"pabal_report": kind, **{f"pabal_{name}": value for name, value in fields.items()}}
    logger.log(level, "%s %s%s", kind, shown, addition, extra=extra)


def _fields_of(report: Report, mask: Callable[[str], str]) -> dict[str, str | int | float | None]:
    fields: dict[str, str | int | float | None] = {}
    for name, value in msgspec.structs.asdict(report).items():
        if isinstance(value, BaseException):
            fields["error_type"] = type(value).__name__
            value = message_of(value)
        fields[name] = mask(value) if isinstance(value, str) else value
    return fields


class DefaultLog:
    """Write warnings and errors to the log, so that no failure is silent, but none floods the log.

    The first report of a kind for a subscription is written at once, then one in ten seconds, which says how
    many were left out.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._logger = logging.getLogger(LOGGER)
        self._told: dict[tuple[type[Report], str], tuple[float, int]] = {}
        """By kind and subscription: until when reports are left out, and how many were."""

    def __call__(self, report: Report) -> None:
        """Write a report, or count it as left out."""
        level = LEVELS[report.severity]
        if level < logging.WARNING or not self._logger.isEnabledFor(level):
            return
        key, now = (type(report), report.subscription), self._monotonic()
        until, left_out = self._told.get(key, (0.0, 0))
        if now < until:
            self._told[key] = (until, left_out + 1)
            return
        if len(self._told) >= _MOST_TOLD:  # subscriptions that come and go leave entries behind
            self._told = {known: told for known, told in self._told.items() if now < told[0]}
        self._told[key] = (now + _QUIET, 0)
        addition = f" (and {left_out} more like it before)" if left_out else ""
        write_report(self._logger, level, report, mask_secrets, addition)
