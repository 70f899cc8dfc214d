"""What a subscription remembers of its deliveries: failed attempts, what is to be saved, and figures."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from pabal.delivery.spread import Spread
from pabal.ports.storage import AttemptFailure, ParkedDelivery, PendingRetry, RecoveredDelivery

FAILURES_KEPT = 100
"""Failures that are kept of one delivery: they are written again with each further one."""


def with_failure(earlier: tuple[AttemptFailure, ...], failure: AttemptFailure) -> tuple[AttemptFailure, ...]:
    """Return the failures with one more; of very many the first and the newest are kept."""
    if len(earlier) < FAILURES_KEPT:
        return (*earlier, failure)
    return (earlier[0], *earlier[len(earlier) - FAILURES_KEPT + 2 :], failure)


class Failing(msgspec.Struct):
    """Remember the attempts made on a delivery that has not succeeded."""

    attempts: int
    failures: tuple[AttemptFailure, ...]
    due: float
    """Monotonic time of the next attempt."""
    from_dead_letter: bool = False
    discarded: bool = False
    """Its dead letter was discarded meanwhile, so no attempt follows."""


class Unsaved(msgspec.Struct):
    """Collect what the next save has to tell the storage beyond the watermark."""

    retries: dict[int, PendingRetry] = msgspec.field(default_factory=dict)
    cleared: set[int] = msgspec.field(default_factory=set)
    recovered: list[RecoveredDelivery] = msgspec.field(default_factory=list)
    parked: list[ParkedDelivery] = msgspec.field(default_factory=list)
    queued: list[tuple[str, int]] = msgspec.field(default_factory=list)


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
    spread: Spread = field(default_factory=Spread)
    """Seconds for one attempt. A slice of several is counted at its mean: only quick ones share a slice."""
