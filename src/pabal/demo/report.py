"""Reports of a run: a snapshot while it plays, a summary at its end."""

from __future__ import annotations

from decimal import Decimal
from typing import Literal

import msgspec

from pabal.demo.meter import News
from pabal.demo.portfolio import Holding

Phase = Literal["starting", "catching up", "playing", "draining", "finished"]


class SubscriptionFigures(msgspec.Struct, frozen=True):
    """The figures of one subscription in this process."""

    name: str
    handled: int
    lag: int
    retried: int
    parked: int


class Snapshot(msgspec.Struct, frozen=True):
    """A run at one instant; ``by_type`` counts the whole log, everything else only this process."""

    phase: Phase
    elapsed: float
    fed: int
    length: int
    by_type: dict[str, int]
    subscriptions: tuple[SubscriptionFigures, ...]
    retries: int
    dead_letters: int
    news: tuple[News, ...]
    holdings: tuple[Holding, ...]


class SubscriptionSummary(msgspec.Struct, frozen=True):
    """The totals of one subscription in this process, and its latencies in milliseconds."""

    name: str
    handled: int
    retried: int
    parked: int
    latency_p50: float | None
    latency_p99: float | None


class DeadLetterLine(msgspec.Struct, frozen=True):
    """One dead letter of the run."""

    subscription: str
    event_type: str
    event_id: str
    attempts: int
    error: str
    injected: bool
    """Whether the demo itself published this event, to show a dead letter."""


class Summary(msgspec.Struct, frozen=True):
    """The result of a run. Latencies are in milliseconds, and None if nothing was handled."""

    tape: str
    simulated: bool
    file: str
    durability: str
    resumed_at: int | None
    """How many events of the tape the log held when this process started; None if it started the run."""
    seconds: float
    events: int
    by_type: dict[str, int]
    handled: int
    retried: int
    parked: int
    events_per_second: float
    paced_at: float | None
    latency_p50: float | None
    latency_p99: float | None
    subscriptions: tuple[SubscriptionSummary, ...]
    dead_letters: tuple[DeadLetterLine, ...]
    holdings: tuple[Holding, ...]
    realized: Decimal
    unrealized: Decimal
    fees: Decimal
    profit: Decimal
    result: str
