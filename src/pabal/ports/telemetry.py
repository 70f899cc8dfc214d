"""The reports that a bus makes: one class per kind.

A report is made when something out of the ordinary happens. An event that is simply handled is counted, not
reported, so listening costs it nothing. ``bus.listen`` takes a listener: a plain function of one report,
called on the bus's event loop. A listener that raises is removed, which is logged, and delivery goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Literal

import msgspec

__all__ = [
    "AttemptFailed",
    "EventDropped",
    "EventParked",
    "EventSkipped",
    "Listener",
    "Report",
    "StorageTrouble",
    "SubscriptionHalted",
    "SubscriptionPaused",
    "SubscriptionResumed",
    "WorkUnclaimed",
]


class Report(msgspec.Struct, frozen=True, gc=False):
    """The base class of all reports; ``subscription`` is the durable name."""

    severity: ClassVar[Literal["info", "warning", "error"]] = "warning"

    subscription: str


class AttemptFailed(Report, frozen=True, gc=False):
    """A handler raised or ran out of time; for a batch, the report names its first event.

    ``attempt`` counts from 1. ``delay`` is the number of seconds until the next attempt, None if there is
    none.
    """

    event_id: str
    event_type: str
    attempt: int
    error: BaseException
    delay: float | None


class EventParked(Report, frozen=True, gc=False):
    """An event became a dead letter after ``attempts`` attempts. ``reason`` is one line."""

    severity = "error"

    event_id: str
    event_type: str
    position: int
    attempts: int
    reason: str


class EventDropped(Report, frozen=True, gc=False):
    """A delivery was dropped: by a full bus with ``backpressure="drop_oldest"``, or halted without a log."""

    event_id: str
    event_type: str


class EventSkipped(Report, frozen=True, gc=False):
    """A stored event was passed over, because this process has no class for its type."""

    event_type: str
    position: int


class SubscriptionHalted(Report, frozen=True, gc=False):
    """A subscription stopped taking events. ``reason`` says why, and what to do."""

    severity = "error"

    reason: str


class SubscriptionPaused(Report, frozen=True, gc=False):
    """A subscription takes no more events until it is resumed."""

    severity = "info"


class SubscriptionResumed(Report, frozen=True, gc=False):
    """A subscription that was halted, paused or standing by takes events again."""

    severity = "info"


class WorkUnclaimed(Report, frozen=True, gc=False):
    """A durable subscription has unfinished events, but nothing subscribes under its name."""

    unfinished: int


class StorageTrouble(Report, frozen=True, gc=False):
    """The storage could not be read or written just now; the bus will try again.

    ``subscription`` is empty if the trouble concerns several.
    """

    severity = "error"

    error: BaseException


Listener = Callable[[Report], None]
"""The argument of ``bus.listen``: a plain function that returns at once."""
