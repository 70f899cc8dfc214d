"""Checks of options, and of arguments to a storage, so that a mistake does not look like damage."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from sys import float_info
from typing import Any

from pabal.domain.event import DomainEvent
from pabal.errors import InvalidEventError, SubscriptionError, UsageError
from pabal.ports.records import LogFilter, Start

MAX_POSITION = 2**63 - 1
"""The largest position or id that can exist, and the largest limit."""


def check_bounds(limit: int = 0, **places: int) -> None:
    """Raise UsageError for an impossible limit or position, naming the argument.

    A position below the first one is allowed, to ask for what lies above or below it.
    """
    for name, value in (("limit", limit), *places.items()):
        if not isinstance(value, int):
            raise UsageError(f"{name} is {value!r}; it must be a whole number")
        if abs(value) > MAX_POSITION:
            raise UsageError(f"{name} is {value}; the largest position is {MAX_POSITION}")
    if limit < 0:
        raise UsageError(f"limit is {limit}; it cannot be negative")


def check_types(types: Iterable[Any] | None) -> None:
    """Raise UsageError for one class or name instead of several: a name would be taken letter by letter."""
    if isinstance(types, (str, type)):
        raise UsageError(f"types is {types!r}; give a list, such as [OrderPlaced] or ['order.placed']")


def check_time(due_at: float) -> None:
    """Raise UsageError for a time that is not finite: NaN compares false, and would hold up due events."""
    if not isinstance(due_at, (int, float)) or not abs(due_at) <= float_info.max:
        raise UsageError(f"due_at is {due_at!r}; it must be a finite number of seconds since 1970")


def checked_start(start: Any, option: str = "start") -> Start:
    """Check a position where a subscription may begin, and return it. Raises SubscriptionError."""
    if start in ("now", "beginning"):
        return start  # type: ignore[no-any-return]
    if isinstance(start, int) and not isinstance(start, bool) and start >= 0:
        return start
    if isinstance(start, datetime):
        if start.tzinfo is None:
            raise SubscriptionError(f"{option} is a naive datetime; pass an aware one")
        return start
    raise SubscriptionError(
        f"{option} is {start!r}; it must be 'now', 'beginning', a position, or an aware datetime"
    )


def check_filter(wanted: LogFilter) -> None:
    """Raise UsageError for an ``aggregate_type`` without ``aggregate_id``, a naive time, and no names."""
    check_types(wanted.types)
    if not all(isinstance(kind, str) for kind in wanted.types):
        raise UsageError(f"types is {wanted.types!r}; a LogFilter takes names, such as ('order.placed',)")
    if wanted.aggregate_type is not None and wanted.aggregate_id is None:
        raise UsageError("aggregate_type alone is not indexed; give aggregate_id too, or filter by types")
    for moment in (wanted.since, wanted.until):
        if moment is not None and moment.tzinfo is None:
            raise UsageError("a filter by time needs aware datetimes, as datetime.now(UTC)")


def check_stream(events: Iterable[DomainEvent], aggregate_type: str, aggregate_id: str) -> None:
    """Raise InvalidEventError for an event of another aggregate."""
    for event in events:
        if (event.aggregate_type, event.aggregate_id) != (aggregate_type, aggregate_id):
            raise InvalidEventError(
                f"event {event.event_type!r} belongs to {event.aggregate_type}/{event.aggregate_id}, "
                f"not to {aggregate_type}/{aggregate_id}"
            )


def at_least_one(option: str, value: int) -> int:
    """Return an option that must be an int of at least 1. Raises UsageError."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UsageError(f"{option} is {value!r}; it must be an int of at least 1")
    return value
