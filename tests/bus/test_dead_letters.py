"""``bus.dead_letters``: failed deliveries can be listed, inspected and discarded."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from pabal import RetryPolicy
from pabal.errors import DeadLetterNotFoundError, UsageError
from pabal.ports.telemetry import AttemptFailed
from pabal.testing import VirtualClock
from tests.bus.failing_handler import FailingHandler, start_failing_bus
from tests.bus.samples import Moved, NoteTaken
from tests.bus.support import ONE_ATTEMPT, Backend, reports_of


async def test_a_dead_letter_records_the_event_and_every_attempt(
    backend: Backend, clock: VirtualClock
) -> None:
    """Without event, times, error and traceback, the cause of the failure cannot be found."""
    bus = await backend.start_bus(clock=clock)

    async def fail(event: Moved) -> None:
        raise LookupError("no such order")

    bus.subscribe(Moved, fail, name="book", retry=RetryPolicy(max_attempts=3, base_delay=10, jitter=0))
    event = Moved("rook", 7, metadata={"clerk": "kim"})
    failed = reports_of(bus, AttemptFailed)
    receipt = await bus.publish(event)
    await failed.reach(1)
    await clock.advance(31)
    await bus.drain(60)
    [letter] = await bus.dead_letters.list()
    assert (await bus.dead_letters.get(letter.id)).attempts == letter.attempts
    assert letter.event == event
    assert letter.event.metadata == {"clerk": "kim"}
    assert (letter.event_id, letter.event_type, letter.subscription) == (
        event.event_id,
        "piece.moved",
        "book",
    )
    assert letter.position == (receipt.position or 1)
    assert letter.payload == {"piece": "rook", "n": 7}
    assert letter.state == "parked"
    assert "3 of 3" in letter.reason
    where = f"piece.moved at position {letter.position}"
    assert repr(letter) == f"<DeadLetter {letter.id} of 'book': {where}, failed 3 of 3 attempts>"
    assert [attempt.attempt for attempt in letter.attempts] == [1, 2, 3]
    first = datetime.fromtimestamp(clock.time() - clock.monotonic(), UTC)
    assert [round((attempt.failed_at - first).total_seconds()) for attempt in letter.attempts] == [0, 10, 30]
    assert round((letter.parked_at - first).total_seconds()) == 30
    for attempt in letter.attempts:
        assert (attempt.error_type, attempt.message) == ("LookupError", "no such order")
        assert 'raise LookupError("no such order")' in attempt.traceback


async def test_dead_letters_can_be_filtered_and_paged(backend: Backend) -> None:
    """Promise 27. Ten thousand dead letters are only useful if they can be filtered."""
    bus, _ = await start_failing_bus(backend)
    other = FailingHandler()
    bus.subscribe(NoteTaken, other, name="other", retry=ONE_ATTEMPT)
    await bus.publish_batch([Moved("rook", 1), NoteTaken(2), Moved("rook", 3)])
    await bus.drain(60)
    letters = bus.dead_letters

    def shown(found: list[Any]) -> list[tuple[str, int]]:
        return sorted((letter.subscription, letter.event.n) for letter in found)

    assert len(await letters.list()) == 4
    assert shown(await letters.list(subscription="sub")) == [("sub", 1), ("sub", 2), ("sub", 3)]
    assert shown(await letters.list(event_type="note.taken")) == [("other", 2), ("sub", 2)]
    assert shown(await letters.list(error_type="LookupError")) == [("sub", 1), ("sub", 3)]
    assert shown(await letters.list(subscription="other", error_type="ValueError")) == [("other", 2)]
    assert await letters.list(subscription="nobody") == []
    first = await letters.list(limit=3)
    second = await letters.list(after=first[-1].id, limit=3)
    assert [letter.id for letter in (*first, *second)] == sorted({letter.id for letter in (*first, *second)})
    assert (len(first), len(second)) == (3, 1)


async def test_retry_and_discard_of_one_id_reject_payloads_and_filters(backend: Backend) -> None:
    """A payload passed to ``retry`` would be ignored, and the event delivered unchanged."""
    bus, _ = await start_failing_bus(backend)
    await bus.publish(Moved("rook", 1))
    await bus.drain(60)
    [letter] = await bus.dead_letters.list()
    mistake: dict[str, Any] = {"payload": {"piece": "rook", "number": 2}}
    with pytest.raises(UsageError, match=r"was given payload; .*edit_and_retry\(\)"):
        await bus.dead_letters.retry(letter.id, **mistake)
    with pytest.raises(UsageError, match=r"use filters with discard\('all'\)"):
        await bus.dead_letters.discard(letter.id, subscription="another")
    assert [each.id for each in await bus.dead_letters.list()] == [letter.id]


async def test_discard_removes_one_dead_letter_or_all_that_match(backend: Backend) -> None:
    """Promise 27. Dead letters that no longer matter would stay for ever, or others would go with them."""
    bus, handler = await start_failing_bus(backend)
    await bus.publish_batch([Moved("rook", 1), NoteTaken(2), NoteTaken(3)])
    await bus.drain(60)
    [moved] = await bus.dead_letters.list(event_type="piece.moved")
    assert await bus.dead_letters.discard(moved.id) == 1
    with pytest.raises(DeadLetterNotFoundError):
        await bus.dead_letters.discard(moved.id)
    assert await bus.dead_letters.discard("all", event_type="piece.moved") == 0
    assert await bus.dead_letters.discard("all", event_type="note.taken") == 2
    assert await bus.dead_letters.list() == []
    handler.accepts = True
    await bus.drain(60)
    assert handler.handled == []


async def test_get_failed_events_lists_and_clear_failed_events_discards_dead_letters(
    backend: Backend,
) -> None:
    """Programs written against the specification call ``get_failed_events`` and ``clear_failed_events``."""
    bus, _ = await start_failing_bus(backend)
    await bus.publish_batch([NoteTaken(n) for n in range(5)])
    await bus.drain(60)
    assert sorted(letter.event.n for letter in await bus.get_failed_events()) == [0, 1, 2, 3, 4]
    assert len(await bus.get_failed_events(limit=2)) == 2
    assert bus.get_statistics()["failed_events_count"] == 5
    assert bus.health().status == "degraded"
    assert await bus.clear_failed_events() == 5
    assert await bus.get_failed_events() == []
    assert bus.get_statistics()["failed_events_count"] == 0
    assert bus.health().status == "ok"
    assert await bus.clear_failed_events() == 0


async def test_every_dead_letter_call_raises_for_an_unknown_id(backend: Backend) -> None:
    """Acting on a dead letter that does not exist must not look like success."""
    bus, _ = await start_failing_bus(backend)
    for call in (
        bus.dead_letters.get(99),
        bus.dead_letters.retry(99),
        bus.dead_letters.discard(99),
        bus.dead_letters.edit_and_retry(99, {"piece": "a", "n": 1}),
    ):
        with pytest.raises(DeadLetterNotFoundError, match="no dead letter 99"):
            await call
