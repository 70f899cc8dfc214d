"""``drain``: returns when everything published is handled, parked or scheduled, and not before."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from pabal import BusNotRunningError, RetryPolicy
from pabal.errors import DrainTimeoutError, InsideHandlerError, PabalError
from pabal.testing import VirtualClock
from tests.bus.samples import Moved, NoteTaken
from tests.bus.support import (
    ONE_ATTEMPT,
    Backend,
    Recorder,
    by_piece,
    numbers,
    publish_moves,
    spin_loop,
    statistics_of,
)


async def test_drain_returns_at_once_when_there_is_nothing_to_do(backend: Backend) -> None:
    """It would hang on an empty bus, without subscriptions, or when everything is done."""
    bus = await backend.start_bus()
    await bus.drain(60)
    await bus.publish(Moved("rook"))
    await bus.drain(60)

    async def note(event: Moved) -> None: ...

    bus.subscribe(Moved, note)
    await bus.drain(60)


async def test_drain_waits_for_chains_of_events(backend: Backend) -> None:
    """Events that a handler publishes while drain waits are part of the work."""
    bus = await backend.start_bus()
    seen: Recorder[int] = Recorder()

    async def on_note_taken(event: NoteTaken) -> None:
        seen.add(event.n)
        await asyncio.sleep(0)
        if event.n < 50:
            await bus.publish(NoteTaken(event.n + 1))

    bus.subscribe(NoteTaken, on_note_taken)
    await bus.publish(NoteTaken(1))
    await bus.drain(60)
    assert seen == list(range(1, 51))


async def test_drain_saves_the_watermark(stored: Backend) -> None:
    """A crash after drain must repeat nothing: the watermark is saved behind everything."""
    bus = await stored.start_bus()

    async def note(event: Moved) -> None: ...

    bus.subscribe(Moved, note, name="book")
    await bus.publish_batch([Moved(f"piece-{n % 5}", n) for n in range(300)])
    await bus.drain(60)
    assert bus.storage is not None
    [record] = await bus.storage.list_subscriptions()
    assert (record.watermark, record.unfinished) == (300, 0)
    assert statistics_of(bus, "book")["lag"] == 0


async def test_drain_waits_for_retries_unless_retries_is_false(backend: Backend, clock: VirtualClock) -> None:
    """A pending retry is unfinished work; but a caller may not want to wait an hour for it."""
    bus = await backend.start_bus(clock=clock)
    calls: Recorder[int] = Recorder()

    async def fail_once(event: Moved) -> None:
        calls.add(event.n)
        if len(calls) == 1:
            raise ValueError("later")

    bus.subscribe(Moved, fail_once, retry=RetryPolicy(base_delay=20, jitter=0))
    await bus.publish_batch([Moved("rook", 1), Moved("rook", 2)])
    await bus.drain(60, retries=False)
    assert calls == [1]
    draining = asyncio.create_task(bus.drain())
    await spin_loop(100)
    assert not draining.done()
    await clock.advance(21)
    await draining
    assert calls == [1, 1, 2]


@pytest.mark.parametrize("backend", ["memory storage", "sqlite", "valkey"], indirect=True)
@pytest.mark.parametrize(("pieces", "last"), [("AB", 9), ("A", 2400)])
async def test_drain_without_retries_does_not_wait_for_a_retry_in_a_replay(
    backend: Backend, clock: VirtualClock, pieces: str, last: int
) -> None:
    """Leaving ``async with bus`` would last until the retry, also if the replay does not fit into memory."""
    bus = await backend.start_bus(clock=clock)
    handled: Recorder[Moved] = Recorder()
    failing: set[int] = set()
    gate = asyncio.Event()

    async def handle(event: Moved) -> None:
        if failing and event.n == last:
            await gate.wait()
        if event.n in failing:
            raise ValueError("in an hour")
        handled.add(event)

    bus.subscribe(
        Moved, handle, name="replayed", retry=RetryPolicy(base_delay=3600, max_delay=3600, jitter=0)
    )
    await publish_moves(bus, range(1, last + 1), pieces)
    await bus.drain(30)
    before = len(handled)
    failing.add(2)
    await bus.subscriptions.replay("replayed")
    draining = asyncio.create_task(bus.drain(30, retries=False))
    if last % len(pieces):
        await spin_loop()
        assert not draining.done()  # the last event is still being handled
    gate.set()
    await draining
    replayed = numbers(list(handled)[before:])
    assert replayed == ([1] if pieces == "A" else [1, 3, 5, 7, 9])
    await publish_moves(bus, range(last + 1, last + 3), pieces)
    await bus.drain(30, retries=False)
    assert len(handled) == before + len(replayed)  # new events wait for the end of the replay
    failing.clear()
    await clock.advance(3600)
    await bus.drain(30)
    found = by_piece(list(handled)[before:])
    assert found == {
        piece: [n for n in range(1, last + 3) if pieces[n % len(pieces)] == piece] for piece in pieces
    }


async def test_drain_without_retries_returns_when_a_running_attempt_fails(
    memory: Backend, clock: VirtualClock
) -> None:
    """The handler fails only after drain has begun to wait; nothing else would wake drain."""
    bus = await memory.start_bus(clock=clock)
    fail = asyncio.Event()

    async def fail_later(event: Moved) -> None:
        await fail.wait()
        raise ValueError("in an hour")

    bus.subscribe(Moved, fail_later, retry=RetryPolicy(base_delay=3600, max_delay=3600))
    await bus.publish(Moved("rook"))
    draining = asyncio.create_task(bus.drain(retries=False))
    await spin_loop()
    assert not draining.done()
    fail.set()
    await asyncio.wait_for(draining, 10)


async def test_drain_does_not_wait_for_scheduled_events(backend: Backend, clock: VirtualClock) -> None:
    """An event for tomorrow is not work for now: drain would take a day."""
    bus = await backend.start_bus(clock=clock)
    await bus.publish(Moved("rook"), delay=86_400)
    await bus.drain(60)


async def test_drain_does_not_wait_for_events_queued_behind_a_dead_letter(backend: Backend) -> None:
    """The dead letter needs an operator's decision first; drain would wait for it for ever."""
    bus = await backend.start_bus()

    async def fail(event: Moved) -> None:
        raise ValueError("no")

    bus.subscribe(Moved, fail, retry=ONE_ATTEMPT, on_exhausted="park_key")
    await bus.publish_batch([Moved("rook", n) for n in range(5)])
    await bus.drain(60)
    [letter] = await bus.dead_letters.list()
    assert letter.queued == 4


