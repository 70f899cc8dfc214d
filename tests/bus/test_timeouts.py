"""``timeout``: one watchdog for all attempts, async or in a thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest

from pabal import RetryPolicy
from pabal.ports.telemetry import AttemptFailed
from pabal.testing import VirtualClock
from tests.bus.samples import Moved, NoteTaken
from tests.bus.support import ONE_ATTEMPT, Backend, Recorder, numbers, reports_of, spin_loop


async def test_an_attempt_that_takes_too_long_is_cancelled_and_fails(
    backend: Backend, clock: VirtualClock
) -> None:
    """A handler that waits for a dead server would hold its key for ever."""
    bus = await backend.start_bus(clock=clock)
    failed = reports_of(bus, AttemptFailed)
    entered: Recorder[int] = Recorder()
    cancelled: Recorder[int] = Recorder()

    async def hang(event: Moved) -> None:
        entered.add(event.n)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.add(event.n)
            raise

    bus.subscribe(Moved, hang, timeout=5.0, retry=ONE_ATTEMPT)
    await bus.publish(Moved("rook", 1))
    await entered.reach(1)
    await clock.advance(4.9)
    assert cancelled == []
    await clock.advance(0.2)
    await failed.reach(1)
    assert cancelled == [1]
    await bus.drain(60)
    [letter] = await bus.dead_letters.list()
    assert letter.attempts[0].error_type == "TimeoutError"
    assert "5.0 s" in letter.attempts[0].message


async def test_each_attempt_has_the_full_timeout(backend: Backend, clock: VirtualClock) -> None:
    """A deadline left over from the first attempt would cut the second one short."""
    bus = await backend.start_bus(clock=clock)
    starts: Recorder[float] = Recorder()
    ends: Recorder[float] = Recorder()

    async def hang(event: Moved) -> None:
        starts.add(clock.monotonic())
        try:
            await asyncio.Event().wait()
        finally:
            ends.add(clock.monotonic())

    policy = RetryPolicy(max_attempts=3, base_delay=2, multiplier=1, jitter=0)
    bus.subscribe(Moved, hang, timeout=5.0, retry=policy)
    await bus.publish(Moved("rook"))
    await starts.reach(1)
    await clock.advance(25)
    await bus.drain(60)
    assert list(starts) == pytest.approx([0, 7, 14])
    assert list(ends) == pytest.approx([5, 12, 19])


async def test_the_watchdog_does_not_cancel_attempts_that_finish_in_time(
    backend: Backend, clock: VirtualClock
) -> None:
    """The watchdog's timer outlives the attempt it was set for, and must not cancel the next one."""
    bus = await backend.start_bus(clock=clock, worker_count=1)
    seen: Recorder[int] = Recorder()
    failed = reports_of(bus, AttemptFailed)
    step = asyncio.Event()

    async def handle(event: Moved) -> None:
        if event.n == 99:
            await step.wait()
        seen.add(event.n)

    bus.subscribe(Moved, handle, timeout=10.0)
    for n in range(5):
        await bus.publish(Moved("rook", n))
        await bus.drain(60)
        await clock.advance(6)
    await bus.publish(Moved("rook", 99))
    await clock.advance(9)
    step.set()
    await bus.drain(60)
    assert seen == [0, 1, 2, 3, 4, 99]
    assert len(failed) == 0


def _has_number(n: int) -> Callable[[NoteTaken], bool]:
    return lambda event: event.n == n


