"""``get_statistics`` with the specified keys, ``health``, and telemetry reports."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any
from unittest.mock import AsyncMock

import pytest

from pabal import NotRetryableError, RetryPolicy
from pabal.errors import UsageError
from pabal.ports.telemetry import AttemptFailed, EventParked, Report
from pabal.testing import VirtualClock
from tests.bus.samples import Moved, NoteTaken
from tests.bus.support import ONE_ATTEMPT, Backend, Recorder, reports_of, statistics_of

SPECIFIED_KEYS = {
    "uptime_seconds",
    "events_published",
    "events_processed",
    "events_failed",
    "avg_processing_time_ms",
    "queue_size",
    "retry_queue_size",
    "failed_events_count",
    "subscription_count",
    "is_running",
    "worker_count",
}


async def test_get_statistics_returns_every_specified_key_with_its_value(
    backend: Backend, clock: VirtualClock
) -> None:
    """Programs written against the specification read exactly these names."""
    bus = backend.make_bus(clock=clock, worker_count=3)
    assert bus.get_statistics().keys() >= SPECIFIED_KEYS
    release = asyncio.Event()
    calls: Recorder[int] = Recorder()

    async def handle(event: Moved) -> None:
        calls.add(event.n)
        if event.n == 1:
            await release.wait()
        elif event.n == 2:
            raise ValueError("in a minute")
        elif event.n == 3:
            raise LookupError("never")

    bus.subscribe(
        Moved,
        handle,
        name="book",
        retry=RetryPolicy(max_attempts=2, base_delay=60, max_delay=60, jitter=0, never=(LookupError,)),
    )
    await bus.start()
    await clock.advance(5)
    for n in range(1, 6):
        await bus.publish(Moved(f"piece-{n}", n))
    await calls.reach(5)
    await asyncio.sleep(0)
    statistics = bus.get_statistics()
    assert statistics["uptime_seconds"] == pytest.approx(5)
    assert statistics["events_published"] == 5
    assert statistics["events_processed"] == 2
    assert statistics["events_failed"] == 2
    assert statistics["queue_size"] == 2
    assert statistics["retry_queue_size"] == 1
    assert statistics["failed_events_count"] == 1
    assert statistics["subscription_count"] == 1
    assert statistics["is_running"] is True
    assert statistics["worker_count"] == 3
    assert statistics["avg_processing_time_ms"] >= 0
    release.set()
    await clock.advance(61)
    await bus.drain(60)
    statistics = bus.get_statistics()
    assert (statistics["queue_size"], statistics["retry_queue_size"]) == (0, 0)
    assert (
        statistics["events_processed"],
        statistics["events_failed"],
        statistics["failed_events_count"],
    ) == (3, 3, 2)
    await bus.stop()
    statistics = bus.get_statistics()
    assert (statistics["is_running"], statistics["worker_count"], statistics["uptime_seconds"]) == (
        False,
        0,
        0.0,
    )


async def test_statistics_are_kept_per_subscription(backend: Backend) -> None:
    """A total would hide which handler is slow or failing."""
    bus = await backend.start_bus()

    async def good(event: Moved) -> None:
        await asyncio.sleep(0.002)

    async def bad(event: Moved) -> None:
        raise ValueError("no")

    bus.subscribe(Moved, good, name="good", where=lambda event: event.n < 8)
    bus.subscribe(Moved, bad, name="bad", retry=RetryPolicy(max_attempts=3, base_delay=0))
    await bus.publish_batch([Moved(f"piece-{n}", n) for n in range(10)])
    await bus.drain(60)
    of_good, of_bad = statistics_of(bus, "good"), statistics_of(bus, "bad")
    assert (of_good["state"], of_good["handled"], of_good["filtered"], of_good["lag"]) == ("active", 8, 2, 0)
    assert of_good["avg_processing_time_ms"] >= 1.0
    assert (of_bad["handled"], of_bad["failed_attempts"], of_bad["retried"], of_bad["parked"]) == (
        0,
        30,
        20,
        10,
    )
    assert (of_bad["in_flight"], of_bad["retrying"]) == (0, 0)


async def test_lag_counts_unfinished_events(backend: Backend) -> None:
    """Operators watch the lag; it must count waiting events, in memory or in the log."""
    bus = await backend.start_bus()
    release = asyncio.Event()
    entered = asyncio.Event()

    async def hold(event: Moved) -> None:
        entered.set()
        await release.wait()

    bus.subscribe(Moved, hold, name="book")
    await bus.publish_batch([Moved("rook", n) for n in range(20)])
    await entered.wait()
    assert statistics_of(bus, "book")["lag"] in (19, 20)
    assert statistics_of(bus, "book")["in_flight"] == 1
    release.set()
    await bus.drain(60)
    assert statistics_of(bus, "book")["lag"] == 0


async def test_counts_are_correct_on_every_delivery_path(backend: Backend) -> None:
    """The engine has a fast path for plain deliveries; its counts must equal those of the full path."""
    bus = await backend.start_bus()

    async def note(event: Any) -> None: ...

    bus.subscribe(Moved, note, name="plain")
    bus.subscribe(Moved, note, name="timed", timeout=60)
    bus.subscribe(Moved, lambda event: None, name="thread")
    bus.subscribe(Moved, note, name="batch", batch=7)
    for n in range(100):
        await bus.publish(Moved(f"piece-{n % 3}", n))
    await bus.drain(60)
    for name in ("plain", "timed", "thread", "batch"):
        assert statistics_of(bus, name)["handled"] == 100, name
    assert bus.get_statistics()["events_processed"] == 400
    assert bus.get_statistics()["events_published"] == 100


async def test_handled_counts_what_has_ended_while_the_next_handler_waits(local: Backend) -> None:
    """Quick deliveries share a slice; until a slow one at its end is over, none of them would count."""
    bus = await local.start_bus(worker_count=1)
    entered, release = asyncio.Event(), asyncio.Event()

    async def hold_last(event: Moved) -> None:
        if event.n == 49:
            entered.set()
            await release.wait()

    bus.subscribe(Moved, hold_last, name="book")
    await bus.publish_batch([Moved("rook", n) for n in range(100, 1100)])  # quick ones make slices longer
    await bus.drain(60)
    await bus.publish_batch([Moved(f"piece-{n}", n) for n in range(50)])
    await entered.wait()
    assert statistics_of(bus, "book")["handled"] == bus.get_statistics()["events_processed"] == 1049
    release.set()
    await bus.drain(60)
    assert statistics_of(bus, "book")["handled"] == 1050


async def test_health_reports_ok_degraded_and_failing_with_reasons(backend: Backend) -> None:
    """An operator would see a state without the sentence that says why."""
    bus = backend.make_bus()
    health = bus.health()
    assert (health.status, health.reasons) == ("failing", ("the bus is not running",))
    assert not health
    await bus.start()
    assert (bus.health().status, bus.health().reasons) == ("ok", ())

    async def fail(event: Any) -> None:
        raise ValueError("no")

    bus.subscribe(Moved, fail, name="parks", retry=ONE_ATTEMPT)
    bus.subscribe(NoteTaken, fail, name="stops", retry=ONE_ATTEMPT, on_exhausted="stop")
    await bus.publish(Moved("rook"))
    await bus.drain(60)
    degraded = bus.health()
    assert degraded.status == "degraded"
    assert bool(degraded)
    assert any("dead letter" in reason and "1" in reason for reason in degraded.reasons)
    await bus.publish(NoteTaken(1))
    await bus.drain(60)
    failing = bus.health()
    assert failing.status == "failing"
    assert "'stops'" in failing.reasons[0]
    assert any("dead letter" in reason for reason in failing.reasons)


async def test_health_reports_a_subscription_with_many_waiting_retries(stored: Backend) -> None:
    """A service that is down for hours can block a subscription for new events, while health says ok."""
    bus = await stored.start_bus(clock=VirtualClock())
    tried: Recorder[int] = Recorder()

    async def fail(event: Moved) -> None:
        tried.add(event.n)
        raise ConnectionError("away")

    bus.subscribe(
        Moved,
        fail,
        name="calls",
        retry=RetryPolicy(max_attempts=2, base_delay=3600, max_delay=3600, jitter=0),
    )
    await bus.publish_batch([Moved(f"piece-{n}", n) for n in range(2047)])
    await tried.reach(2047)
    assert bus.health().status == "ok"
    await bus.publish(Moved("piece-2047", 2047))
    await tried.reach(2048)
    [reason] = bus.health().reasons
    assert "'calls' has 2,048 failed deliveries" in reason


async def test_pending_work_of_a_missing_handler_is_reported_and_kept(stored: Backend) -> None:
    """A renamed handler leaves work under the old name; it must be reported and not discarded."""
    bus = await stored.start_bus()
    gate = asyncio.Event()
    entered = asyncio.Event()

    async def old(event: Moved) -> None:
        entered.set()
        await gate.wait()

    bus.subscribe(Moved, old, name="old-name")
    await bus.publish_batch([Moved("rook", n) for n in range(3)])
    await entered.wait()
    await bus.stop(timeout=0.05)
    bus = await stored.reopen(bus)
    await bus.start()
    health = bus.health()
    assert health.status == "degraded"
    assert any("'old-name'" in reason and "3" in reason for reason in health.reasons)
    seen: Recorder[int] = Recorder()

    async def note(event: Moved) -> None:
        seen.add(event.n)

    bus.subscribe(Moved, note, name="old-name")
    await bus.drain(60)
    assert seen == [0, 1, 2]
    assert bus.health().status == "ok"


async def test_reports_describe_failed_attempts_and_parked_events(backend: Backend) -> None:
    """Logging, metrics and dashboards all depend on these reports."""
    bus = await backend.start_bus()
    failed, parked = reports_of(bus, AttemptFailed), reports_of(bus, EventParked)

    async def fail(event: Moved) -> None:
        raise LookupError("no such order")

    bus.subscribe(Moved, fail, name="book", retry=RetryPolicy(max_attempts=2, base_delay=0.01, jitter=0))
    event = Moved("rook")
    await bus.publish(event)
    await bus.drain(60)
    assert [(r.attempt, r.delay, type(r.error)) for r in failed] == [
        (1, 0.01, LookupError),
        (2, None, LookupError),
    ]
    assert {(r.subscription, r.event_id, r.event_type) for r in failed} == {
        ("book", event.event_id, "piece.moved")
    }
    [report] = parked
    assert (report.subscription, report.event_id, report.attempts) == ("book", event.event_id, 2)
    assert "2 of 2" in report.reason


@pytest.mark.parametrize("error", [RuntimeError("exporter down"), asyncio.CancelledError(), GeneratorExit()])
async def test_a_listener_that_raises_is_removed_without_affecting_deliveries(
    backend: Backend, caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    """A broken metrics exporter must not stop deliveries, nor must one that raises no Exception."""
    bus = await backend.start_bus()
    calls: list[Report] = []

    def broken(report: Report) -> None:
        calls.append(report)
        raise error

    bus.listen(broken)
    parked = reports_of(bus, EventParked)

    async def fail(event: Moved) -> None:
        raise ValueError("no")

    bus.subscribe(Moved, fail, retry=ONE_ATTEMPT)
    await bus.publish_batch([Moved("rook", n) for n in range(3)])
    await bus.drain(60)
    assert len(calls) == 1
    assert len(parked) == 3
    assert "listener failed and was removed" in caplog.text


@pytest.mark.parametrize("listener", [None, "print", AsyncMock()])
async def test_listen_rejects_a_listener_that_is_not_a_plain_function(memory: Backend, listener: Any) -> None:
    """An async function would be called, but its body would never run."""
    bus = await memory.start_bus()
    with pytest.raises(UsageError, match="plain function"):
        bus.listen(listener)


async def test_a_listener_need_not_be_hashable_and_may_be_attached_twice(memory: Backend) -> None:
    """If two parts of an application attach the same function, one must not remove the other's."""

    @dataclass
    class Counter:
        count: int = 0

        def __call__(self, report: Report) -> None:
            self.count += 1

    bus = await memory.start_bus()
    counter = Counter()
    remove = bus.listen(counter)
    bus.listen(counter)
    remove()
    remove()

    async def fail(event: Moved) -> None:
        raise NotRetryableError("no")

    bus.subscribe(Moved, fail)
    await bus.publish(Moved("rook", 1))
    await bus.drain(60)
    assert counter.count == 2  # AttemptFailed, EventParked