async def test_a_drain_timeout_raises_and_leaves_the_work_running(backend: Backend) -> None:
    """A timeout says how much is left; the work continues, and a later drain sees its end."""
    bus = await backend.start_bus()
    release = asyncio.Event()
    entered: Recorder[int] = Recorder()
    seen: Recorder[int] = Recorder()

    async def wait(event: Moved) -> None:
        entered.add(event.n)
        await release.wait()
        seen.add(event.n)

    bus.subscribe(Moved, wait)
    await bus.publish_batch([Moved("rook", n) for n in range(3)])
    await entered.reach(1)  # only what has arrived counts as unfinished
    started = time.perf_counter()
    with pytest.raises(DrainTimeoutError, match=r"within 0\.1 s \(unfinished: 3, ") as caught:
        await bus.drain(timeout=0.1)
    assert time.perf_counter() - started < 5
    assert isinstance(caught.value, TimeoutError)
    assert isinstance(caught.value, PabalError)
    assert caught.value.pending == 3
    release.set()
    await bus.drain(60)
    assert seen == [0, 1, 2]


async def test_a_drain_timeout_reports_how_many_deliveries_wait_for_a_retry(backend: Backend) -> None:
    """A handler's error looks like slowness, and waiting longer is no use: a retry may be an hour away."""
    bus = await backend.start_bus()

    async def fail(event: Moved) -> None:
        raise AttributeError("no such field")

    bus.subscribe(Moved, fail, retry=RetryPolicy(base_delay=3600, max_delay=3600))
    await bus.publish_batch([Moved("rook", 1), Moved("rook", 2)])
    await bus.drain(10, retries=False)
    with pytest.raises(DrainTimeoutError, match=r"waiting for a retry: 2; drain\(retries=False\)") as caught:
        await bus.drain(timeout=0.1)
    assert (caught.value.pending, caught.value.retrying) == (2, 2)


