"""Subscriptions that are paused, ended or lost while the engine waits for its storage."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest
from tests.bus.samples import Moved
from tests.bus.support import figures, numbers
from tests.delivery.desk import Clerk, Desk

from pabal import NotRetryableError
from pabal.delivery import replaying


@pytest.mark.parametrize("moment", ["read_positions", "list_dead_letters"])
async def test_a_pause_while_it_is_being_opened_holds_and_loses_nothing(desk: Desk, moment: str) -> None:
    """The opening would go on despite the pause: events would be handled while paused, or twice."""
    clerk = desk.clerk
    clerk.refused = {1: ConnectionError("not yet"), 2: NotRetryableError("never")}
    subscription = desk.employ()
    await desk.publish(1)
    await desk.publish(2, 3, piece="B")  # 3 queues behind 2
    await desk.rest()
    desk.bus.unsubscribe(subscription)
    clerk.refused.clear()

    paused = asyncio.Event()

    async def pause() -> None:
        await desk.pause()
        paused.set()

    desk.storage.then[moment] = pause
    desk.employ()
    await paused.wait()
    await desk.publish(4)
    await desk.clock.advance(100.0)
    assert figures(desk.bus, "clerk")["state"] == "paused"
    assert numbers(clerk.handled) == []
    await desk.resume()
    await desk.bus.drain(timeout=None)
    assert await desk.bus.dead_letters.retry("all") == 1
    await desk.rest()
    assert sorted(numbers(clerk.handled)) == [1, 2, 3, 4]
    assert figures(desk.bus, "clerk")["watermark"] == 4


@pytest.mark.parametrize("moment", ["read_page", "parked_positions"])
async def test_a_pause_in_the_middle_of_a_replay_holds_and_the_replay_goes_on_after_it(
    desk: Desk, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two replays of one range would run side by side after the resume, and deliver everything twice."""
    monkeypatch.setattr(replaying, "_PAGE", 2)
    desk.employ()
    await desk.publish(1, 2, 3, 4, 5)
    await desk.rest()
    paused = asyncio.Event()

    async def pause() -> None:
        await desk.pause()
        paused.set()

    desk.storage.then[moment] = pause
    await desk.bus.subscriptions.replay("clerk", 2, 4)
    await paused.wait()
    await desk.clock.settle()
    assert numbers(desk.clerk.handled) == [1, 2, 3, 4, 5]
    await desk.resume()
    await desk.clerk.handled.reach(8)
    await desk.rest()
    assert numbers(desk.clerk.handled) == [1, 2, 3, 4, 5, 2, 3, 4]


