"""How long does it take from the moment an event is due for publishing until its handler starts?"""

from __future__ import annotations

import time
from collections.abc import Sequence

from benchmarks.events import OrderPlaced, make_events
from benchmarks.harness import Settings, expect_handled, installed, interleave, run
from benchmarks.model import Entry, Metrics, Outcome, Table, percentile
from benchmarks.rivals.latency import RIVALS, Rival, pace

NAME = "latency"
RATES = (1_000, 20_000, 100_000)
METRICS = ("p99 ms", "p50 ms", "p99.9 ms", "max ms", "events/s reached")


def case_name(rate: int) -> str:
    """Return the name of a case in tables and goals."""
    return f"{rate:,} events/s"


async def latencies(rival: Rival, events: Sequence[OrderPlaced], rate: int) -> Metrics:
    """Feed a rival at a fixed rate, and return the distribution of its latencies."""
    now = time.perf_counter_ns
    started = [0] * len(events)

    async def handler(event: OrderPlaced) -> None:
        started[event.sequence] = now()

    async with rival.open(handler) as publish:
        first_due_at = await pace(events, rate, publish)
    expect_handled(rival.name, sum(at > 0 for at in started), len(events))
    interval = 1e9 / rate
    waits = sorted((at - first_due_at - int(number * interval)) / 1e6 for number, at in enumerate(started))
    return {
        "p50 ms": percentile(waits, 0.5),
        "p99 ms": percentile(waits, 0.99),
        "p99.9 ms": percentile(waits, 0.999),
        "max ms": waits[-1],
        "events/s reached": len(events) / ((max(started) - first_due_at) / 1e9),
    }


def _entry(rival: Rival, events: Sequence[OrderPlaced], rate: int) -> Entry:
    version = installed(rival.distribution) if rival.distribution else ""
    return Entry(
        case=case_name(rate),
        rival=rival.name,
        metrics=METRICS,
        measure=lambda: run(latencies(rival, events, rate)),
        version=version or "",
        events=len(events),
        missing="not installed" if version is None else "",
    )


def measure(settings: Settings) -> Outcome:
    """Measure every rival at every rate."""
    seconds = 2.0 if not settings.quick else 0.2
    entries: list[Entry] = []
    for rate in RATES:
        events = make_events(int(rate * seconds), 1_000)
        entries += [_entry(rival, events, rate) for rival in RIVALS if settings.wants(rival.name)]
    return Outcome(
        scenario=NAME,
        title="In memory: latency at a fixed rate",
        text=(
            f"Events of 1,000 aggregates are due at a fixed rate for {seconds:g} s, whatever the receiver "
            "does (open loop). Latency is measured from the moment an event was due, not from when it was "
            "published, until its handler starts; so a stall counts for every event it delays. Publisher "
            "and handlers share one event loop; the publisher yields until the next event is due."
        ),
        tables=(
            Table("p99 latency, publish to handler, in memory", METRICS, "", NAME, lower_is_better=True),
        ),
        series=tuple(interleave(entries, settings.runs)),
    )
