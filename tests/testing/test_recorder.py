"""The recorder: which events were published, which attempts were made, and how they ended."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest

from pabal import DomainEvent, InMemoryEventBus, RetryPolicy, SqliteEventStorage, register_event
from pabal.domain import registry
from pabal.testing import Delivery, EventRecorder, VirtualClock

ONE_RETRY = RetryPolicy(max_attempts=2, base_delay=1.0, jitter=0.0)


class Rang(DomainEvent):
    event_type: ClassVar[str] = "recorder-test.rang"
    bell: str

    @property
    def aggregate_id(self) -> str:
        return self.bell


class RangTwice(Rang):
    event_type: ClassVar[str] = "recorder-test.rang_twice"


@dataclass(frozen=True)
class Listened:
    ear: str


register_event(Listened, event_type="recorder-test.listened")


async def do_nothing(event: Any) -> None:
    """Handle an event by doing nothing."""


async def test_events_are_recorded_in_publish_order(
    event_bus: InMemoryEventBus, recorded_events: EventRecorder
) -> None:
    """Events without a handler, or of several aggregates, would be missing or in the wrong order."""
    events = [Rang("a"), Listened("left"), RangTwice("b"), Rang("c")]
    async with event_bus:
        await event_bus.publish_batch(events * 5)
        await event_bus.drain()
    assert recorded_events.published == events * 5
    assert recorded_events.published_of(Rang) == [events[0], events[2], events[3]] * 5
    assert recorded_events.published_of(Listened) == [Listened("left")] * 5
    assert recorded_events.deliveries == []


async def test_attempts_are_recorded_with_their_outcome(
    event_bus: InMemoryEventBus, recorded_events: EventRecorder, virtual_clock: VirtualClock
) -> None:
    """A test of retries could not distinguish the first attempt from the second."""
    failures = ["bad"]

    async def handle(event: Rang) -> None:
        if failures:
            raise ValueError(failures.pop())

    event_bus.subscribe(Rang, handle, name="moody", retry=ONE_RETRY)
    event_bus.subscribe(Rang, do_nothing, name="calm", where=lambda event: event.bell != "a")
    async with event_bus:
        await event_bus.publish(Rang("a"))
        await virtual_clock.advance(1.0)
        await event_bus.drain()
    [failed] = recorded_events.failures_of("moody")
    assert (failed.event, failed.attempt, str(failed.error)) == (Rang("a"), 1, "bad")
    assert recorded_events.deliveries[-1] == Delivery("moody", Rang("a"), 2, None)
    assert recorded_events.handled_by("moody") == [Rang("a")]
    assert recorded_events.handled_by("calm") == []


async def test_batches_are_recorded_event_by_event(
    event_bus: InMemoryEventBus, recorded_events: EventRecorder
) -> None:
    """``handled_by`` would return lists for some subscriptions and events for others."""
    event_bus.subscribe(Rang, do_nothing, name="batched", batch=10)
    async with event_bus:
        await event_bus.publish_batch([Rang("a"), Rang("b")])
        await event_bus.drain()
    assert recorded_events.handled_by("batched") == [Rang("a"), Rang("b")]


async def test_clear_removes_the_recorded_events_and_deliveries(
    event_bus: InMemoryEventBus, recorded_events: EventRecorder
) -> None:
    """The second part of a test would have to subtract the first."""
    event_bus.subscribe(Rang, do_nothing, name="calm")
    async with event_bus:
        await event_bus.publish(Rang("a"))
        await event_bus.drain()
        recorded_events.clear()
        assert (recorded_events.published, recorded_events.deliveries) == ([], [])
        await event_bus.publish(Rang("b"))
        await event_bus.drain()
    assert recorded_events.published == recorded_events.handled_by("calm") == [Rang("b")]


async def test_a_durable_bus_can_be_recorded(tmp_path: Path) -> None:
    """Only tests without a log could check what happened."""
    async with SqliteEventStorage(tmp_path / "log.db") as storage:
        bus = InMemoryEventBus(storage)
        recorder = EventRecorder(bus)
        bus.subscribe(Rang, do_nothing, name="calm")
        async with bus:
            await bus.publish_batch([Rang("a"), Rang("b")])
    assert recorder.published == [Rang("a"), Rang("b")]
    assert sorted(event.bell for event in recorder.handled_by("calm")) == ["a", "b"]


def test_a_recorder_can_be_created_before_any_event_class(recwarn: pytest.WarningsRecorder) -> None:
    """Tests that turn warnings into errors could not create one in a fixture."""
    with registry.isolated():
        registry._by_name.clear()
        EventRecorder(InMemoryEventBus())
    assert not recwarn.list
