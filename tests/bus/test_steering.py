"""Subscriptions are controlled while they run: paused, resumed, moved, and replayed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from pabal import BaseEventBus, InMemoryEventBus, NotRetryableError, RetryPolicy
from pabal.errors import InsideHandlerError, SubscriptionInUseError, UsageError
from pabal.ports.storage import Start
from pabal.ports.telemetry import SubscriptionHalted, SubscriptionPaused, SubscriptionResumed
from tests.bus.samples import Moved, NoteTaken
from tests.bus.support import Backend, Recorder, by_piece, numbers, reports_of, spin_loop, statistics_of


class GatedHandler:
    """Record handled events, and wait or fail where told to."""

    def __init__(self) -> None:
        self.handled: Recorder[Any] = Recorder()
        self.gate = asyncio.Event()
        self.gate.set()
        self.entered: Recorder[int] = Recorder()
        self.poison: set[int] = set()

    async def handle(self, event: Any) -> None:
        self.entered.add(event.n)
        await self.gate.wait()
        if event.n in self.poison:
            raise NotRetryableError(f"no {event.n}")
        self.handled.add(event)


async def publish(bus: BaseEventBus, numbers_: range, pieces: str = "AB") -> None:
    await bus.publish_batch([Moved(pieces[n % len(pieces)], n) for n in numbers_])


# -- pausing ------------------------------------------------------------------------------------------------


async def test_a_paused_subscription_handles_no_events_until_it_is_resumed(stored: Backend) -> None:
    """While an operator repairs a subscription's target, nothing may be written to it."""
    bus = await stored.start_bus()
    paused, other = GatedHandler(), GatedHandler()
    bus.subscribe(Moved, paused, name="paused")
    bus.subscribe(Moved, other, name="other")
    reports = reports_of(bus, SubscriptionPaused)
    resumed = reports_of(bus, SubscriptionResumed)
    await publish(bus, range(10))
    await bus.drain(60)
    assert await bus.subscriptions.pause("paused")
    assert not await bus.subscriptions.pause("paused")
    await publish(bus, range(10, 20))
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
    await publish(bus, range(6))
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
    await publish(bus, range(5))
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
    """An attempt that fails just as the pause begins would be forgotten, or made twice at once."""
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
    """Events would have nowhere to wait; an error must say so."""
    bus = await memory.start_bus()
    bus.subscribe(Moved, GatedHandler(), name="here")
    with pytest.raises(UsageError, match="without a log"):
        await bus.subscriptions.pause("here")
    assert not await bus.subscriptions.resume("here")


# -- moving -------------------------------------------------------------------------------------------------


async def test_a_reset_to_the_beginning_redelivers_everything_to_that_subscription_only(
    stored: Backend,
) -> None:
    """Promise 32. A read model is rebuilt from the beginning without any effect on the others."""
    bus = await stored.start_bus()
    rebuilt, other = GatedHandler(), GatedHandler()
    rebuilt.poison = {3}
    bus.subscribe(Moved, rebuilt, name="rebuilt", on_exhausted="park_key")
    bus.subscribe(Moved, other, name="other")
    await publish(bus, range(10))
    await bus.drain(60)
    assert len(await bus.dead_letters.list()) == 1
    rebuilt.poison.clear()
    rebuilt.handled = Recorder()
    assert await bus.subscriptions.reset("rebuilt", "beginning") == 0
    await publish(bus, range(10, 14))
    await bus.drain(60)
    assert by_piece(rebuilt.handled) == {"A": list(range(0, 14, 2)), "B": list(range(1, 14, 2))}
    assert sorted(numbers(other.handled)) == list(range(14))
    assert await bus.dead_letters.list() == []
    assert bus.health().status == "ok"


