"""``bus.subscriptions.pause`` and ``resume``: while events come, handlers run and subscriptions halt."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from pabal import NotRetryableError, RetryPolicy
from pabal.errors import UsageError
from pabal.ports.storage import Start
from pabal.ports.telemetry import SubscriptionHalted, SubscriptionPaused, SubscriptionResumed
from tests.bus.samples import Moved
from tests.bus.support import (
    Backend,
    GatedHandler,
    Recorder,
    by_piece,
    numbers,
    publish_moves,
    reports_of,
    spin_loop,
    statistics_of,
)


async def test_a_paused_subscription_handles_no_events_until_it_is_resumed(stored: Backend) -> None:
    """While an operator repairs a subscription's target, nothing may be written to it."""
    bus = await stored.start_bus()
    paused, other = GatedHandler(), GatedHandler()
    bus.subscribe(Moved, paused, name="paused")
    bus.subscribe(Moved, other, name="other")
    reports = reports_of(bus, SubscriptionPaused)
    resumed = reports_of(bus, SubscriptionResumed)
    await publish_moves(bus, range(10))
    await bus.drain(60)
    assert await bus.subscriptions.pause("paused")
    assert not await bus.subscriptions.pause("paused")
    await publish_moves(bus, range(10, 20))
    await bus.drain(60)
    assert sorted(numbers(paused.handled)) == list(range(10))
    assert sorted(numbers(other.handled)) == list(range(20))
    assert statistics_of(bus, "paused")["state"] == "paused"
    assert bus.health().status == "degraded"
    assert "'paused' is paused" in bus.health().reasons[0]
    assert [report.subscription for report in reports] == ["paused"]
    assert await bus.subscriptions.resume("paused")
    assert not await bus.subscriptions.resume("paused")
    await bus.drain(60)
    assert by_piece(paused.handled) == {"A": list(range(0, 20, 2)), "B": list(range(1, 20, 2))}
    assert [report.subscription for report in resumed] == ["paused"]
    assert bus.health().status == "ok"


async def test_a_running_handler_finishes_when_its_subscription_is_paused(stored: Backend) -> None:
    """If a pause forgot running handlers, their events would be handled twice."""
    bus = await stored.start_bus(worker_count=2)
    handler = GatedHandler()
    handler.gate.clear()
    bus.subscribe(Moved, handler, name="paused")
    await publish_moves(bus, range(6))
    await handler.entered.reach(2)
    await bus.subscriptions.pause("paused")
    resuming = asyncio.ensure_future(bus.subscriptions.resume("paused"))
    handler.gate.set()
    assert await resuming
    await bus.drain(60)
    assert by_piece(handler.handled) == {"A": [0, 2, 4], "B": [1, 3, 5]}


async def test_a_pause_holds_after_a_restart(stored: Backend) -> None:
    """A restart in the middle of a repair would undo the pause."""
    bus = await stored.start_bus()
    handler = GatedHandler()
    bus.subscribe(Moved, handler, name="paused")
    await bus.subscriptions.pause("paused")
    await publish_moves(bus, range(5))
    bus = await stored.reopen(bus)
    bus.subscribe(Moved, handler, name="paused")
    await bus.start()
    await bus.drain(60)
    assert len(handler.handled) == 0
    [record] = await bus.subscriptions.list()
    assert record.paused
    assert await bus.resume("paused")
    await bus.drain(60)
    assert sorted(numbers(handler.handled)) == list(range(5))


