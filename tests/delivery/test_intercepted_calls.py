"""Subscriptions that are paused, ended or lost while the engine waits for its storage."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest
from tests.bus.samples import Moved
from tests.bus.support import numbers, statistics_of
from tests.delivery.harness import GatedHandler, Harness

from pabal import NotRetryableError
from pabal.delivery import replaying


@pytest.mark.parametrize("moment", ["read_positions", "list_dead_letters"])
async def test_a_pause_during_opening_takes_effect_and_loses_nothing(harness: Harness, moment: str) -> None:
    """The opening would continue despite the pause: events would be handled while paused, or twice."""
    handler = harness.handler
    handler.failures = {1: ConnectionError("not yet"), 2: NotRetryableError("never")}
    subscription = harness.subscribe()
    await harness.publish(1)
    await harness.publish(2, 3, piece="B")  # 3 queues behind 2
    await harness.drain()
    harness.bus.unsubscribe(subscription)
    handler.failures.clear()

    paused = asyncio.Event()

    async def pause() -> None:
        await harness.pause()
        paused.set()

    harness.storage.after_call[moment] = pause
    harness.subscribe()
    await paused.wait()
    await harness.publish(4)
    await harness.clock.advance(100.0)
    assert statistics_of(harness.bus, "sub")["state"] == "paused"
    assert numbers(handler.handled) == []
    await harness.resume()
    await harness.bus.drain(timeout=None)
    assert await harness.bus.dead_letters.retry("all") == 1
    await harness.drain()
    assert sorted(numbers(handler.handled)) == [1, 2, 3, 4]
    assert statistics_of(harness.bus, "sub")["watermark"] == 4


@pytest.mark.parametrize("moment", ["read_page", "parked_positions"])
async def test_a_pause_during_a_replay_takes_effect_and_the_replay_continues_afterwards(
    harness: Harness, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two replays of one range would run concurrently after the resume, and deliver everything twice."""
    monkeypatch.setattr(replaying, "_PAGE", 2)
    harness.subscribe()
    await harness.publish(1, 2, 3, 4, 5)
    await harness.drain()
    paused = asyncio.Event()

    async def pause() -> None:
        await harness.pause()
        paused.set()

    harness.storage.after_call[moment] = pause
    await harness.bus.subscriptions.replay("sub", 2, 4)
    await paused.wait()
    await harness.clock.settle()
    assert numbers(harness.handler.handled) == [1, 2, 3, 4, 5]
    await harness.resume()
    await harness.handler.handled.reach(8)
    await harness.drain()
    assert numbers(harness.handler.handled) == [1, 2, 3, 4, 5, 2, 3, 4]


