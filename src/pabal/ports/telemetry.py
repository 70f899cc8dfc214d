"""The catalogue of what a bus reports: one record class per fact.

Reports are made where something leaves the ordinary way; an event that is simply handled is counted, not
reported, so listening costs an ordinary event nothing. ``bus.listen`` takes a listener: a plain function of
one record, called on the bus's event loop; one that raises is dropped, with a log line, and delivery goes on.
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
    """Be the base of every report; ``subscription`` is its durable name."""

    severity: ClassVar[Literal["info", "warning", "error"]] = "warning"

    subscription: str


class AttemptFailed(Report, frozen=True, gc=False):
    """Tell that a handler raised, or ran out of time; of a batch, with its first event.

    ``attempt`` counts from 1. ``delay`` is in how many seconds the next attempt follows, None if none does.
    """

    event_id: str
    event_type: str
    attempt: int
    error: BaseException
    delay: float | None


class EventParked(Report, frozen=True, gc=False):
    """Tell that an event became a dead letter, after so many ``attempts``. ``reason`` is one line."""

    severity = "error"

    event_id: str
    event_type: str
    position: int
    attempts: int
    reason: str


class EventDropped(Report, frozen=True, gc=False):
    """Tell that a full bus dropped a delivery under ``backpressure="drop_oldest"``."""

    event_id: str
    event_type: str


class EventSkipped(Report, frozen=True, gc=False):
    """Tell that a stored event has a type that no class claims, so a pattern subscription passed over it."""

    event_type: str
    position: int


class SubscriptionHalted(Report, frozen=True, gc=False):
    """Tell that a subscription stopped taking events. ``reason`` says why and what to do."""

    severity = "error"

    reason: str


class SubscriptionPaused(Report, frozen=True, gc=False):
    """Tell that a subscription takes no more events until somebody resumes it."""

    severity = "info"


class SubscriptionResumed(Report, frozen=True, gc=False):
    """Tell that a halted, paused or waiting subscription takes events again."""

    severity = "info"


class WorkUnclaimed(Report, frozen=True, gc=False):
    """Tell that a durable subscription has unfinished events, but nothing subscribes under its name."""

    unfinished: int


class StorageTrouble(Report, frozen=True, gc=False):
    """Tell that the storage could not be read or written just now; it will be tried again.

    ``subscription`` is empty where it concerns several.
    """

    severity = "error"

    error: BaseException


Listener = Callable[[Report], None]
"""What ``bus.listen`` takes: a plain function that returns at once."""
