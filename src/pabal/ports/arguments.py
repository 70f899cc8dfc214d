"""What every storage asks of the numbers it is given, so that a slip is not taken for a damaged file."""

from __future__ import annotations

from sys import float_info

from pabal.errors import UsageError

LARGEST = 2**63 - 1
"""The largest position that there can be, and of how many at most anything can be returned."""


def check_bounds(limit: int = 0, **places: int) -> None:
    """Raise UsageError, which names the argument, for a limit or the number of a place that cannot be.

    A place below the first is no mistake in a question for what lies above or below it.
    """
    for name, value in (("limit", limit), *places.items()):
        if not isinstance(value, int):
            raise UsageError(f"{name} is {value!r}; it must be a whole number")
        if abs(value) > LARGEST:
            raise UsageError(f"{name} is {value}; no log goes beyond {LARGEST}")
    if limit < 0:
        raise UsageError(f"limit is {limit}; it cannot be negative")


def check_time(due_at: float) -> None:
    """Raise UsageError for what is no time: NaN is before no other, and would keep all that is due back."""
    if not isinstance(due_at, (int, float)) or not abs(due_at) <= float_info.max:
        raise UsageError(f"due_at is {due_at!r}; it must be a finite number of seconds since 1970")
