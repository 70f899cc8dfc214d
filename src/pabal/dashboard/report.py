"""Compose the report of the current state: health with its reasons, totals, rates, subscriptions."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from pabal.dashboard.bilingual import preview
from pabal.ports.operations import Overview, Reason, SubscriptionView
from pabal.ports.samples import Sample

_LEVELS = {"degraded": "warn", "failing": "bad"}
_MAX_TROUBLES = 100
"""The most troubles in a report: nobody reads more, and thousands would be a megabyte per second."""
_HALTED = re.compile(
    r"(?P<where>halted at event \S+ at position \d+): .*?; the last error was (?P<kind>[A-Za-z_][\w.]*)",
    re.DOTALL,
)
"""Matches the engine's reason for a halt up to the error's type; the message after it is left out."""


class Counters(msgspec.Struct, frozen=True):
    """The counters of a subscription from which its rate is computed."""

    epoch: int
    handled: int | None
    """Known only for a bus in this process; other processes report rates in their samples."""

    @classmethod
    def of(cls, view: SubscriptionView) -> Counters:
        """Copy the counters from a view."""
        return cls(view.epoch, view.handled)


class CounterSnapshot(msgspec.Struct, frozen=True):
    """All counters at one time (seconds of a monotonic clock)."""

    at: float
    head: int
    subscriptions: Mapping[str, Counters]


class Rates(msgspec.Struct, frozen=True):
    """Events per second; None where nothing is known yet."""

    published: float | None
    by_subscription: Mapping[str, float | None]


def rates_between(first: CounterSnapshot | None, last: CounterSnapshot) -> Rates:
    """Return the rates between two moments. A pure function.

    >>> seen = {"risk": Counters(1, 10)}, {"risk": Counters(1, 30)}
    >>> rates_between(CounterSnapshot(0.0, 5, seen[0]), CounterSnapshot(10.0, 25, seen[1]))
    Rates(published=2.0, by_subscription={'risk': 2.0})
    """
    if first is None or last.at <= first.at:
        return Rates(None, dict.fromkeys(last.subscriptions))
    seconds = last.at - first.at
    rates: dict[str, float | None] = {}
    for name, later in last.subscriptions.items():
        earlier = first.subscriptions.get(name)
        # After a reset, a restart or a takeover the two counters are not comparable.
        rates[name] = None
        if earlier is not None and earlier.epoch == later.epoch and earlier.handled is not None:
            handled = (later.handled or 0) - earlier.handled
            rates[name] = handled / seconds if handled >= 0 else None
    return Rates(max(0, last.head - first.head) / seconds, rates)


def sampled_rates(samples: Sequence[Sample]) -> dict[str, float]:
    """Return the rates of subscriptions in other processes, from their latest samples. A pure function.

    Of two samples with the same subscription, the newer counts: another process has taken it over.
    """
    return {
        name: figures.handled / max(sample.seconds, 1.0)
        for sample in sorted(samples, key=lambda sample: sample.at)
        for name, figures in sample.subscriptions.items()
    }


def with_sample(view: SubscriptionView, samples: Sequence[Sample]) -> SubscriptionView:
    """Add to a subscription the figures in the latest sample of its bus. A pure function."""
    for sample in sorted(samples, key=lambda sample: -sample.at):
        figures = sample.subscriptions.get(view.name)
        if figures is not None and view.owner is not None:
            return msgspec.structs.replace(
                view,
                in_flight=figures.in_flight,
                p50_ms=None if figures.p50 is None else figures.p50 * 1000,
                p99_ms=None if figures.p99 is None else figures.p99 * 1000,
            )
    return view


def compose(
    overview: Overview,
    subscriptions: Sequence[SubscriptionView],
    groups: Sequence[Mapping[str, Any]],
    rates: Rates,
) -> dict[str, Any]:
    """Return the report. A pure function."""
    rows = [_row(view, rates.by_subscription.get(view.name), overview.actions) for view in subscriptions]
    handled = [rate for rate in rates.by_subscription.values() if rate is not None]
    published = rates.published if rates.published is not None else overview.published_per_second
    troubles, more = _troubles(overview.reasons, groups, rows)
    return {
        "at": overview.as_of,
        "head": overview.totals.head,
        "health": {"status": overview.health},
        "troubles": troubles,
        "more_troubles": more,
        "totals": {
            "events": overview.totals.events,
            "scheduled": overview.totals.scheduled,
            "size_bytes": overview.totals.size_bytes,
            "lag": overview.lag,
            "in_flight": overview.in_flight,
            "retrying": overview.retries,
            "dead_letters": overview.parked,
            "queued": overview.queued,
        },
        "rates": {"published": published, "handled": sum(handled) if handled else None},
        "latency": _latency(rows),
        "subscriptions": rows,
    }


def _row(view: SubscriptionView, rate: float | None, actions: Sequence[str]) -> dict[str, Any]:
    state = "paused" if view.paused and view.state != "halted" else view.state
    return {
        "name": view.name,
        "state": state,
        **preview("reason", view.reason),
        "lag": view.lag,
        "rate": rate,
        "in_flight": view.in_flight,
        "p50": None if view.p50_ms is None else view.p50_ms / 1000,
        "p99": None if view.p99_ms is None else view.p99_ms / 1000,
        "retrying": view.retries,
        "parked": view.parked,
        "queued": view.queued,
        "watermark": view.watermark,
        "updated_at": view.updated_at,
        "can": {name: name in actions for name in ("pause", "resume", "reset")},
    }


def _latency(rows: Sequence[Mapping[str, Any]]) -> dict[str, float] | None:
    """Return the latency of the slowest subscription: an average over all would hide the one that matters."""
    timed = [row for row in rows if row["p99"] is not None]
    if not timed:
        return None
    slowest = max(timed, key=lambda row: row["p99"])
    return {"p50": slowest["p50"], "p99": slowest["p99"], "of": slowest["name"]}


def without_error_messages(
    overview: Overview, subscriptions: Sequence[SubscriptionView]
) -> tuple[Overview, list[SubscriptionView]]:
    """Remove sentences that may quote an error, and with it a value of a payload. A pure function."""
    reasons = tuple(
        reason if reason.code == "group" else msgspec.structs.replace(reason, text=reason.code)
        for reason in overview.reasons  # those of a group quote nothing, and the code alone says too little
    )
    views = [
        msgspec.structs.replace(view, reason=_without_error_message(view.reason)) for view in subscriptions
    ]
    return msgspec.structs.replace(overview, reasons=reasons), views


def _without_error_message(reason: str) -> str:
    """Return where a subscription halted and on what type of error, without the error's message."""
    found = _HALTED.match(reason)
    return "" if found is None else f"{found['where']}; the last error was {found['kind']}"


