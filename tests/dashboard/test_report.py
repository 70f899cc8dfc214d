"""The report that every page shows: its figures, its troubles, and their order."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from pabal.dashboard.report import (
    Counters,
    CounterSnapshot,
    Rates,
    compose,
    rates_between,
    sampled_rates,
    with_sample,
)
from pabal.ports.operations import Overview, Reason, SubscriptionView, Target, Totals
from pabal.ports.samples import Sample, SubscriptionSample
from tests.dashboard.test_static import texts

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


def view(name: str = "scale", **more: Any) -> SubscriptionView:
    figures = {"watermark": 0, "frontier": 0, "lag": 0, "retries": 0, "parked": 0, "queued": 0, **more}
    return SubscriptionView(name, "active", **figures)


def composed(
    *reasons: Reason, groups: int = 0, views: tuple[SubscriptionView, ...] = (), rates: Rates | None = None
) -> dict[str, Any]:
    overview = Overview(
        target=Target("sqlite", "log.db", live=True, has_log=True),
        as_of=NOW,
        health="degraded",
        reasons=reasons,
        totals=Totals(5, 9),
        published_per_second=1.5,
        subscriptions=len(views),
        lag=0,
        in_flight=0,
        retries=0,
        parked=0,
        queued=0,
        actions=("pause", "resume"),
    )
    parked = [
        {
            "subscription": f"s-{number}",
            "error_type": "ValueError",
            "count": 1,
            "message": "",
            "message_ko": "",
            "first_parked_at": NOW,
        }
        for number in range(groups)
    ]
    return compose(overview, views, parked, rates or Rates(None, {}))


def sample(at: int, seconds: float, **subscriptions: SubscriptionSample) -> Sample:
    return Sample(at, f"bus-{at}", seconds, 0, 0, 0, None, None, subscriptions)


# -- rates ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "rate"),
    [
        (Counters(1, 10), Counters(1, 30), 2.0),
        (Counters(1, 10), Counters(1, 10), 0.0),
        (Counters(1, 10), Counters(1, 9), None),
        (Counters(1, 10), Counters(2, 30), None),
        (Counters(1, None), Counters(1, 30), None),
        (None, Counters(1, 30), None),
    ],
)
def test_a_rate_compares_only_counters_of_the_same_holder(
    before: Counters | None, after: Counters, rate: float | None
) -> None:
    """After a takeover or a restart a subscription would be shown to handle thousands, or less than none."""
    first = CounterSnapshot(0.0, 100, {} if before is None else {"scale": before})
    last = CounterSnapshot(10.0, 90, {"scale": after})
    assert rates_between(first, last) == Rates(0.0, {"scale": rate})
    assert rates_between(last, last) == Rates(None, {"scale": None})


def test_rates_are_events_per_second_between_two_reports() -> None:
    """A subscription's rate would never be shown, or include events handled before the page was open."""
    first = CounterSnapshot(0.0, 10, {"scale": Counters(1, 4), "gone": Counters(1, 1)})
    last = CounterSnapshot(5.0, 30, {"scale": Counters(1, 14), "new": Counters(1, 3)})
    assert rates_between(first, last) == Rates(4.0, {"scale": 2.0, "new": None})


def test_the_rate_in_another_process_is_that_of_its_newest_holder() -> None:
    """For a minute after each deployment, the old process and the new would be added up."""
    samples = [
        sample(20, 10.0, scale=SubscriptionSample(50, 0, 1, 0.5, 2.0)),
        sample(10, 10.0, scale=SubscriptionSample(100, 0, 9, 7.0, 8.0), mail=SubscriptionSample(3, 0, 0)),
        sample(30, 0.25, late=SubscriptionSample(4, 0, 0)),
    ]
    assert sampled_rates(samples) == {"scale": 5.0, "mail": 0.3, "late": 4.0}
    shown = with_sample(view(owner="bus-20"), samples)
    assert (shown.in_flight, shown.p50_ms, shown.p99_ms) == (1, 500.0, 2000.0)
    timeless = with_sample(view("mail", owner="bus-10"), samples)
    assert (timeless.in_flight, timeless.p50_ms, timeless.p99_ms) == (0, None, None)
    for unhandled in (view(), view("unknown", owner="bus-10")):
        assert with_sample(unhandled, samples) is unhandled


# -- rows and totals --------------------------------------------------------------------------------------


