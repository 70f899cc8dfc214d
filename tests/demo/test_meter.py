"""The measurements of a run."""

from __future__ import annotations

from array import array
from datetime import timedelta
from typing import Any

import pytest

from pabal import DeliveryContext
from pabal.demo.meter import Meter
from pabal.ports.storage import Committed
from pabal.ports.telemetry import AttemptFailed, EventParked
from tests.demo.support import tick

CONTEXT = DeliveryContext("candles", "id", "market.tick-received", 1, 1, None, None, "X")


async def nothing() -> Any:
    return None


async def fail() -> Any:
    raise ValueError("bad")


async def test_latency_is_measured_from_creation_to_the_end_of_handling() -> None:
    """A latency would leave out the log, or a failed attempt count as handled."""
    meter = Meter()
    for seconds in (0.0, 1.0):
        event = tick(1, 100)
        made = type(event)(
            *(getattr(event, name) for name in ("symbol", "sequence", "at", "price", "quantity", "side")),
            occurred_at=event.occurred_at + timedelta(seconds=seconds),
        )
        await meter.measure(made, CONTEXT, nothing)
    assert 0 <= meter.latencies["candles"][0] < 1
    assert meter.latencies["candles"][1] == 0  # created after it was handled, by the clock: never negative
    with pytest.raises(ValueError, match="bad"):
        await meter.measure(tick(1, 100), CONTEXT, fail)
    assert len(meter.latencies["candles"]) == 2


async def test_events_of_an_earlier_process_have_no_latency() -> None:
    """The hours between kill -9 and --resume would be reported as the p99 of the bus."""
    meter = Meter()
    old = tick(1, 100)
    meter.started_at += 60
    await meter.measure([old, old], CONTEXT, nothing)
    assert len(meter.latencies["candles"]) == 0
    assert meter.percentile(99) is None


def test_percentiles_are_in_milliseconds_and_cover_all_deliveries() -> None:
    """Seconds would be printed as milliseconds, or an index be out of range."""
    meter = Meter()
    meter.latencies["a"] = array("d", (number / 1000 for number in range(100, 50, -1)))
    meter.latencies["b"] = array("d", (number / 1000 for number in range(50, 0, -1)))
    assert meter.percentile(50) == pytest.approx(51)
    assert meter.percentile(99) == pytest.approx(100)
    assert meter.percentile(100) == pytest.approx(100)
    assert meter.percentile(100, "b") == pytest.approx(50)
    assert meter.percentile(50, "c") is None


def test_events_are_counted_by_type_when_they_are_committed() -> None:
    """The count would leave out what the log held before, or attribute it to this process."""
    meter = Meter()
    meter.begin({"market.tick-received": 10})
    meter.count(Committed(11, (tick(1, 100), tick(2, 100))))
    assert (meter.committed["market.tick-received"], meter.fresh) == (12, 2)


def test_a_dead_letter_is_reported_with_its_error_and_not_displaced_by_retries() -> None:
    """The one line that a visitor should read would be gone after fifty retries."""
    meter = Meter()
    meter.listen(AttemptFailed("candles", "id", "t", 5, ValueError("cannot be true"), None))
    meter.listen(EventParked("candles", "id", "t", 7, 5, "failed 5 of 5 attempts"))
    for _ in range(200):
        meter.listen(AttemptFailed("exchange", "id", "t", 1, ValueError("down"), 0.0123))
    (letter,) = [news for news in meter.news if news.kind == "dead letter"]
    assert letter.what == "candles: cannot be true"
    assert letter.then.startswith("parked after 5 attempts")
    assert meter.retries == 200
    assert (meter.news[-1].what, meter.news[-1].then) == ("exchange: down", "again in 12 ms")