async def test_a_failure_while_paused_is_retried_after_the_resume(stored: Backend) -> None:
    """The retry of an attempt that fails just as the pause begins would be forgotten, or made twice."""
    bus = await stored.start_bus(worker_count=1)
    handler = GatedHandler()
    handler.gate.clear()
    failed: Recorder[int] = Recorder()

    async def fragile(event: Moved) -> None:
        await handler.handle(event)
        if event.n not in list(failed):
            failed.add(event.n)
            raise ValueError(event.n)

    bus.subscribe(Moved, fragile, name="paused", retry=RetryPolicy(max_attempts=3, base_delay=0.0))
    await bus.publish(Moved("A", 1))
    await handler.entered.reach(1)
    await bus.subscriptions.pause("paused")
    handler.gate.set()
    await bus.subscriptions.resume("paused")
    await bus.drain(60)
    assert list(failed) == [1]
    assert statistics_of(bus, "paused")["parked"] == 0


async def test_pause_raises_on_a_bus_without_a_log(memory: Backend) -> None:
    """Events published during the pause have nowhere to wait, and would be lost without an error."""
    bus = await memory.start_bus()
    bus.subscribe(Moved, GatedHandler(), name="here")
    with pytest.raises(UsageError, match="without a log"):
        await bus.subscriptions.pause("here")
    assert not await bus.subscriptions.resume("here")


async def test_a_pause_requested_in_the_storage_pauses_a_running_subscription(stored: Backend) -> None:
    """A dashboard, which has a storage of its own, could not pause the subscriptions of a worker."""
    bus = await stored.start_bus()
    handler = GatedHandler()
    bus.subscribe(Moved, handler, name="held")
    await bus.drain(60)
    paused = reports_of(bus, SubscriptionPaused)
    assert bus.storage is not None
    await bus.storage.pause_subscription("held")
    await paused.reach(1)
    await publish_moves(bus, range(3))
    await bus.drain(60)
    assert len(handler.handled) == 0


async def test_a_handler_may_pause_its_own_subscription_while_it_is_being_reopened(stored: Backend) -> None:
    """Reopening waits for the subscription's handlers: one that waits for it would hang for ever."""
    bus = await stored.start_bus()
    entered: Recorder[int] = Recorder()
    asked = asyncio.Event()

    async def handle(event: Moved) -> None:
        entered.add(event.n)
        if event.n == 2 and not asked.is_set():
            asked.set()
            await bus.subscriptions.replay("own")
            assert await bus.subscriptions.pause("own")

    bus.subscribe(Moved, handle, name="own")
    await publish_moves(bus, range(1, 2))
    await bus.drain(60)
    await publish_moves(bus, range(2, 3))
    await bus.drain(60)
    assert statistics_of(bus, "own")["state"] == "paused"
    await bus.subscriptions.resume("own")
    await bus.drain(60)
    assert entered == [1, 2, 1]


async def test_a_handler_may_resume_its_own_halted_subscription(backend: Backend) -> None:
    """Resuming waits for the subscription's handlers: one that waits for the resume would hang for ever."""
    bus = await backend.start_bus(worker_count=2)
    entered: Recorder[int] = Recorder()
    halted = reports_of(bus, SubscriptionHalted)

    async def handle(event: Moved) -> None:
        entered.add(event.n)
        if event.n == 1 and len(halted) == 0:
            await halted.reach(1)
            assert await bus.resume("own")
        elif event.n == 2 and len(halted) == 0:
            await entered.reach(2)
            raise NotRetryableError("no 2")

    bus.subscribe(Moved, handle, name="own", on_exhausted="stop")
    await publish_moves(bus, range(1, 3))
    await bus.drain(60)
    assert statistics_of(bus, "own")["state"] == "active"
    await publish_moves(bus, range(3, 4))
    await bus.drain(60)
    assert entered[-1] == 3


