"""A subscription's records of its deliveries: failed attempts, changes to be saved, and figures."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import msgspec

from pabal.delivery.buffers import BUFFER_LOW
from pabal.delivery.histogram import Histogram
from pabal.ports.storage import AttemptFailure, ParkedDelivery, PendingRetry, RecoveredDelivery

Origin = Literal["letter", "discarded letter", "queue"]
"""Where a delivery below the watermark comes from: a dead letter, or the queue behind a parked key."""
FAILURES_KEPT = 100
"""How many failures are kept for one delivery: each further failure writes all of them again."""


def with_failure(earlier: tuple[AttemptFailure, ...], failure: AttemptFailure) -> tuple[AttemptFailure, ...]:
    """Append a failure; beyond ``FAILURES_KEPT``, keep the first and the newest."""
    if len(earlier) < FAILURES_KEPT:
        return (*earlier, failure)
    return (earlier[0], *earlier[len(earlier) - FAILURES_KEPT + 2 :], failure)


class Failing(msgspec.Struct):
    """Record the attempts made at a delivery that has not succeeded."""

    attempts: int
    failures: tuple[AttemptFailure, ...]
    due: float
    """Monotonic time of the next attempt."""
    from_dead_letter: bool = False
    discarded: bool = False
    """Its dead letter was discarded in the meantime, so it gets no further attempt."""


class Block(msgspec.Struct):
    """Record what blocks a key; each dead letter that is parked makes another record."""

    position: int | None = None
    """The position of the dead letter; 0 if it is gone and its queue is being delivered; None if unknown."""
    queued: int = 0
    """How many deliveries were queued behind it in this run."""


class Unsaved(msgspec.Struct):
    """Collect what the next save has to write besides the watermark."""

    retries: dict[int, PendingRetry] = msgspec.field(default_factory=dict)
    cleared: set[int] = msgspec.field(default_factory=set)
    recovered: list[RecoveredDelivery] = msgspec.field(default_factory=list)
    parked: list[ParkedDelivery] = msgspec.field(default_factory=list)
    queued: list[tuple[str, int]] = msgspec.field(default_factory=list)
    letters: int = 0
    """By how much saving this changes the number of dead letters in the storage."""
    left_queue: int = 0
    """How many of ``cleared`` are still in a queue behind a parked key in the storage."""

    @property
    def is_full(self) -> bool:
        """Return whether dead letters come faster than they are saved; no more events are read until then."""
        return len(self.parked) >= BUFFER_LOW


@dataclass(slots=True)
class Figures:
    """Count what happened to a subscription's deliveries since the bus started."""

    handled: int = 0
    filtered: int = 0
    failed_attempts: int = 0
    retried: int = 0
    parked: int = 0
    dropped: int = 0
    skipped: int = 0
    busy_seconds: float = 0.0
    timed: int = 0
    durations: Histogram = field(default_factory=Histogram)
    """Seconds per attempt. Attempts of one slice count with their mean: only quick ones share a slice."""