async def test_a_pause_interrupts_a_replay_that_waits_for_room(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The replay would wait for ever for deliveries that the pause removed, and nothing would restart it."""
    monkeypatch.setattr(replaying, "_PAGE", 1)
    monkeypatch.setattr(replaying, "_ROOM", 1)
    harness.subscribe()
    await harness.publish(1, 2, 3)
    await harness.drain()
    harness.handler.gate.clear()
    await harness.bus.subscriptions.replay("sub")
    await harness.handler.entered.reach(4)
    await harness.pause()
    harness.handler.gate.set()
    await harness.resume()
    await harness.drain()
    assert set(numbers(harness.handler.handled)) == {1, 2, 3}
    assert numbers(harness.handler.handled)[-2:] == [2, 3]
    [record] = await harness.bus.subscriptions.list()
    assert record.replays == ()


async def test_a_retry_due_during_a_replay_is_counted_separately(harness: Harness) -> None:
    """Counted as part of the replayed range, the retry would stay unfinished in the log."""
    harness.handler.failures = {1: ConnectionError("not yet")}
    harness.subscribe()
    await harness.publish(1)
    await harness.publish(2, 3, piece="B")
    await harness.drain()
    harness.handler.failures.clear()
    harness.handler.gate.clear()
    await harness.bus.subscriptions.replay("sub", 2, 3)
    await harness.handler.entered.reach(4)  # the first of the replay waits at the gate
    advancing = asyncio.ensure_future(harness.clock.advance(100.0))
    await harness.handler.entered.reach(5)
    harness.handler.gate.set()
    await advancing
    await harness.drain()
    assert sorted(numbers(harness.handler.handled)) == [1, 2, 2, 3, 3]
    assert statistics_of(harness.bus, "sub")["watermark"] == 3


@pytest.mark.parametrize("moment", ["queued_positions", "read_positions"])
async def test_a_pause_while_a_queue_is_read_back_keeps_its_order(harness: Harness, moment: str) -> None:
    """Promise 25. The queue behind a dead letter would be lost, duplicated, or overtaken by newer events."""
    harness.handler.failures = {1: NotRetryableError("never")}
    harness.subscribe()
    await harness.publish(1, 2, 3)
    await harness.drain()
    harness.handler.failures.clear()
    paused = asyncio.Event()

    async def pause() -> None:
        await harness.pause()
        paused.set()

    harness.storage.after_call[moment] = pause
    assert await harness.bus.dead_letters.retry("all") == 1
    await paused.wait()
    await harness.publish(4)
    await harness.clock.settle()
    assert numbers(harness.handler.handled) == [1]
    await harness.resume()
    await harness.handler.handled.reach(4)
    await harness.drain()
    assert numbers(harness.handler.handled) == [1, 2, 3, 4]


@pytest.mark.parametrize("parks", [True, False])
@pytest.mark.parametrize("ends_in_between", [True, False])
async def test_a_queue_that_is_released_twice_is_delivered_once(
    harness: Harness, ends_in_between: bool, parks: bool
) -> None:
    """Promise 25. Events would be handled twice or overtake a parked one, or the queue be read again and
    again for as long as a handler runs.
    """
    handler = harness.handler
    handler.failures = {1: NotRetryableError("never")}
    harness.subscribe()
    await harness.publish(1, 2, 3)
    await harness.drain()
    handler.gate.clear()
    if parks:
        handler.failures = {2: NotRetryableError("never")}

    async def end_deliveries() -> None:
        handler.gate.set()
        await harness.clock.settle()

    assert await harness.bus.dead_letters.discard("all") == 1
    await handler.entered.reach(2)
    if ends_in_between:
        harness.storage.after_call["queued_positions"] = end_deliveries
    engine = harness.bus._engine
    [key] = engine.consumers["sub"].blocked
    engine.redelivery.release_key(engine.consumers["sub"], key)  # as when a server has lost its dead letters
    await harness.clock.settle()
    handler.gate.set()
    await harness.publish(4)
    await harness.drain()
    assert numbers(handler.handled) == ([] if parks else [2, 3, 4])
    handler.failures.clear()
    await harness.bus.dead_letters.retry("all")
    await harness.drain()
    assert numbers(handler.handled) == [2, 3, 4]


async def test_a_late_discard_does_not_release_what_waits_behind_another_dead_letter(
    harness: Harness,
) -> None:
    """Promise 25. Events would overtake the parked event of their key."""
    handler = harness.handler
    handler.failures = {1: NotRetryableError("never"), 2: NotRetryableError("never")}
    subscription = harness.subscribe()
    await harness.publish(1, 2, 3)
    await harness.drain()
    handler.gate.clear()

    async def open_again() -> None:
        """Let an opening release the queue before the discard does, and its first event be parked."""
        harness.bus.unsubscribe(subscription)
        harness.subscribe()
        await handler.entered.reach(2)
        handler.gate.set()
        await harness.clock.settle()

    harness.storage.after_call["discard_dead_letter"] = open_again
    assert await harness.bus.dead_letters.discard("all") == 1
    await harness.drain()
    assert numbers(handler.handled) == []
    handler.failures.clear()
    assert await harness.bus.dead_letters.retry("all") == 1
    await harness.drain()
    assert numbers(handler.handled) == [2, 3]


async def test_a_retried_dead_letter_that_succeeds_during_a_pause_is_not_delivered_again(
    harness: Harness,
) -> None:
    """The retry noted for its failed attempt, not saved yet, would be saved after all."""
    handler = harness.handler
    handler.failures = {1: NotRetryableError("never")}
    harness.subscribe(on_exhausted="park")
    await harness.publish(1)
    await harness.drain()
    saving, saved = asyncio.Event(), asyncio.Event()

    async def save_late() -> None:
        saving.set()
        await saved.wait()

    harness.storage.after_call["save_progress"] = save_late
    await harness.publish(2)
    await saving.wait()  # what follows waits for the next save
    handler.failures = {1: ConnectionError("not yet")}
    assert await harness.bus.dead_letters.retry("all") == 1
    await harness.clock.settle()
    handler.failures.clear()
    handler.gate.clear()
    await harness.clock.advance(100.0)
    assert list(handler.entered) == [1, 2, 1, 1]
    await harness.pause()
    handler.gate.set()
    await harness.clock.settle()
    saved.set()
    await harness.resume()
    await harness.drain()
    assert numbers(handler.handled) == [2, 1]
    assert await harness.bus.dead_letters.list() == []


async def test_a_dead_letter_retried_at_the_moment_of_a_pause_is_delivered_after_it(
    harness: Harness,
) -> None:
    """Delivered at once, it would break the pause; forgotten, it would stay "retrying" for ever."""
    harness.handler.failures = {1: NotRetryableError("never")}
    harness.subscribe()
    await harness.publish(1)
    await harness.drain()
    harness.handler.failures.clear()
    harness.storage.after_call["begin_retry"] = harness.pause
    assert await harness.bus.dead_letters.retry("all") == 1
    await harness.clock.settle()
    assert numbers(harness.handler.handled) == []
    await harness.resume()
    await harness.handler.handled.reach(1)
    await harness.drain()
    assert numbers(harness.handler.handled) == [1]
    assert await harness.bus.dead_letters.list() == []


async def test_a_pause_while_spilled_events_are_read_back_loses_nothing(
    harness: Harness, small_buffers: None
) -> None:
    """Promise 18. Events left on disk for lack of room would be handled twice, or never."""
    harness.subscribe()
    await harness.drain()
    harness.handler.gate.clear()
    harness.handler.gated = ("A",)
    for n in range(0, 100, 5):
        await harness.publish(*range(n, n + 4))
        await harness.publish(n + 4, piece="free")
        await harness.handler.handled.reach(n // 5 + 1)
    assert harness.bus._engine.consumers["sub"].spilled > 0
    paused = asyncio.Event()

    async def pause() -> None:
        await harness.pause()
        paused.set()

    harness.storage.after_call["read_positions"] = pause
    harness.handler.gate.set()
    await paused.wait()
    await harness.resume()
    await harness.bus.drain(timeout=None)
    assert sorted(numbers(harness.handler.handled)) == list(range(100))
    assert [e.n for e in harness.handler.handled if e.piece == "A"] == [n for n in range(100) if n % 5 != 4]


async def test_controls_read_for_an_unsubscribed_subscription_are_not_applied(harness: Harness) -> None:
    """Requests would apply to the next subscription of the same name, or make reading them fail."""
    subscription = harness.subscribe()
    await harness.publish(1)
    await harness.drain()

    async def end() -> None:
        assert harness.bus.unsubscribe(subscription)

    harness.storage.after_call["read_controls"] = end
    await harness.pause()
    harness.subscribe()
    await harness.resume()
    await harness.publish(2)
    await harness.drain()
    assert numbers(harness.handler.handled) == [1, 2]


async def test_a_subscription_unsubscribed_before_its_resume_is_not_opened_again(harness: Harness) -> None:
    """Resumed after its last handler ended, it would be opened although it was unsubscribed."""
    harness.handler.gate.clear()
    subscription = harness.subscribe()
    await harness.publish(1)
    await harness.handler.entered.reach(1)
    await harness.pause()
    await harness.resume()  # which waits for the handler
    harness.bus.unsubscribe(subscription)
    harness.handler.gate.set()
    await harness.handler.handled.reach(1)
    await harness.clock.settle()
    [record] = await harness.bus.subscriptions.list()
    assert record.owner is None, "another process may open it"
    harness.subscribe()
    await harness.publish(2)
    await harness.drain()
    assert 2 in numbers(harness.handler.handled)


async def test_a_subscription_lost_during_its_reset_returns_once_it_is_free(harness: Harness) -> None:
    """Both the reset and the retry on standby would open it, and it would handle everything twice."""
    harness.handler.gate.clear()
    harness.subscribe()
    await harness.publish(1, 2)
    await harness.handler.entered.reach(1)
    consumer = harness.bus._engine.consumers["sub"]
    resetting = asyncio.ensure_future(harness.bus.subscriptions.reset("sub", "beginning"))
    await harness.clock.settle()
    # As after an expired lease: another process has opened it and released it again.
    await harness.storage.release_subscription("sub", consumer.epoch)
    elsewhere = await harness.storage.open_subscription("sub", "now")
    assert elsewhere is not None
    harness.handler.gate.set()
    await asyncio.gather(resetting, return_exceptions=True)
    assert statistics_of(harness.bus, "sub")["state"] == "standby"
    await harness.storage.release_subscription("sub", elsewhere.epoch)
    await harness.clock.advance(0.5)
    await harness.drain()
    assert statistics_of(harness.bus, "sub")["state"] == "active"
    assert harness.handler.handled[-1].n == 2
    assert statistics_of(harness.bus, "sub")["watermark"] == 2


async def test_a_caller_waiting_for_a_save_gets_its_error_when_the_bus_stops(harness: Harness) -> None:
    """A replay ends at the saved cursor; if the cursor was not saved, the replay would miss events."""
    harness.subscribe()
    await harness.publish(1)
    await harness.drain()
    fail = partial(_raise, OSError("a cable was pulled"))
    harness.storage.after_call["save_progress"] = fail
    await harness.publish(2)
    await harness.handler.handled.reach(2)
    await harness.clock.settle()
    replay = asyncio.ensure_future(harness.bus.subscriptions.replay("sub"))
    await harness.clock.settle()
    harness.storage.after_call["save_progress"] = fail
    await harness.bus.stop()
    with pytest.raises(OSError, match="cable"):
        await replay


async def test_a_pause_at_the_moment_of_a_stop_holds_after_the_next_start(harness: Harness) -> None:
    """The pause is stored, so the caller must get no error, and no event may be handled after it."""
    harness.subscribe()
    await harness.publish(1)
    await harness.drain()
    harness.storage.after_call["pause_subscription"] = harness.bus.stop
    await harness.pause()
    await harness.bus.start()
    await harness.publish(2)
    await harness.drain()
    assert numbers(harness.handler.handled) == [1]
    await harness.resume()
    await harness.drain()
    assert numbers(harness.handler.handled) == [1, 2]


@pytest.mark.parametrize("moment", ["save_progress", "release_subscription"])
async def test_a_cancelled_stop_can_be_repeated(harness: Harness, moment: str) -> None:
    """Promise 8. After ``wait_for(bus.stop(), 5)`` on a slow disk, a bus could neither run nor stop."""
    harness.subscribe()
    await harness.publish(1)
    await harness.drain()
    reached = asyncio.Event()

    async def hang() -> None:
        reached.set()
        await asyncio.Event().wait()

    harness.storage.after_call[moment] = hang
    await harness.publish(2)
    await harness.handler.handled.reach(2)
    stopping = asyncio.ensure_future(harness.bus.stop())
    await reached.wait()
    await harness.clock.settle()  # until it waits for a save that has begun before it
    assert not stopping.done()
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopping
    await harness.bus.stop()
    assert not harness.bus.is_running
    await harness.bus.start()
    await harness.publish(3)
    await harness.drain()
    assert sorted(set(numbers(harness.handler.handled))) == [1, 2, 3]
    assert statistics_of(harness.bus, "sub")["watermark"] == 3


async def _raise(error: Exception) -> None:
    raise error


async def test_a_subscription_unsubscribed_while_it_is_reopened_is_released_once(harness: Harness) -> None:
    """It would be opened again although it was unsubscribed: ``stop()`` would raise AssertionError, and
    a call that retries one of its dead letters would wait for ever.
    """
    subscription = harness.subscribe()
    await harness.publish(1)
    await harness.drain()
    await harness.pause()
    ended = asyncio.Event()

    async def end() -> None:
        assert harness.bus.unsubscribe(subscription)
        ended.set()

    harness.storage.after_call["open_subscription"] = end
    await harness.resume()
    await ended.wait()
    await harness.drain()
    assert [record.owner for record in await harness.bus.subscriptions.list()] == [None]
    harness.subscribe()
    await harness.publish(2)
    await harness.drain()
    assert numbers(harness.handler.handled) == [1, 2]
    await harness.bus.stop()


async def test_events_queued_on_disk_behind_a_parked_key_do_not_block_a_higher_number(
    harness: Harness, small_buffers: None
) -> None:
    """Promise 16. The event is queued unattempted; the higher number would wait until its retry."""
    follower = GatedHandler()
    harness.handler.gate.clear()
    harness.handler.failures = {1: NotRetryableError("never")}
    harness.subscribe(priority=1)
    harness.bus.subscribe(Moved, follower, name="follower", priority=2)
    await harness.publish(*range(1, 26))
    await harness.publish(*range(26, 51), piece="B")
    await harness.clock.settle()
    await harness.publish(*range(51, 61))
    await harness.clock.settle()
    harness.handler.gate.set()
    await harness.drain()
    assert sorted(numbers(follower.handled)) == list(range(1, 61))


async def test_a_reset_during_counting_has_the_dead_letters_counted_again(
    harness: Harness,
) -> None:
    """Health would count dead letters that no longer exist, until the next start."""
    harness.handler.failures = {1: NotRetryableError("never")}
    harness.subscribe()
    await harness.publish(1, 2)
    await harness.drain()
    harness.handler.failures.clear()
    moved = asyncio.Event()

    async def reset() -> None:
        assert await harness.storage.request_reset("sub", "beginning") is None
        moved.set()

    harness.storage.after_call["list_subscriptions"] = reset
    await harness.storage.request_reopening("sub")
    await moved.wait()
    await harness.drain()
    assert numbers(harness.handler.handled) == [1, 2]
    assert await harness.bus.dead_letters.list() == []
    assert harness.bus.health().status == "ok"


async def test_a_stop_while_requests_are_being_read_is_not_logged_as_a_failure(
    harness: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    """Operators would look for a bug behind the traceback of an ordinary stop."""
    handler, reading, answered = harness.handler, asyncio.Event(), asyncio.Event()
    handler.gate.clear()
    harness.subscribe()
    await harness.publish(1)
    await handler.entered.reach(1)

    async def wait() -> None:
        reading.set()
        await answered.wait()

    harness.storage.after_call["read_controls"] = wait
    pausing = asyncio.create_task(harness.pause())  # the notice and the call itself both read the requests
    await reading.wait()
    stopping = asyncio.create_task(harness.bus.stop())
    await harness.clock.settle()
    handler.gate.set()  # the end of the handler wakes whoever waits for the answer
    await harness.clock.settle()
    answered.set()
    await asyncio.gather(pausing, stopping)
    assert "a background task of the bus failed" not in caplog.text


async def test_a_reset_holds_if_its_subscription_ends_before_the_storage_answers(harness: Harness) -> None:
    """The last save would put the cursor back, and what was a dead letter would be lost."""
    handler = harness.handler
    handler.failures = {1: NotRetryableError("never")}
    subscription = harness.subscribe()
    await harness.publish(1, 2)
    await harness.drain()
    handler.failures.clear()

    async def end() -> None:
        harness.bus.unsubscribe(subscription)
        await harness.clock.settle()

    harness.storage.after_call["reset_subscription"] = end
    assert await harness.bus.subscriptions.reset("sub", "beginning") == 0
    harness.subscribe()
    await harness.drain()
    assert numbers(handler.handled) == [1, 2]


@pytest.mark.parametrize("call", ["reset_subscription", "read_controls"])
async def test_a_call_that_outlasts_its_run_does_not_touch_the_next_run(harness: Harness, call: str) -> None:
    """The next run has opened the subscription; opened twice, it would stand by for itself for ever."""
    asked, answered, opened = asyncio.Event(), asyncio.Event(), asyncio.Event()
    subscriptions = harness.bus.subscriptions
    harness.subscribe()
    await harness.pause()

    async def wait() -> None:
        asked.set()
        await answered.wait()

    async def note() -> None:
        opened.set()

    harness.storage.after_call[call] = wait
    resets = call == "reset_subscription"
    calling = asyncio.create_task(
        subscriptions.reset("sub", "now") if resets else subscriptions.resume("sub")
    )
    await asked.wait()
    await harness.bus.stop()
    await harness.bus.start()
    if not resets:
        await harness.pause()
    harness.storage.after_call["open_subscription"] = note
    answered.set()
    await calling
    await harness.clock.settle()
    assert not opened.is_set()