async def test_handlers_of_two_halted_subscriptions_may_resume_each_other(backend: Backend) -> None:
    """Each would wait for the other's handler, which waits for it."""
    bus = await backend.start_bus(worker_count=4)
    entered: Recorder[str] = Recorder()
    halted = reports_of(bus, SubscriptionHalted)
    resumed: Recorder[str] = Recorder()

    def subscribe(name: str, other: str) -> None:
        async def handle(event: Moved) -> None:
            entered.add(name)
            if len(resumed) == 2:
                return
            await entered.reach(4)
            if event.n == 2:
                raise NotRetryableError("no 2")
            await halted.reach(2)
            assert await bus.resume(other)
            resumed.add(other)
            await resumed.reach(2)

        bus.subscribe(Moved, handle, name=name, on_exhausted="stop")

    subscribe("one", "other")
    subscribe("other", "one")
    await publish_moves(bus, range(1, 3))
    await bus.drain(60)
    assert {statistics_of(bus, name)["state"] for name in ("one", "other")} == {"active"}


async def test_a_cancelled_resume_still_resumes_the_subscription(
    stored: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half opened after a timeout of the call, it would take no more events, and no drain() would end."""
    bus = await stored.start_bus()
    halted = reports_of(bus, SubscriptionHalted)
    handled: Recorder[int] = Recorder()

    async def handle(event: Moved) -> None:
        if event.n == 1 and len(halted) == 0:
            raise NotRetryableError("no 1")
        handled.add(event.n)

    bus.subscribe(Moved, handle, name="resumed", on_exhausted="stop")
    storage = bus.storage
    assert storage is not None

    async def note_halt(name: str, epoch: int, reason: str) -> bool:
        return False  # as if the call came before the halt is recorded

    monkeypatch.setattr(storage, "note_halt", note_halt)
    await publish_moves(bus, range(1, 3))
    await halted.reach(1)
    await bus.drain(60)
    opening, held = asyncio.Event(), asyncio.Event()
    open_subscription = storage.open_subscription

    async def open_later(name: str, start: Start, *, epoch: int | None = None) -> Any:
        opening.set()
        await held.wait()
        return await open_subscription(name, start, epoch=epoch)

    monkeypatch.setattr(storage, "open_subscription", open_later)
    resuming = asyncio.ensure_future(bus.resume("resumed"))
    await opening.wait()
    resuming.cancel()
    await asyncio.wait([resuming])
    held.set()
    await bus.drain(60)
    assert handled == [1, 2]


async def test_a_pause_request_is_carried_out_although_reading_it_was_cancelled(
    stored: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A timeout of one call would lose requests that were made at the same time."""
    bus = await stored.start_bus()
    bus.subscribe(Moved, GatedHandler(), name="paused")
    await bus.drain(60)
    storage = bus.storage
    assert storage is not None
    looking, cancelled = asyncio.Event(), asyncio.Event()
    read = storage.read_controls

    async def read_controls(names: Sequence[str]) -> Any:
        if not cancelled.is_set():
            looking.set()
            await cancelled.wait()
            raise asyncio.CancelledError
        return await read(names)

    monkeypatch.setattr(storage, "read_controls", read_controls)
    pausing = asyncio.ensure_future(bus.subscriptions.pause("paused"))
    await looking.wait()
    await spin_loop()
    cancelled.set()
    await asyncio.wait([pausing])
    await bus.drain(60)
    assert statistics_of(bus, "paused")["state"] == "paused"


@pytest.mark.parametrize("backend", ["memory storage", "sqlite", "valkey"], indirect=True)
async def test_drain_does_not_wait_for_dead_letters_retried_during_a_pause(
    backend: Backend,
) -> None:
    """They are not delivered before the resume, so the drain would run out of time."""
    bus, broken = await backend.start_bus(), True
    handled: Recorder[int] = Recorder()

    async def handle(event: Moved) -> None:
        if broken:
            raise NotRetryableError("not yet")
        handled.add(event.n)

    bus.subscribe(Moved, handle, name="paused")
    await publish_moves(bus, range(1, 2))
    await bus.drain(30)
    broken = False
    await bus.subscriptions.pause("paused")
    assert await bus.dead_letters.retry("all") == 1
    await bus.drain(5)
    assert handled == []
    await bus.subscriptions.resume("paused")
    await bus.drain(30)
    assert handled == [1]
    assert bus.health().status == "ok"
