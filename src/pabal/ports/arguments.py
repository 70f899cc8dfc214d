"""What every storage asks of the numbers it is given, so that a slip is not taken for a damaged file."""

from __future__ import annotations

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
