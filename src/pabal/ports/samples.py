"""A bus's recent history: a small series of figures that outlives the process.

A bus takes a sample of itself every ten seconds and records it in its storage, if that keeps samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import msgspec


class SubscriptionSample(msgspec.Struct, frozen=True):
    """One subscription's figures in a sample; durations in seconds, None if nothing was timed."""

    handled: int
    lag: int
    in_flight: int
    p50: float | None = None
    p99: float | None = None


class Sample(msgspec.Struct, frozen=True):
    """The figures of one bus over the ``seconds`` before ``at`` (microseconds since 1970)."""

    at: int
    source: str
    """The bus it is of; several processes may share a log."""
    seconds: float
    handled: int
    failed: int
    """Failed attempts."""
    lag: int
    """The largest lag of any subscription."""
    p50: float | None
    p99: float | None
    subscriptions: dict[str, SubscriptionSample]


class Series(msgspec.Struct, frozen=True):
    """Figures over time in steps of equal length; None where nothing is known."""

    at: tuple[int, ...]
    """The end of each step, in seconds since 1970."""
    published: tuple[float | None, ...]
    """Events per second that entered the log, counted in the log itself."""
    handled: tuple[float | None, ...]
    """Deliveries per second."""
    lag: tuple[float | None, ...]
    p50: tuple[float | None, ...]
    p99: tuple[float | None, ...]
    retrying: tuple[float | None, ...]
    dead_letters: tuple[float | None, ...]


@runtime_checkable
class SampleStore(Protocol):
    """Keep samples for a week: every one of the last day, before that one per five minutes."""

    async def record_sample(self, sample: Sample) -> None:
        """Store a sample, together with the current numbers of retries and dead letters."""
        ...

    async def latest_samples(self, since: int) -> list[Sample]:
        """Return the newest sample of each source, if it is not older than ``since`` (microseconds)."""
        ...

    async def read_series(self, edges: Sequence[int]) -> Series:
        """Return the series between ascending, equally distant times (seconds since 1970)."""
        ...


_CARRIED = 75
"""Seconds for which a figure is taken to be unchanged: an idle bus is sampled once a minute."""


def filled(values: Sequence[float | None], seconds: int) -> tuple[float | None, ...]:
    """Fill short gaps with the value before them; a step is ``seconds`` long. Pure.

    >>> filled([None, 2, None, None, None, 3], 30)
    (None, 2, 2, 2, None, 3)
    """
    result: list[float | None] = []
    last, age = None, 0
    for value in values:
        if value is not None:
            last, age = value, 0
        else:
            age += seconds
        result.append(last if age <= _CARRIED else None)
    return tuple(result)