def test_a_row_has_seconds_and_the_actions_that_are_possible() -> None:
    """A page would show a thousandth of a latency, or a button that only raises an error."""
    rows = (view(p50_ms=20.0, p99_ms=500.0, paused=True), view("mail", p50_ms=10.0, p99_ms=900.0), view("x"))
    report = composed(views=rows, rates=Rates(3.0, {"scale": 2.0, "mail": 0.5, "x": None}))
    first, _, last = report["subscriptions"]
    assert (first["p50"], first["p99"], first["state"], first["rate"]) == (0.02, 0.5, "paused", 2.0)
    assert first["can"] == {"pause": True, "resume": True, "reset": False}
    assert (last["p50"], last["p99"], last["state"], last["rate"]) == (None, None, "active", None)
    assert report["latency"] == {"p50": 0.01, "p99": 0.9, "of": "mail"}
    assert report["rates"] == {"published": 3.0, "handled": 2.5}


@pytest.mark.parametrize(
    ("state", "paused", "shown"),
    [
        ("active", True, "paused"),
        ("standby", True, "paused"),
        ("halted", True, "halted"),
        ("idle", False, "idle"),
    ],
)
def test_a_subscription_that_has_halted_is_shown_as_halted_even_if_it_was_paused(
    state: str, paused: bool, shown: str
) -> None:
    """Somebody paused it after it had halted: it would look like a pause that can simply be ended."""
    view_of = msgspec.structs.replace(view(paused=paused), state=state)
    (row,) = composed(views=(view_of,))["subscriptions"]
    assert row["state"] == shown


def test_before_two_reports_the_published_rate_comes_from_the_log() -> None:
    """The first page would show no throughput, or one of zero."""
    assert composed()["rates"] == {"published": 1.5, "handled": None}
    assert composed(rates=Rates(0.0, {"scale": 0.0}))["rates"] == {"published": 0.0, "handled": 0.0}


# -- troubles ---------------------------------------------------------------------------------------------


def codes(report: dict[str, Any]) -> list[str]:
    return [trouble["code"] for trouble in report["troubles"]]


def test_troubles_are_ordered_by_what_has_stopped_and_none_is_reported_twice() -> None:
    """What has stopped would be below a hundred dead letters, or the same cause be listed three times."""
    bus = Reason("bus", "failing", "progress cannot be saved")
    halted = Reason("halted", "failing", "subscription 'scale' halted", "scale")
    parked = Reason("parked", "degraded", "subscription 'mail' has dead letters (2)", "mail", 2)
    paused = Reason("paused", "degraded", "subscription 'mail' is paused", "mail")
    alone = composed(bus, paused, parked, groups=1)
    assert (codes(alone), alone["more_troubles"]) == (["bus", "dead-letters", "paused"], 0)
    several = composed(bus, halted, paused, parked, groups=2)
    assert codes(several) == ["halted", "dead-letters", "dead-letters", "paused"]
    assert several["more_troubles"] == 0


def test_dead_letters_of_no_subscription_are_named_beside_their_groups() -> None:
    """A group does not say that nothing subscribes under its name, so that a retry has no effect yet."""
    report = composed(Reason("forgotten", "degraded", "dead letters (1) belong to …", None, 1), groups=1)
    assert codes(report) == ["dead-letters", "forgotten"]
    trouble = report["troubles"][1]
    assert (trouble["subscription"], trouble["n"], trouble["level"]) == (None, 1, "warn")
    for language in ("en", "ko"):
        assert "trouble.forgotten" in texts(language)


@pytest.mark.parametrize(
    ("failing", "groups", "degraded", "shown", "more"),
    [(60, 60, 60, (60, 40, 0), 80), (10, 20, 200, (10, 20, 70), 130), (150, 1, 1, (100, 0, 0), 52)],
)
def test_a_report_has_at_most_a_hundred_troubles_and_counts_the_rest(
    failing: int, groups: int, degraded: int, shown: tuple[int, int, int], more: int
) -> None:
    """Every open page would get a megabyte a second, or not be told how many more there are."""
    reasons = [Reason("halted", "failing", "x", f"h-{number}") for number in range(failing)]
    reasons += [Reason("paused", "degraded", "x", f"p-{number}") for number in range(degraded)]
    report = composed(*reasons, groups=groups)
    found = codes(report)
    assert (found.count("halted"), found.count("dead-letters"), found.count("paused")) == shown
    assert (len(found), report["more_troubles"]) == (100, more)