async def test_deadlines_of_concurrent_attempts_expire_in_order(
    backend: Backend, clock: VirtualClock
) -> None:
    """One timer serves all attempts: it must be moved to the earliest deadline each time."""
    bus = await backend.start_bus(clock=clock, worker_count=6)
    entered: Recorder[int] = Recorder()
    ended: Recorder[tuple[int, float]] = Recorder()

    async def hang(event: NoteTaken) -> None:
        entered.add(event.n)
        try:
            await asyncio.Event().wait()
        finally:
            ended.add((event.n, clock.monotonic()))

    for n, seconds in enumerate((30.0, 10.0, 20.0)):
        bus.subscribe(
            NoteTaken, hang, name=f"after-{seconds}", timeout=seconds, retry=ONE_ATTEMPT, where=_has_number(n)
        )
    for n in range(3):
        await bus.publish(NoteTaken(n))
    await entered.reach(3)
    await clock.advance(31)
    await bus.drain(60)
    assert [n for n, _ in ended] == [1, 2, 0]
    assert [when for _, when in ended] == pytest.approx([10, 20, 30])


async def test_a_sync_handler_that_times_out_is_not_retried_while_it_still_runs(
    backend: Backend, clock: VirtualClock
) -> None:
    """A thread cannot be cancelled; a retry started beside it would handle the event twice at once."""
    bus = await backend.start_bus(clock=clock)
    failed = reports_of(bus, AttemptFailed)
    entered: Recorder[int] = Recorder()
    release = threading.Event()
    inside = 0
    peak = 0

    def block(event: Moved) -> None:
        nonlocal inside, peak
        inside += 1
        peak = max(peak, inside)
        entered.add(event.n)
        release.wait(20)
        inside -= 1

    bus.subscribe(Moved, block, timeout=5.0, retry=RetryPolicy(max_attempts=2, base_delay=0, jitter=0))
    await bus.publish(Moved("rook", 1))
    await entered.reach(1)
    await clock.advance(6)
    await spin_loop()
    assert (len(entered), len(failed)) == (1, 0)
    release.set()
    await failed.reach(1)
    assert failed[0].error.__class__ is TimeoutError
    await clock.advance(1)
    await bus.drain(60)
    assert (len(entered), peak) == (2, 1)
    assert await bus.dead_letters.list() == []


async def test_a_sync_handler_that_finishes_in_time_succeeds(backend: Backend) -> None:
    """The timeout must not depend on how soon the loop notices that the thread has ended."""
    bus = await backend.start_bus()
    seen: Recorder[int] = Recorder()
    bus.subscribe(Moved, lambda event: seen.add(event.n), name="note", timeout=20.0)
    await bus.publish(Moved("rook", 1))
    await bus.drain(60)
    assert seen == [1]
    assert await bus.dead_letters.list() == []


async def test_a_handler_that_returns_when_cancelled_counts_as_handled(
    backend: Backend, clock: VirtualClock
) -> None:
    """A handler that returns has done its work; afterwards the worker must not stay cancelled."""
    bus = await backend.start_bus(clock=clock, worker_count=1)
    seen: Recorder[int] = Recorder()
    entered = asyncio.Event()

    async def return_when_cancelled(event: Moved) -> None:
        if event.n == 1:
            entered.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                pass
        await asyncio.sleep(0)
        seen.add(event.n)

    bus.subscribe(Moved, return_when_cancelled, timeout=1.0, retry=ONE_ATTEMPT)
    await bus.publish_batch([Moved("rook", n) for n in range(1, 4)])
    await entered.wait()
    await clock.advance(2)
    await bus.drain(60)
    assert seen == [1, 2, 3]
    assert await bus.dead_letters.list() == []


async def test_a_handler_that_raises_cancelled_error_itself_is_retried(backend: Backend) -> None:
    """A cancelled task inside a handler raises CancelledError; taken for the end of the worker, it would stop
    the bus.
    """
    bus = await backend.start_bus(worker_count=1)
    seen: Recorder[int] = Recorder()

    async def cancel_own_task(event: Moved) -> None:
        seen.add(event.n)
        if event.n == 1 and len(seen) == 1:
            task = asyncio.ensure_future(asyncio.Event().wait())
            asyncio.get_running_loop().call_soon(task.cancel)
            await task

    bus.subscribe(Moved, cancel_own_task, retry=RetryPolicy(max_attempts=2, base_delay=0))
    await bus.publish_batch([Moved("rook", 1), Moved("rook", 2)])
    await bus.drain(60)
    assert seen == [1, 1, 2]


