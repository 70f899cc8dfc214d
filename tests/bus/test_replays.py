"""``bus.subscriptions.replay``: a range of the log is delivered to one subscription again."""

from __future__ import annotations

import asyncio

import pytest

from pabal import NotRetryableError, RetryPolicy
from pabal.errors import InsideHandlerError, UsageError
from pabal.testing import VirtualClock
from tests.bus.samples import Moved, NoteTaken
from tests.bus.support import Backend, GatedHandler, Recorder, by_piece, numbers, publish_moves


async def test_a_replay_redelivers_a_range_in_order_to_one_subscription_only(stored: Backend) -> None:
    """Promise 32. Other subscriptions would handle everything twice, or keys would change their order."""
    bus = await stored.start_bus()
    replayed, other = GatedHandler(), GatedHandler()
    bus.subscribe(Moved, replayed, name="replayed")
    bus.subscribe(Moved, other, name="other")
    await publish_moves(bus, range(1, 1001), "ABCDEFG")
    await bus.drain(60)
    replayed.handled = Recorder()
    replay = await bus.subscriptions.replay("replayed", 101, 900)
    assert (replay.first, replay.last) == (101, 900)
    await publish_moves(bus, range(1001, 1011), "ABCDEFG")
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
    await publish_moves(bus, range(1, 101))
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
    await publish_moves(bus, range(1, 11))
    await bus.publish(NoteTaken(0))
    await bus.drain(60)
    handler.handled = Recorder()
    handler.poison = {4}
    await bus.subscriptions.replay("replayed")
    await publish_moves(bus, range(11, 15))
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
    await publish_moves(bus, range(1, 7))
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
    await publish_moves(bus, range(1, 41))
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
    await publish_moves(bus, range(41, 43))
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
    await publish_moves(bus, range(1, 4))
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
    await publish_moves(bus, range(1, 31))
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
    await publish_moves(bus, range(1, 4))
    await bus.drain(60)
    with pytest.raises(UsageError, match="reached position 3"):
        await bus.subscriptions.replay("replayed", 4, 9)


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
    await publish_moves(bus, range(1, 2))
    await bus.drain(60)
    await publish_moves(bus, range(2, 3))
    await bus.drain(60)
    await bus.subscriptions.replay("own")
    await bus.drain(60)
    assert list(answers) == ["1", "retry a dead letter of a subscription that is being replayed"]


async def test_a_replay_leaves_out_what_was_queued_behind_a_dead_letter(
    stored: Backend, clock: VirtualClock
) -> None:
    """An event would be handled twice, and one that waits for its next attempt would not wait."""
    bus = await stored.start_bus(clock=clock)
    attempts: Recorder[int] = Recorder()
    handled: Recorder[int] = Recorder()

    async def handle(event: Moved) -> None:
        attempts.add(event.n)
        if event.n == 1 and len(attempts) == 1:
            raise NotRetryableError("not yet")
        if event.n == 2 and list(attempts).count(2) == 1:
            raise ValueError("once")
        handled.add(event.n)

    retry = RetryPolicy(base_delay=60, max_delay=60, jitter=0)
    bus.subscribe(Moved, handle, name="sub", on_exhausted="park_key", retry=retry)
    await publish_moves(bus, range(1, 4), "A")
    await bus.drain(20)
    assert await bus.dead_letters.retry("all") == 1
    await bus.drain(20, retries=False)
    assert list(attempts) == [1, 1, 2]
    await bus.subscriptions.replay("sub", 2, 3)
    await bus.drain(20, retries=False)
    assert list(attempts) == [1, 1, 2]
    await clock.advance(60)
    await bus.drain(20)
    assert list(handled) == [1, 2, 3]