async def test_a_reset_to_now_skips_earlier_events(stored: Backend) -> None:
    """A backlog that was given up must not be delivered after all."""
    bus = await stored.start_bus()
    handler = GatedHandler()
    bus.subscribe(Moved, handler, name="late")
    await bus.subscriptions.pause("late")
    await publish(bus, range(10))
    assert await bus.subscriptions.reset("late", "now") == 10
    await bus.subscriptions.resume("late")
    await publish(bus, range(10, 12))
    await bus.drain(60)
    assert sorted(numbers(handler.handled)) == [10, 11]


async def test_a_reset_inside_a_handler_of_its_subscription_raises(stored: Backend) -> None:
    """A handler that resets its own subscription would wait for itself for ever."""
    bus = await stored.start_bus()
    refused: Recorder[Exception] = Recorder()

    async def handle(event: Moved) -> None:
        try:
            await bus.subscriptions.reset("own", "beginning")
        except InsideHandlerError as error:
            refused.add(error)

    bus.subscribe(Moved, handle, name="own")
    await bus.publish(Moved("A", 1))
    await bus.drain(60)
    assert len(refused) == 1


async def test_a_subscription_held_by_another_bus_cannot_be_reset(stored: Backend) -> None:
    """The other bus would go on saving its own progress over the new position."""
    bus = await stored.start_bus()
    other = InMemoryEventBus(bus.storage)
    bus.subscribe(Moved, GatedHandler(), name="held")
    other.subscribe(Moved, GatedHandler(), name="held")
    await bus.drain(60)
    await other.start()
    with pytest.raises(SubscriptionInUseError, match="held"):
        await other.subscriptions.reset("held", "beginning")
    await other.stop()


async def test_a_pause_requested_in_the_storage_pauses_a_running_subscription(stored: Backend) -> None:
    """A dashboard has a bus, or a storage, of its own."""
    bus = await stored.start_bus()
    handler = GatedHandler()
    bus.subscribe(Moved, handler, name="held")
    await bus.drain(60)
    paused = reports_of(bus, SubscriptionPaused)
    assert bus.storage is not None
    await bus.storage.pause_subscription("held")
    await paused.reach(1)
    await publish(bus, range(3))
    await bus.drain(60)
    assert len(handler.handled) == 0


# -- replaying ----------------------------------------------------------------------------------------------


async def test_a_replay_redelivers_a_range_in_order_to_one_subscription_only(stored: Backend) -> None:
    """Promise 32. Other subscriptions would handle everything twice, or keys would change their order."""
    bus = await stored.start_bus()
    replayed, other = GatedHandler(), GatedHandler()
    bus.subscribe(Moved, replayed, name="replayed")
    bus.subscribe(Moved, other, name="other")
    await publish(bus, range(1, 1001), "ABCDEFG")
    await bus.drain(60)
    replayed.handled = Recorder()
    replay = await bus.subscriptions.replay("replayed", 101, 900)
    assert (replay.first, replay.last) == (101, 900)
    await publish(bus, range(1001, 1011), "ABCDEFG")
    await bus.drain(20)
    assert sorted(numbers(replayed.handled)) == [*range(101, 901), *range(1001, 1011)]
    assert all(found == sorted(found) for found in by_piece(replayed.handled).values())
    assert sorted(numbers(other.handled)) == list(range(1, 1011))
    [record] = [one for one in await bus.subscriptions.list() if one.name == "replayed"]
    assert record.replays == ()
    assert (record.watermark, record.unfinished) == (1010, 0)


async def test_a_replay_continues_after_a_restart(stored: Backend) -> None:
    """A replay of several hours would be lost with the process."""
    bus = await stored.start_bus(worker_count=2)
    handler = GatedHandler()
    bus.subscribe(Moved, handler, name="replayed")
    await publish(bus, range(1, 101))
    await bus.drain(60)
    handler.handled, handler.entered = Recorder(), Recorder()
    handler.gate.clear()
    await bus.subscriptions.replay("replayed")
    await handler.entered.reach(2)
    handler.gate.set()
    await handler.handled.reach(10)
    handler.gate.clear()
    stopping = asyncio.ensure_future(stored.reopen(bus))
    handler.gate.set()
    bus = await stopping
    bus.subscribe(Moved, handler, name="replayed")
    await bus.start()
    await bus.drain(60)
    assert set(numbers(handler.handled)) == set(range(1, 101))
    assert len(handler.handled) <= 100 + 2