async def test_a_batch_has_one_deadline(backend: Backend, clock: VirtualClock) -> None:
    """Each event would get the full timeout: a batch could hang for a multiple of it."""
    bus = await backend.start_bus(clock=clock)
    entered: Recorder[int] = Recorder()
    failed = reports_of(bus, AttemptFailed)

    async def hang(events: list[Moved]) -> None:
        entered.add(len(events))
        if len(entered) == 1:
            await asyncio.Event().wait()

    bus.subscribe(
        Moved, hang, batch=10, timeout=3.0, retry=RetryPolicy(max_attempts=2, base_delay=0, jitter=0)
    )
    await bus.publish_batch([Moved("rook", n) for n in range(10)])
    await entered.reach(1)
    await clock.advance(3.5)
    await bus.drain(60)
    assert entered == [10, 10]
    assert len(failed) == 1
    assert await bus.dead_letters.list() == []


async def test_other_handlers_continue_while_one_times_out(backend: Backend, clock: VirtualClock) -> None:
    """Cancelling one attempt must not reach another one."""
    bus = await backend.start_bus(clock=clock)
    seen: Recorder[Moved] = Recorder()

    async def hang(event: Moved) -> None:
        await asyncio.Event().wait()

    async def note(event: Moved) -> None:
        seen.add(event)

    bus.subscribe(Moved, hang, timeout=1.0, retry=ONE_ATTEMPT)
    bus.subscribe(Moved, note)
    await bus.publish_batch([Moved(f"piece-{n}", n) for n in range(3)])
    await seen.reach(3)
    await clock.advance(5)
    await bus.drain(60)
    assert sorted(numbers(seen)) == [0, 1, 2]
    assert len(await bus.dead_letters.list()) == 3


async def test_concurrent_attempts_each_time_out_at_their_own_deadline(
    backend: Backend, clock: VirtualClock
) -> None:
    """One timer serves all attempts: set for the wrong one, the others would be cut short or hang."""
    bus = await backend.start_bus(clock=clock, worker_count=3)
    failed = reports_of(bus, AttemptFailed)
    entered: Recorder[str] = Recorder()

    async def hang(event: Moved) -> None:
        entered.add(event.piece)
        await asyncio.Event().wait()

    for seconds in (1.0, 2.0, 3.0):
        bus.subscribe(Moved, hang, timeout=seconds, retry=ONE_ATTEMPT, name=f"within {seconds}")
    await bus.publish(Moved("rook", 1))
    await entered.reach(3)
    for count, name in enumerate(("within 1.0", "within 2.0", "within 3.0"), start=1):
        await clock.advance(0.75)
        assert len(failed) == count - 1
        await clock.advance(0.25)
        await failed.reach(count)
        assert failed[-1].subscription == name


async def test_a_handler_that_cancels_its_own_task_is_not_reported_as_a_timeout(
    backend: Backend, clock: VirtualClock
) -> None:
    """A request that the handler cancels itself would be reported as a timeout, or end the worker."""
    bus = await backend.start_bus(clock=clock)
    failed = reports_of(bus, AttemptFailed)
    seen: Recorder[int] = Recorder()

    async def handle(event: Moved) -> None:
        if not failed:
            request = asyncio.ensure_future(asyncio.sleep(3600))
            request.cancel()
            await request
        seen.add(event.n)

    bus.subscribe(Moved, handle, timeout=5.0, retry=RetryPolicy(base_delay=1.0, jitter=0.0))
    await bus.publish(Moved("rook", 1))
    await failed.reach(1)
    await clock.advance(1.0)
    await seen.reach(1)
    await bus.drain(60)
    assert [type(report.error) for report in failed] == [asyncio.CancelledError]
    assert seen == [1]