async def test_concurrent_drains_all_return(backend: Backend) -> None:
    """Waking one drain must not forget the others."""
    bus = await backend.start_bus()
    release = asyncio.Event()

    async def wait(event: Moved) -> None:
        await release.wait()

    bus.subscribe(Moved, wait)
    await bus.publish(Moved("rook"))
    drains = [asyncio.create_task(bus.drain()) for _ in range(10)]
    await spin_loop()
    assert not any(drain.done() for drain in drains)
    drains[3].cancel()
    release.set()
    results = await asyncio.wait_for(asyncio.gather(*drains, return_exceptions=True), 10)
    assert [type(result).__name__ for result in results].count("NoneType") == 9


@pytest.mark.parametrize("batch", [None, 5])
async def test_drain_inside_a_handler_raises_instead_of_deadlocking(
    backend: Backend, batch: int | None
) -> None:
    """It would wait for the event being handled; also from a task that the handler awaits."""
    bus = await backend.start_bus()
    errors: Recorder[type] = Recorder()

    async def handle(event: Any) -> None:
        for attempt in (bus.drain(), asyncio.wait_for(bus.drain(), 2)):
            try:
                await attempt
                errors.add(type(None))
            except (InsideHandlerError, TimeoutError) as error:
                errors.add(type(error))

    bus.subscribe(Moved, handle, batch=batch)
    await bus.publish(Moved("rook"))
    await bus.drain(60)
    assert errors == [InsideHandlerError, InsideHandlerError]


async def test_a_task_that_outlives_its_handler_may_drain(backend: Backend) -> None:
    """Its handler has ended: an InsideHandlerError would be wrong, since drain does not wait for itself."""
    bus = await backend.start_bus()
    tasks: list[asyncio.Task[None]] = []
    go = asyncio.Event()

    async def later() -> None:
        await go.wait()
        await bus.drain(60)

    async def handle(event: Moved) -> None:
        tasks.append(asyncio.create_task(later()))

    bus.subscribe(Moved, handle)
    await bus.publish(Moved("rook"))
    await bus.drain(60)
    go.set()
    await tasks[0]


async def test_a_stop_makes_a_waiting_drain_raise(backend: Backend) -> None:
    """Waiting for a bus that has stopped would never end."""
    bus = await backend.start_bus()

    async def hang(event: Moved) -> None:
        await asyncio.Event().wait()

    bus.subscribe(Moved, hang)
    await bus.publish(Moved("rook"))
    draining = asyncio.create_task(bus.drain())
    await spin_loop()
    await bus.stop(timeout=0.05)
    with pytest.raises(BusNotRunningError):
        await asyncio.wait_for(draining, 10)


async def test_drain_does_not_wait_for_the_deliveries_of_an_unsubscribed_handler(
    backend: Backend, clock: VirtualClock
) -> None:
    """Deliveries that wait for a retry, with or without a key, must be dropped with their subscription."""
    bus = await backend.start_bus(clock=clock)
    calls: Recorder[int] = Recorder()

    async def fail(event: Any) -> None:
        calls.add(event.n)
        raise ValueError("in an hour")

    subscription = bus.subscribe((Moved, NoteTaken), fail, retry=RetryPolicy(base_delay=3600, max_delay=3600))
    await bus.publish_batch([Moved("rook", 1), Moved("rook", 2), NoteTaken(3)])
    await calls.reach(2)
    assert bus.unsubscribe(subscription)
    await bus.drain(60)
    statistics = bus.get_statistics()
    assert (statistics["queue_size"], statistics["retry_queue_size"]) == (0, 0)


async def test_cancelling_a_drain_does_not_affect_the_bus(backend: Backend) -> None:
    """A cancelled wait would cancel the deliveries that it waits for."""
    bus = await backend.start_bus()
    release = asyncio.Event()
    seen: Recorder[int] = Recorder()

    async def wait(event: Moved) -> None:
        await release.wait()
        seen.add(event.n)

    bus.subscribe(Moved, wait)
    await bus.publish(Moved("rook", 1))
    draining = asyncio.create_task(bus.drain())
    await spin_loop()
    draining.cancel()
    with pytest.raises(asyncio.CancelledError):
        await draining
    release.set()
    await bus.drain(60)
    assert seen == [1]
