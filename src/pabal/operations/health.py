"""Derive the health of a bus from the state of its subscriptions."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from datetime import datetime, timedelta

from pabal.bus.statistics import many_retries, skipped_events
from pabal.delivery.buffers import BUFFER_LOW
from pabal.domain.counting import counted
from pabal.ports.operations import DeadLetterGroup, Level, Reason, SubscriptionView, Target

PARKED = "parked"
"""The code of the reason that a subscription has dead letters."""
FORGOTTEN = "forgotten"
"""The code of the reason that there are dead letters of no subscription."""
_STALE = timedelta(seconds=60)
_SEVERITY: dict[Level, int] = {"ok": 0, "degraded": 1, "failing": 2}


def judge(
    target: Target, subscriptions: Sequence[SubscriptionView], more: Iterable[Reason], now: datetime
) -> tuple[Level, tuple[Reason, ...]]:
    """Return the most severe level and all reasons, most severe first. A pure function."""
    reasons = [*more]
    for view in subscriptions:
        reasons += _reasons_of(target, view, now)
    reasons.sort(key=lambda reason: -_SEVERITY[reason.level])
    return (reasons[0].level if reasons else "ok"), tuple(reasons)


def _reasons_of(target: Target, view: SubscriptionView, now: datetime) -> list[Reason]:
    name = view.name
    reasons: list[Reason] = []

    def add(code: str, level: Level, text: str, number: int = 0) -> None:
        reasons.append(Reason(code, level, f"subscription {name!r} {text}", name, number))

    if view.state == "halted":
        add("halted", "failing", view.reason or "is halted")
    elif view.paused:
        add("paused", "degraded", f"is paused, {counted(view.lag, 'event waits', 'events wait')}", view.lag)
    elif view.state == "idle" and view.lag:
        add(
            "unclaimed",
            "degraded",
            f"has {counted(view.lag, 'unfinished event')}, but no process handles it",
            view.lag,
        )
    elif view.state == "standby" and target.live and view.lag and _is_stale(view, now):
        add("stuck", "degraded", "is held by another process but makes no progress", view.lag)
    if view.retries >= BUFFER_LOW:
        add("retrying", "degraded", many_retries(view.retries), view.retries)
    if view.parked:
        reasons.append(reason_of_parked(name, view.parked))
    if view.queued:
        add(
            "queued",
            "degraded",
            f"has {counted(view.queued, 'event')} queued behind dead letters of the same key",
            view.queued,
        )
    if view.skipped:
        add("skipped", "degraded", skipped_events(view.skipped), view.skipped)
    return reasons


def reason_of_parked(name: str, count: int) -> Reason:
    """Return the reason that a subscription has dead letters."""
    text = f"subscription {name!r} has dead letters ({count:,}); retry or discard them"
    return Reason(PARKED, "degraded", text, name, count)


def count_forgotten(groups: Iterable[DeadLetterGroup], names: Container[str]) -> int:
    """Return how many dead letters belong to none of these names.

    Read the names after the dead letters: a subscription that is new in between is then known.
    """
    return sum(group.count for group in groups if group.subscription not in names)


def reasons_of_forgotten(count: int) -> list[Reason]:
    """Return a reason if there are dead letters of no subscription, which no subscription shows."""
    if not count:
        return []
    text = (
        f"dead letters ({count:,}) belong to no subscription; "
        "discard them, or subscribe under their names and retry them"
    )
    return [Reason(FORGOTTEN, "degraded", text, number=count)]


def other_letters(reasons: Iterable[Reason]) -> int:
    """Return how many dead letters a source's own reasons name, which are not those of its subscriptions."""
    return sum(reason.number for reason in reasons if reason.code in (PARKED, FORGOTTEN))


def _is_stale(view: SubscriptionView, now: datetime) -> bool:
    return view.updated_at is not None and now - view.updated_at > _STALE