async def test_a_pause_while_a_replay_waits_for_room_ends_it_for_now(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The replay would wait for ever for deliveries that the pause removed, and nothing would restart it."""
    monkeypatch.setattr(replaying, "_PAGE", 1)
    monkeypatch.setattr(replaying, "_ROOM", 1)
    desk.employ()
    await desk.publish(1, 2, 3)
    await desk.rest()
    desk.clerk.gate.clear()
    await desk.bus.subscriptions.replay("clerk")
    await desk.clerk.entered.reach(4)
    await desk.pause()
    desk.clerk.gate.set()
    await desk.resume()
    await desk.rest()
    assert set(numbers(desk.clerk.handled)) == {1, 2, 3}
    assert numbers(desk.clerk.handled)[-2:] == [2, 3]
    [record] = await desk.bus.subscriptions.list()
    assert record.replays == ()


async def test_a_retry_that_comes_due_during_a_replay_counts_for_itself(desk: Desk) -> None:
    """Counted as part of the replayed range, the retry would stay unfinished in the log."""
    desk.clerk.refused = {1: ConnectionError("not yet")}
    desk.employ()
    await desk.publish(1)
    await desk.publish(2, 3, piece="B")
    await desk.rest()
    desk.clerk.refused.clear()
    desk.clerk.gate.clear()
    await desk.bus.subscriptions.replay("clerk", 2, 3)
    await desk.clerk.entered.reach(4)  # the first of the replay waits at the gate
    advancing = asyncio.ensure_future(desk.clock.advance(100.0))
    await desk.clerk.entered.reach(5)
    desk.clerk.gate.set()
    await advancing
    await desk.rest()
    assert sorted(numbers(desk.clerk.handled)) == [1, 2, 2, 3, 3]
    assert figures(desk.bus, "clerk")["watermark"] == 3


@pytest.mark.parametrize("moment", ["queued_positions", "read_positions"])
async def test_a_pause_while_a_queue_is_read_back_keeps_its_order(desk: Desk, moment: str) -> None:
    """Promise 25. The queue behind a dead letter would be lost, doubled, or overtaken by newer events."""
    desk.clerk.refused = {1: NotRetryableError("never")}
    desk.employ()
    await desk.publish(1, 2, 3)
    await desk.rest()
    desk.clerk.refused.clear()
    paused = asyncio.Event()

    async def pause() -> None:
        await desk.pause()
        paused.set()

    desk.storage.then[moment] = pause
    assert await desk.bus.dead_letters.retry("all") == 1
    await paused.wait()
    await desk.publish(4)
    await desk.clock.settle()
    assert numbers(desk.clerk.handled) == [1]
    await desk.resume()
    await desk.clerk.handled.reach(4)
    await desk.rest()
    assert numbers(desk.clerk.handled) == [1, 2, 3, 4]


async def test_a_dead_letter_whose_subscription_is_paused_in_that_moment_is_retried_after_it(
    desk: Desk,
) -> None:
    """Delivered at once, it would break the pause; forgotten, it would stay "retrying" for ever."""
    desk.clerk.refused = {1: NotRetryableError("never")}
    desk.employ()
    await desk.publish(1)
    await desk.rest()
    desk.clerk.refused.clear()
    desk.storage.then["begin_retry"] = desk.pause
    assert await desk.bus.dead_letters.retry("all") == 1
    await desk.clock.settle()
    assert numbers(desk.clerk.handled) == []
    await desk.resume()
    await desk.clerk.handled.reach(1)
    await desk.rest()
    assert numbers(desk.clerk.handled) == [1]
    assert await desk.bus.dead_letters.list() == []


async def test_a_pause_while_the_tail_of_a_lane_is_read_back_loses_nothing(
    desk: Desk, small_buffers: None
) -> None:
    """Promise 18. Events left on disk for lack of room would be handled twice, or never."""
    desk.employ()
    await desk.rest()
    desk.clerk.gate.clear()
    desk.clerk.gated = ("A",)
    for n in range(0, 100, 5):
        await desk.publish(*range(n, n + 4))
        await desk.publish(n + 4, piece="free")
        await desk.clerk.handled.reach(n // 5 + 1)
    assert desk.bus._engine.consumers["clerk"].spilled > 0
    paused = asyncio.Event()

    async def pause() -> None:
        await desk.pause()
        paused.set()

    desk.storage.then["read_positions"] = pause
    desk.clerk.gate.set()
    await paused.wait()
    await desk.resume()
    await desk.bus.drain(timeout=None)
    assert sorted(numbers(desk.clerk.handled)) == list(range(100))
    assert [e.n for e in desk.clerk.handled if e.piece == "A"] == [n for n in range(100) if n % 5 != 4]


async def test_a_subscription_that_ends_while_its_controls_are_read_is_left_alone(desk: Desk) -> None:
    """Requests would apply to the next subscription of the same name, or make reading them fail."""
    subscription = desk.employ()
    await desk.publish(1)
    await desk.rest()

    async def end() -> None:
        assert desk.bus.unsubscribe(subscription)

    desk.storage.then["read_controls"] = end
    await desk.pause()
    desk.employ()
    await desk.resume()
    await desk.publish(2)
    await desk.rest()
    assert numbers(desk.clerk.handled) == [1, 2]


async def test_a_subscription_that_ends_before_it_is_resumed_is_not_opened_again(desk: Desk) -> None:
    """Resumed after its last handler ended, it would be opened although it was unsubscribed."""
    desk.clerk.gate.clear()
    subscription = desk.employ()
    await desk.publish(1)
    await desk.clerk.entered.reach(1)
    await desk.pause()
    await desk.resume()  # which waits for the handler
    desk.bus.unsubscribe(subscription)
    desk.clerk.gate.set()
    await desk.clerk.handled.reach(1)
    await desk.clock.settle()
    [record] = await desk.bus.subscriptions.list()
    assert record.owner is None, "somebody else may have it"
    desk.employ()
    await desk.publish(2)
    await desk.rest()
    assert 2 in numbers(desk.clerk.handled)


async def test_one_that_is_lost_during_its_reset_comes_back_once_it_is_free(desk: Desk) -> None:
    """Both the reset and the retry on standby would open it, and it would handle everything twice."""
    desk.clerk.gate.clear()
    desk.employ()
    await desk.publish(1, 2)
    await desk.clerk.entered.reach(1)
    consumer = desk.bus._engine.consumers["clerk"]
    resetting = asyncio.ensure_future(desk.bus.subscriptions.reset("clerk", "beginning"))
    await desk.clock.settle()
    # As after an expired lease: another process has opened it and released it again.
    await desk.storage.release_subscription("clerk", consumer.epoch)
    taken = await desk.storage.open_subscription("clerk", "now")
    assert taken is not None
    desk.clerk.gate.set()
    await asyncio.gather(resetting, return_exceptions=True)
    assert figures(desk.bus, "clerk")["state"] == "standby"
    await desk.storage.release_subscription("clerk", taken.epoch)
    await desk.clock.advance(0.5)
    await desk.rest()
    assert figures(desk.bus, "clerk")["state"] == "active"
    assert desk.clerk.handled[-1].n == 2
    assert figures(desk.bus, "clerk")["watermark"] == 2


async def test_who_waits_for_a_save_is_told_when_the_bus_stops_without_it(desk: Desk) -> None:
    """A replay ends at the saved cursor; if the cursor was not saved, the replay would miss events."""
    desk.employ()
    await desk.publish(1)
    await desk.rest()
    refused = partial(_raise, OSError("a cable was pulled"))
    desk.storage.then["save_progress"] = refused
    await desk.publish(2)
    await desk.clerk.handled.reach(2)
    await desk.clock.settle()
    replaying_ = asyncio.ensure_future(desk.bus.subscriptions.replay("clerk"))
    await desk.clock.settle()
    desk.storage.then["save_progress"] = refused
    await desk.bus.stop()
    with pytest.raises(OSError, match="cable"):
        await replaying_


async def test_a_pause_whose_bus_stops_in_that_moment_holds_at_the_next_start(desk: Desk) -> None:
    """The pause is stored, so the caller must get no error, and no event may be handled after it."""
    desk.employ()
    await desk.publish(1)
    await desk.rest()
    desk.storage.then["pause_subscription"] = desk.bus.stop
    await desk.pause()
    await desk.bus.start()
    await desk.publish(2)
    await desk.rest()
    assert numbers(desk.clerk.handled) == [1]
    await desk.resume()
    await desk.rest()
    assert numbers(desk.clerk.handled) == [1, 2]


@pytest.mark.parametrize("moment", ["save_progress", "release_subscription"])
async def test_a_stop_that_was_cancelled_can_be_asked_for_again(desk: Desk, moment: str) -> None:
    """Promise 8. After ``wait_for(bus.stop(), 5)`` on a slow disk, a bus could neither run nor stop."""
    desk.employ()
    await desk.publish(1)
    await desk.rest()
    reached = asyncio.Event()

    async def hang() -> None:
        reached.set()
        await asyncio.Event().wait()

    desk.storage.then[moment] = hang
    await desk.publish(2)
    await desk.clerk.handled.reach(2)
    stopping = asyncio.ensure_future(desk.bus.stop())
    await reached.wait()
    await desk.clock.settle()  # until it waits for a save that has begun before it
    assert not stopping.done()
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopping
    await desk.bus.stop()
    assert not desk.bus.is_running
    await desk.bus.start()
    await desk.publish(3)
    await desk.rest()
    assert sorted(set(numbers(desk.clerk.handled))) == [1, 2, 3]
    assert figures(desk.bus, "clerk")["watermark"] == 3


async def _raise(error: Exception) -> None:
    raise error


async def test_one_that_ends_while_it_is_taken_up_anew_is_given_up_once(desk: Desk) -> None:
    """It was opened again although it was unsubscribed: ``stop()`` raised AssertionError, and a call that
    retried one of its dead letters waited for ever.
    """
    subscription = desk.employ()
    await desk.publish(1)
    await desk.rest()
    await desk.pause()
    ended = asyncio.Event()

    async def end() -> None:
        assert desk.bus.unsubscribe(subscription)
        ended.set()

    desk.storage.then["open_subscription"] = end
    await desk.resume()
    await ended.wait()
    await desk.rest()
    assert [record.owner for record in await desk.bus.subscriptions.list()] == [None]
    desk.employ()
    await desk.publish(2)
    await desk.rest()
    assert numbers(desk.clerk.handled) == [1, 2]
    await desk.bus.stop()


async def test_what_queues_on_disk_behind_a_parked_key_holds_no_higher_number_up(
    desk: Desk, small_buffers: None
) -> None:
    """Promise 16. The event is queued unattempted; the higher number would wait until its retry."""
    follower = Clerk()
    desk.clerk.gate.clear()
    desk.clerk.refused = {1: NotRetryableError("never")}
    desk.employ(priority=1)
    desk.bus.subscribe(Moved, follower, name="follower", priority=2)
    await desk.publish(*range(1, 26))
    await desk.publish(*range(26, 51), piece="B")
    await desk.clock.settle()
    await desk.publish(*range(51, 61))
    await desk.clock.settle()
    desk.clerk.gate.set()
    await desk.rest()
    assert sorted(numbers(follower.handled)) == list(range(1, 61))


async def test_a_reset_that_comes_once_dead_letters_are_counted_has_them_counted_again(desk: Desk) -> None:
    """Health would count dead letters that no longer exist, until the next start."""
    desk.clerk.refused = {1: NotRetryableError("never")}
    desk.employ()
    await desk.publish(1, 2)
    await desk.rest()
    desk.clerk.refused.clear()
    moved = asyncio.Event()

    async def reset() -> None:
        assert await desk.storage.request_reset("clerk", "beginning") is None
        moved.set()

    desk.storage.then["list_subscriptions"] = reset
    await desk.storage.request_reopening("clerk")
    await moved.wait()
    await desk.rest()
    assert numbers(desk.clerk.handled) == [1, 2]
    assert await desk.bus.dead_letters.list() == []
    assert desk.bus.health().status == "ok"