async def test_an_event_that_fails_in_a_replay_is_parked_and_can_be_retried(stored: Backend) -> None:
    """A failure in a replay would be lost, or stop it for ever."""
    bus = await stored.start_bus()
    handler = GatedHandler()
    bus.subscribe(Moved, handler, name="replayed", on_exhausted="park_key")
    bus.subscribe(NoteTaken, GatedHandler(), name="unconcerned")
    await publish(bus, range(1, 11))
    await bus.publish(NoteTaken(0))
    await bus.drain(60)
    handler.handled = Recorder()
    handler.poison = {4}
    await bus.subscriptions.replay("replayed")
    await publish(bus, range(11, 15))
    await bus.drain(60)
    assert by_piece(handler.handled) == {"A": [2], "B": [1, 3, 5, 7, 9, 11, 13]}
    [letter] = await bus.dead_letters.list()
    assert (letter.event.n, letter.queued) == (4, 5)
    handler.poison.clear()
    assert await bus.dead_letters.retry(letter.id)
    await bus.drain(60)
    assert by_piece(handler.handled)["A"] == [2, 4, 6, 8, 10, 12, 14]


async def test_a_replay_leaves_out_dead_letters(stored: Backend) -> None:
    """An event would be handled by its own retry and by the replay at the same time."""
    bus = await stored.start_bus()
    handler = GatedHandler()
    handler.poison = {3}
    bus.subscribe(Moved, handler, name="replayed")
    await publish(bus, range(1, 7))
    await bus.drain(60)
    handler.handled, handler.entered = Recorder(), Recorder()
    await bus.subscriptions.replay("replayed", 2, 5)
    await bus.drain(60)
    assert sorted(numbers(handler.handled)) == [2, 4, 5]
    assert 3 not in list(handler.entered)
    assert len(await bus.dead_letters.list()) == 1


async def test_a_paused_replay_continues_when_resumed_and_a_cancelled_one_does_not(stored: Backend) -> None:
    """A replay that was started by mistake must be possible to stop."""
    bus = await stored.start_bus(worker_count=1)
    handler = GatedHandler()
    bus.subscribe(Moved, handler, name="replayed")
    await publish(bus, range(1, 41))
    await bus.drain(60)
    handler.handled, handler.entered = Recorder(), Recorder()
    handler.gate.clear()
    await bus.subscriptions.replay("replayed", 1, 20)
    await handler.entered.reach(1)
    await bus.subscriptions.pause("replayed")
    handler.gate.set()
    await bus.subscriptions.resume("replayed")
    await bus.drain(60)
    assert sorted(set(numbers(handler.handled))) == list(range(1, 21))
    handler.handled, handler.entered = Recorder(), Recorder()
    handler.gate.clear()
    await bus.subscriptions.replay("replayed", 21, 40)
    await handler.entered.reach(1)
    assert await bus.subscriptions.cancel_replays("replayed") == 1
    handler.gate.set()
    await publish(bus, range(41, 43))
    await bus.drain(60)
    assert len(handler.handled) < 20
    assert set(numbers(handler.handled)) >= {41, 42}


async def test_a_retry_left_over_from_a_cancelled_replay_is_dropped(stored: Backend) -> None:
    """It would hold back retention for ever, because nothing delivers it any more."""
    bus = await stored.start_bus(worker_count=1)
    failing = True
    tried: Recorder[int] = Recorder()

    async def handle(event: Moved) -> None:
        tried.add(event.n)
        if failing and event.n == 2 and len(tried) > 3:
            raise ValueError("later")

    bus.subscribe(Moved, handle, name="replayed", retry=RetryPolicy(max_attempts=3, base_delay=3600.0))
    await publish(bus, range(1, 4))
    await bus.drain(60)
    await bus.subscriptions.replay("replayed")
    await tried.reach(6)
    assert await bus.subscriptions.cancel_replays("replayed") == 1
    await bus.drain(60)
    [record] = await bus.subscriptions.list()
    assert (record.retries, record.unfinished, record.replays) == (0, 0, ())