# -- reasons -----------------------------------------------------------------------------------------------


def _letters(groups: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return one trouble for each group, because one button retries a whole group."""
    return [
        {
            "code": "dead-letters",
            "level": "bad",
            "subscription": group["subscription"],
            "error_type": group["error_type"],
            "n": group["count"],
            "detail": group["message"],
            "detail_ko": group["message_ko"],
            "since": group["first_parked_at"],
        }
        for group in groups
    ]


def _troubles(
    reasons: Sequence[Reason], groups: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]]
) -> tuple[list[dict[str, Any]], int]:
    """Return troubles, first halts, then dead letters, then the rest; and the number of those left out."""
    # A failing bus reports the same as its halted subscription, which is closer to the cause.
    reported_elsewhere = (
        {"parked", "bus"} if any(reason.code == "halted" for reason in reasons) else {"parked"}
    )
    by_name = {row["name"]: row for row in rows}
    others = [reason for reason in reasons if reason.code not in reported_elsewhere]
    failing = [reason for reason in others if reason.level == "failing"]
    degraded = [reason for reason in others if reason.level != "failing"]
    # Cut before formatting: this is sent to every open page, once a second.
    troubles = [_trouble(reason, by_name) for reason in failing[:_MAX_TROUBLES]]
    troubles += _letters(groups[: _MAX_TROUBLES - len(troubles)])
    troubles += [_trouble(reason, by_name) for reason in degraded[: _MAX_TROUBLES - len(troubles)]]
    return troubles, len(others) + len(groups) - len(troubles)


def _trouble(reason: Reason, rows: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    row = rows.get(reason.subscription or "", {})
    # The engine's own sentence, if there is one: it says more than the translation of a code.
    if reason.code == "bus":
        detail = preview("detail", reason.text)
    else:
        detail = {"detail": row.get("reason", ""), "detail_ko": row.get("reason_ko", "")}
    return {
        "code": reason.code,
        "level": _LEVELS.get(reason.level, "warn"),
        "subscription": reason.subscription,
        "n": reason.number,
        **preview("text", reason.text),
        **detail,
        "since": None,
    }
