"""A bus's default logging: failures are not silent, and do not flood the log."""

from __future__ import annotations

import logging
from typing import ClassVar

import pytest

from pabal import DomainEvent, InMemoryEventBus, InMemoryEventStorage
from pabal.delivery import default_log
from pabal.delivery.default_log import DefaultLog
from pabal.observability.logging import log_reports
from pabal.ports.telemetry import EventSkipped, SubscriptionHalted, SubscriptionResumed


class Chimed(DomainEvent):
    event_type: ClassVar[str] = "own_log.chimed"
    bell: str


async def fail(event: Chimed) -> None:
    raise ValueError("too loud, token=abc123")


def default_log_lines(caplog: pytest.LogCaptureFixture) -> list[tuple[int, str]]:
    return [
        (record.levelno, record.getMessage().split(" event_id=")[0])
        for record in caplog.records
        if record.name == "pabal.telemetry"
    ]


async def test_a_handler_failure_is_logged_without_any_setup(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A mistake in a user's first program would print nothing, as if all were well."""
    async with InMemoryEventBus(InMemoryEventStorage()) as bus:
        bus.subscribe(Chimed, fail, name="parks", retry_count=0)
        bus.subscribe(Chimed, fail, name="halts", retry_count=0, on_exhausted="stop")
        await bus.publish(Chimed("a"))
        await bus.drain()
    lines = default_log_lines(caplog)
    assert sorted(line[1].split(" reason=")[0] for line in lines) == [
        "AttemptFailed subscription='halts'",
        "AttemptFailed subscription='parks'",
        "EventParked subscription='parks'",
        "SubscriptionHalted subscription='halts'",
    ]
    assert {level for level, _ in lines} == {logging.WARNING, logging.ERROR}
    assert "too loud" in caplog.text
    assert "abc123" not in caplog.text


async def test_a_handler_that_always_fails_does_not_flood_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A line for each of a million failures would block the event loop and fill the disk."""
    async with InMemoryEventBus(InMemoryEventStorage()) as bus:
        bus.subscribe(Chimed, fail, name="parks", retry_count=0)
        await bus.publish_batch([Chimed("a") for _ in range(300)])
        await bus.drain()
    assert len(default_log_lines(caplog)) == 2  # a failed attempt, and a dead letter


def test_suppressed_reports_are_counted_per_subscription_and_kind(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Of two problems at once, one would hide the other, and the number of each would be unknown."""
    now = 100.0
    log = DefaultLog(lambda: now)
    for _ in range(4):
        log(SubscriptionHalted("a", reason="no"))
    log(SubscriptionHalted("b", reason="no"))
    log(EventSkipped("a", event_type="x", position=1))
    now += default_log._QUIET
    for _ in range(2):
        log(SubscriptionHalted("a", reason="no"))
    now += default_log._QUIET
    log(SubscriptionHalted("a", reason="no"))
    now += default_log._QUIET
    log(SubscriptionHalted("a", reason="no"))
    assert [
        record.getMessage().split("'no'")[-1] for record in caplog.records if "'a'" in record.getMessage()
    ] == [
        "",
        "EventSkipped subscription='a' event_type='x' position=1",
        " (and 3 more like it before)",
        " (and 1 more like it before)",
        "",
    ]
    assert len([record for record in caplog.records if "'b'" in record.getMessage()]) == 1


def test_the_log_forgets_subscriptions_that_are_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A subscription for each visitor, each of which failed once, would fill the memory."""
    now = 100.0
    monkeypatch.setattr(default_log, "_MOST_TOLD", 10)
    log = DefaultLog(lambda: now)
    for number in range(100):
        log(SubscriptionHalted(f"visitor-{number}", reason="no"))
        now += 1.0
    assert len(log._told) <= 20


def test_the_default_log_omits_informational_reports(caplog: pytest.LogCaptureFixture) -> None:
    """Starting and stopping a program would log useless lines."""
    with caplog.at_level(logging.DEBUG):
        DefaultLog()(SubscriptionResumed("a"))
    assert caplog.records == []


async def test_log_reports_replaces_the_default_log_until_it_ends(caplog: pytest.LogCaptureFixture) -> None:
    """Every failure would be logged twice: by the application, and by the bus."""
    async with InMemoryEventBus(InMemoryEventStorage()) as bus:
        bus.subscribe(Chimed, fail, name="parks", retry_count=0)
        end = log_reports(bus, "shop")
        await bus.publish(Chimed("a"))
        await bus.drain()
        assert default_log_lines(caplog) == []
        assert [record.name for record in caplog.records] == ["shop", "shop"]
        end()
        await bus.publish(Chimed("b"))
        await bus.drain()
    assert len(default_log_lines(caplog)) == 2


async def test_a_telemetry_listener_does_not_silence_the_default_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Collecting metrics would silence the log of failures."""
    reports: list[object] = []
    async with InMemoryEventBus(InMemoryEventStorage()) as bus:
        bus.listen(reports.append)
        bus.subscribe(Chimed, fail, name="parks", retry_count=0)
        await bus.publish(Chimed("a"))
        await bus.drain()
    assert len(reports) == len(default_log_lines(caplog)) == 2