async def test_consecutive_replays_reach_a_batch_handler_completely_and_in_order(stored: Backend) -> None:
    """Each range must be delivered whole and in order, whatever the batch size."""
    bus = await stored.start_bus()
    batches: Recorder[list[int]] = Recorder()

    async def handle(events: list[Moved]) -> None:
        batches.add(numbers(events))

    bus.subscribe(Moved, handle, name="replayed", batch=7)
    await publish(bus, range(1, 31))
    await bus.drain(60)
    before = len(batches)
    await bus.subscriptions.replay("replayed", 1, 10)
    await bus.subscriptions.replay("replayed", 5, 30)
    await bus.drain(60)
    again = [n for batch in list(batches)[before:] for n in batch]
    assert set(again) == set(range(1, 31))
    assert again[-26:] == list(range(5, 31))


async def test_replay_rejects_a_range_beyond_the_handled_events(stored: Backend) -> None:
    """These events are delivered anyway, and must not be promised twice."""
    bus = await stored.start_bus()
    bus.subscribe(Moved, GatedHandler(), name="replayed")
    await publish(bus, range(1, 4))
    await bus.drain(60)
    with pytest.raises(UsageError, match="reached position 3"):
        await bus.subscriptions.replay("replayed", 4, 9)


async def test_a_handler_may_pause_its_own_subscription_while_it_is_being_reopened(stored: Backend) -> None:
    """Reopening waits for the subscription's handlers: one that waited for the reopening hung for ever."""
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
    await publish(bus, range(1, 2))
    await bus.drain(60)
    await publish(bus, range(2, 3))
    await bus.drain(60)
    assert statistics_of(bus, "own")["state"] == "paused"
    await bus.subscriptions.resume("own")
    await bus.drain(60)
    assert entered == [1, 2, 1]


async def test_retrying_its_own_dead_letters_inside_a_replay_handler_raises(stored: Backend) -> None:
    """The retry waits for the end of the replay, and the replay for the handler: neither would ever end."""
    bus = await stored.start_bus()
    answers: Recorder[str] = Recorder()

    async def handle(event: Moved) -> None:
        if event.n == 1:
            raise NotRetryableError("no 1")
        try:
            answers.add(str(await bus.dead_letters.retry("all")))
        except InsideHandlerError as error:
            answers.add(error.action)

    bus.subscribe(Moved, handle, name="own", ordering=None)
    await publish(bus, range(1, 2))
    await bus.drain(60)
    await publish(bus, range(2, 3))
    await bus.drain(60)
    await bus.subscriptions.replay("own")
    await bus.drain(60)
    assert list(answers) == ["1", "retry a dead letter of a subscription that is being replayed"]


async def test_a_handler_may_resume_its_own_halted_subscription(backend: Backend) -> None:
    """Resuming waits for the subscription's handlers: one that waited for the resuming hung for ever."""
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
    await publish(bus, range(1, 3))
    await bus.drain(60)
    assert statistics_of(bus, "own")["state"] == "active"
    await publish(bus, range(3, 4))
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
    await publish(bus, range(1, 3))
    await bus.drain(60)
    assert {statistics_of(bus, name)["state"] for name in ("one", "other")} == {"active"}


async def test_a_cancelled_resume_still_resumes_the_subscription(
    stored: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half opened, it took no more events, and no drain() ended: a time limit on the call was enough."""
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
    await publish(bus, range(1, 3))
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
    """The time limit of one handler's call would lose requests made at the same time."""
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
    await publish(bus, range(1, 2))
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
