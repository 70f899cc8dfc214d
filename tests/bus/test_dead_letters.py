"""``bus.dead_letters``: deliveries that were given up can be inspected, retried, edited and discarded."""

from __future__ import annotations

import asyncio
import sys
from datetime import UTC, datetime
from typing import Any

import pytest

from pabal import BaseEventBus, RetryPolicy
from pabal.delivery.dead_letters import MemoryDeadLetters
from pabal.errors import (
    DeadLetterNotFoundError,
    DecodeError,
    SubscriptionError,
    UnserializableEventError,
    UsageError,
)
from pabal.ports.records import GroupsByError
from pabal.ports.storage import DeadLetterGroup, DeadLetterRecord, ParkedDelivery
from pabal.ports.telemetry import AttemptFailed
from pabal.testing import VirtualClock
from tests.bus.samples import Moved, NoteTaken
from tests.bus.support import ONE_ATTEMPT, Backend, Recorder, count_calls, numbers, reports_of, spin_loop
from tests.loop_iterations import count_loop_iterations


class Clinic:
    """A handler that refuses everything until told to accept."""

    def __init__(self) -> None:
        self.accepts = False
        self.handled: Recorder[Any] = Recorder()
        self.calls = 0
        self.gate: asyncio.Event | None = None

    async def handle(self, event: Any) -> None:
        self.calls += 1
        if self.gate is not None:
            await self.gate.wait()
        if not self.accepts:
            raise LookupError("no such order") if isinstance(event, Moved) else ValueError("unreadable")
        self.handled.add(event)


async def sick_bus(backend: Backend, **options: Any) -> tuple[BaseEventBus, Clinic]:
    bus = await backend.start_bus(**options)
    clinic = Clinic()
    bus.subscribe((Moved, NoteTaken), clinic, name="clinic", retry=RetryPolicy(max_attempts=2, base_delay=0))
    return bus, clinic


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
    assert [attempt.attempt for attempt in letter.attempts] == [1, 2, 3]
    first = datetime.fromtimestamp(clock.time() - clock.monotonic(), UTC)
    assert [round((attempt.failed_at - first).total_seconds()) for attempt in letter.attempts] == [0, 10, 30]
    assert round((letter.parked_at - first).total_seconds()) == 30
    for attempt in letter.attempts:
        assert (attempt.error_type, attempt.message) == ("LookupError", "no such order")
        assert 'raise LookupError("no such order")' in attempt.traceback


async def test_dead_letters_can_be_filtered_and_paged(backend: Backend) -> None:
    """Promise 27. Ten thousand dead letters are only useful if they can be filtered."""
    bus, _ = await sick_bus(backend)
    other = Clinic()
    bus.subscribe(NoteTaken, other, name="other", retry=ONE_ATTEMPT)
    await bus.publish_batch([Moved("rook", 1), NoteTaken(2), Moved("rook", 3)])
    await bus.drain(60)
    letters = bus.dead_letters

    def shown(found: list[Any]) -> list[tuple[str, int]]:
        return sorted((letter.subscription, letter.event.n) for letter in found)

    assert len(await letters.list()) == 4
    assert shown(await letters.list(subscription="clinic")) == [("clinic", 1), ("clinic", 2), ("clinic", 3)]
    assert shown(await letters.list(event_type="note.taken")) == [("clinic", 2), ("other", 2)]
    assert shown(await letters.list(error_type="LookupError")) == [("clinic", 1), ("clinic", 3)]
    assert shown(await letters.list(subscription="other", error_type="ValueError")) == [("other", 2)]
    assert await letters.list(subscription="nobody") == []
    first = await letters.list(limit=3)
    second = await letters.list(after=first[-1].id, limit=3)
    assert [letter.id for letter in (*first, *second)] == sorted({letter.id for letter in (*first, *second)})
    assert (len(first), len(second)) == (3, 1)


async def test_retry_delivers_a_dead_letter_again_and_removes_it_on_success(backend: Backend) -> None:
    """Once the cause is fixed, a dead letter becomes an ordinary delivery, and is gone after a success."""
    bus, clinic = await sick_bus(backend)
    await bus.publish(Moved("rook", 1))
    await bus.drain(60)
    [letter] = await bus.dead_letters.list()
    clinic.accepts = True
    assert await bus.dead_letters.retry(letter.id) == 1
    await bus.drain(60)
    assert clinic.handled == [Moved("rook", 1)]
    assert await bus.dead_letters.list() == []
    with pytest.raises(DeadLetterNotFoundError):
        await bus.dead_letters.get(letter.id)
    assert bus.health().status == "ok"


async def test_retry_and_discard_of_one_id_reject_payloads_and_filters(backend: Backend) -> None:
    """A payload passed to ``retry`` was ignored, and the event delivered unchanged."""
    bus, _ = await sick_bus(backend)
    await bus.publish(Moved("rook", 1))
    await bus.drain(60)
    [letter] = await bus.dead_letters.list()
    slip: dict[str, Any] = {"payload": {"piece": "rook", "number": 2}}
    with pytest.raises(UsageError, match=r"was given payload; .*edit_and_retry\(\)"):
        await bus.dead_letters.retry(letter.id, **slip)
    with pytest.raises(UsageError, match=r"use filters with discard\('all'\)"):
        await bus.dead_letters.discard(letter.id, subscription="another")
    assert [each.id for each in await bus.dead_letters.list()] == [letter.id]


async def test_a_failed_retry_is_parked_again_with_its_id_and_whole_history(
    backend: Backend,
) -> None:
    """A new id for each failure would lose the history, and break references to the old id."""
    bus, clinic = await sick_bus(backend)
    await bus.publish(Moved("rook", 1))
    await bus.drain(60)
    [letter] = await bus.dead_letters.list()
    await bus.dead_letters.retry(letter.id)
    await bus.drain(60)
    [again] = await bus.dead_letters.list()
    assert again.id == letter.id
    assert again.state == "parked"
    assert (clinic.calls, len(again.attempts)) == (4, 4)
    assert bus.get_statistics()["failed_events_count"] == 1


async def test_a_second_retry_does_nothing_while_the_first_is_running(backend: Backend) -> None:
    """Promise 27. If two operators press the button, the event must not be handled twice."""
    bus, clinic = await sick_bus(backend)
    await bus.publish(Moved("rook", 1))
    await bus.drain(60)
    [letter] = await bus.dead_letters.list()
    clinic.accepts, clinic.gate = True, asyncio.Event()
    begun = [await bus.dead_letters.retry(letter.id) for _ in range(3)]
    assert begun == [1, 0, 0]
    assert not await bus.dead_letters.edit_and_retry(letter.id, {"piece": "rook", "n": 2})
    assert await bus.dead_letters.retry("all") == 0
    assert (await bus.dead_letters.get(letter.id)).state == "retrying"
    clinic.gate.set()
    await bus.drain(60)
    assert numbers(clinic.handled) == [1]


async def test_concurrent_retries_of_one_dead_letter_start_one_delivery(backend: Backend) -> None:
    """The same with concurrent calls."""
    bus, clinic = await sick_bus(backend)
    await bus.publish(Moved("rook", 1))
    await bus.drain(60)
    [letter] = await bus.dead_letters.list()
    clinic.accepts, clinic.gate = True, asyncio.Event()
    begun = await asyncio.gather(*(bus.dead_letters.retry(letter.id) for _ in range(10)))
    assert sum(begun) == 1
    clinic.gate.set()
    await bus.drain(60)
    assert numbers(clinic.handled) == [1]


async def test_retry_all_retries_only_the_matching_dead_letters(backend: Backend) -> None:
    """Promise 27. After a fix for one kind of failure, only those dead letters should be retried."""
    bus, clinic = await sick_bus(backend)
    await bus.publish_batch([Moved("rook", 1), NoteTaken(2), Moved("rook", 3)])
    await bus.drain(60)
    clinic.accepts = True
    assert await bus.dead_letters.retry("all", error_type="LookupError") == 2
    await bus.drain(60)
    assert sorted(numbers(clinic.handled)) == [1, 3]
    assert await bus.dead_letters.retry("all") == 1
    await bus.drain(60)
    assert sorted(numbers(clinic.handled)) == [1, 2, 3]
    assert await bus.dead_letters.retry("all") == 0


async def test_retry_all_covers_more_than_one_page(backend: Backend) -> None:
    """``"all"`` must cover all, even if they do not fit on one page."""
    bus, clinic = await sick_bus(backend)
    await bus.publish_batch([NoteTaken(n) for n in range(1200)])
    await bus.drain(30)
    clinic.accepts = True
    assert await bus.dead_letters.retry("all") == 1200
    await bus.drain(30)
    assert sorted(numbers(clinic.handled)) == list(range(1200))


async def test_edit_and_retry_delivers_the_new_payload_with_the_original_ids(backend: Backend) -> None:
    """Promise 27. Correcting the data is often the only solution; the event keeps its identity."""
    bus, clinic = await sick_bus(backend)
    event = Moved("rook", 1, correlation_id="c-1")
    await bus.publish(event)
    await bus.drain(60)
    [letter] = await bus.dead_letters.list()
    clinic.accepts = True
    assert await bus.dead_letters.edit_and_retry(letter.id, {"piece": "knight", "n": 5})
    await bus.drain(60)
    [handled] = clinic.handled
    assert handled == Moved("knight", 5)
    assert (handled.event_id, handled.correlation_id) == (event.event_id, "c-1")
    assert handled.occurred_at == event.occurred_at
    assert await bus.dead_letters.list() == []


async def test_an_edit_that_does_not_match_the_event_class_changes_nothing(backend: Backend) -> None:
    """A typing error in the edited payload must not lose the dead letter."""
    bus, clinic = await sick_bus(backend)
    await bus.publish(Moved("rook", 1))
    await bus.drain(60)
    [letter] = await bus.dead_letters.list()
    with pytest.raises(DecodeError, match=r"n"):
        await bus.dead_letters.edit_and_retry(letter.id, {"piece": "rook", "n": "one"})
    with pytest.raises(DecodeError):
        await bus.dead_letters.edit_and_retry(letter.id, {"n": 1})
    with pytest.raises(UnserializableEventError):
        await bus.dead_letters.edit_and_retry(letter.id, {"piece": object(), "n": 1})
    await bus.drain(60)
    [same] = await bus.dead_letters.list()
    assert (same.state, same.payload, clinic.calls) == ("parked", {"piece": "rook", "n": 1}, 2)
    assert await bus.dead_letters.retry(letter.id) == 1
    await bus.drain(60)


async def test_an_edited_payload_is_kept_when_its_retry_fails(backend: Backend) -> None:
    """The dead letter must show the payload that was really tried."""
    bus, _ = await sick_bus(backend)
    await bus.publish(Moved("rook", 1))
    await bus.drain(60)
    [letter] = await bus.dead_letters.list()
    await bus.dead_letters.edit_and_retry(letter.id, {"piece": "rook", "n": 2})
    await bus.drain(60)
    [again] = await bus.dead_letters.list()
    assert (again.id, again.state, again.event.n) == (letter.id, "parked", 2)


async def test_discard_removes_one_dead_letter_or_all_that_match(backend: Backend) -> None:
    """Promise 27. Dead letters that no longer matter can be removed, and no others are."""
    bus, clinic = await sick_bus(backend)
    await bus.publish_batch([Moved("rook", 1), NoteTaken(2), NoteTaken(3)])
    await bus.drain(60)
    [moved] = await bus.dead_letters.list(event_type="piece.moved")
    assert await bus.dead_letters.discard(moved.id) == 1
    with pytest.raises(DeadLetterNotFoundError):
        await bus.dead_letters.discard(moved.id)
    assert await bus.dead_letters.discard("all", event_type="piece.moved") == 0
    assert await bus.dead_letters.discard("all", event_type="note.taken") == 2
    assert await bus.dead_letters.list() == []
    clinic.accepts = True
    await bus.drain(60)
    assert clinic.handled == []


async def test_the_cost_of_a_page_of_dead_letters_does_not_depend_on_its_place() -> None:
    """Retrying a hundred thousand would scan all of them for every page of five hundred."""
    letters = MemoryDeadLetters()
    for position in range(1, 2001):
        letters.park("clinic", ParkedDelivery(position, "", (), 0.0, None, Moved("rook", position), None))
        if position % 2:
            letters.remove("clinic", position)
    costs: list[int] = []
    after = 0
    for _ in range(100):
        with count_calls() as counted:
            page = await letters.list_dead_letters(after=after, limit=10)
        assert [letter.id for letter in page] == list(range(after + 2, after + 21, 2))
        after = page[-1].id
        costs.append(counted.calls)
    assert await letters.list_dead_letters(after=after, limit=10) == []
    assert len(set(costs)) == 1
    assert costs[0] < 40


@pytest.mark.parametrize("action", ["retry", "discard"])
async def test_retrying_or_discarding_all_in_memory_yields_to_the_event_loop(
    memory: Backend, action: str
) -> None:
    """With a hundred thousand dead letters, every request in the application would wait for seconds."""
    bus, clinic = await sick_bus(memory)
    await bus.publish_batch([NoteTaken(n) for n in range(1200)])
    await bus.drain(60)
    clinic.accepts = True
    async with count_loop_iterations() as iterations:
        assert await getattr(bus.dead_letters, action)("all") == 1200
        assert iterations.count >= 12 + 3
    await bus.drain(60)
    assert await bus.dead_letters.list() == []


@pytest.mark.parametrize("action", ["retry", "discard"])
async def test_retrying_or_discarding_all_holds_at_most_100_dead_letters_at_once(
    backend: Backend, action: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hundred thousand with their tracebacks would be read into memory before the first is dealt with."""
    bus, clinic = await sick_bus(backend)
    await bus.publish_batch([NoteTaken(n) for n in range(350)])
    await bus.drain(60)
    clinic.accepts = True
    store = bus.dead_letters._store
    call = "begin_retry" if action == "retry" else "discard_dead_letter"
    count, page, act = store.group_dead_letters, store.list_dead_letters, getattr(store, call)
    held: list[int] = [0]

    async def counted() -> Any:
        groups = await count()
        held[:] = [0]  # some read them for that, and keep none
        return groups

    async def listed(**options: Any) -> Any:
        found = await page(**options)
        held.append(held[-1] + len(found))
        return found

    async def acted(*arguments: Any) -> Any:
        held.append(held[-1] - 1)
        return await act(*arguments)

    monkeypatch.setattr(store, "group_dead_letters", counted)
    monkeypatch.setattr(store, "list_dead_letters", listed)
    monkeypatch.setattr(store, call, acted)
    assert await getattr(bus.dead_letters, action)("all") == 350
    assert max(held) <= 100
    await bus.drain(60)
    assert await bus.dead_letters.list() == []


async def test_discard_all_leaves_dead_letters_that_are_parked_meanwhile(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What fails meanwhile would be discarded unseen, and a retry of all need never end."""
    bus, _ = await sick_bus(backend)
    await bus.publish_batch([NoteTaken(n) for n in range(150)])
    await bus.drain(60)
    store = bus.dead_letters._store
    discard = store.discard_dead_letter
    begun = asyncio.Event()

    async def discarded(dead_letter_id: int) -> Any:
        if not begun.is_set():
            begun.set()
            await bus.publish(NoteTaken(1000))
            await bus.drain(60)
        return await discard(dead_letter_id)

    monkeypatch.setattr(store, "discard_dead_letter", discarded)
    assert await bus.dead_letters.discard("all") == 150
    assert [letter.event.n for letter in await bus.dead_letters.list()] == [1000]


def test_counting_dead_letters_keeps_no_reference_to_them() -> None:
    """A page of the dashboard would hold all there are on a server, with their tracebacks."""
    letters = [
        DeadLetterRecord(
            n, "s", n, None, NoteTaken(n), "", (), datetime.fromtimestamp(n, UTC), "parked", None, 0
        )
        for n in (3, 1, 2)
    ]
    counted = GroupsByError()
    before = [sys.getrefcount(letter) for letter in letters]
    counted.add(letters[:2])
    counted.add(letters[2:])
    assert [sys.getrefcount(letter) for letter in letters] == before
    first, last = datetime.fromtimestamp(1, UTC), datetime.fromtimestamp(3, UTC)
    assert counted.groups() == [DeadLetterGroup("s", None, 3, first, last, 3)]


async def test_counting_dead_letters_in_memory_yields_to_the_event_loop() -> None:
    """Each look of an operator at a hundred thousand would hold up every handler."""
    letters = MemoryDeadLetters()
    for position in range(1, 5001):
        letters.park("clinic", ParkedDelivery(position, "", (), 0.0, None, NoteTaken(position), None))
    async with count_loop_iterations() as iterations:
        [group] = await letters.group_dead_letters()
        assert iterations.count >= 4
    assert (group.count, group.newest_id) == (5000, 5000)


async def test_get_failed_events_lists_and_clear_failed_events_discards_dead_letters(
    backend: Backend,
) -> None:
    """The specification names ``get_failed_events`` and ``clear_failed_events``."""
    bus, _ = await sick_bus(backend)
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
    bus, _ = await sick_bus(backend)
    for call in (
        bus.dead_letters.get(99),
        bus.dead_letters.retry(99),
        bus.dead_letters.discard(99),
        bus.dead_letters.edit_and_retry(99, {"piece": "a", "n": 1}),
    ):
        with pytest.raises(DeadLetterNotFoundError, match="no dead letter 99"):
            await call


async def test_retry_raises_when_the_subscription_has_no_handler_here(backend: Backend) -> None:
    """There is no handler to deliver to; the dead letter must stay."""
    bus = await backend.start_bus()
    clinic = Clinic()
    subscription = bus.subscribe(NoteTaken, clinic, name="clinic", retry=ONE_ATTEMPT)
    await bus.publish(NoteTaken(1))
    await bus.drain(60)
    bus.unsubscribe(subscription)
    [letter] = await bus.dead_letters.list()
    with pytest.raises(SubscriptionError, match=r"'clinic'.*subscribe under that name"):
        await bus.dead_letters.retry(letter.id)
    assert (await bus.dead_letters.get(letter.id)).state == "parked"


async def test_a_retried_dead_letter_waits_for_the_running_event_of_its_key(backend: Backend) -> None:
    """A retried dead letter must not run beside another event of its key."""
    bus = await backend.start_bus(worker_count=4)
    order: Recorder[str] = Recorder()
    release = asyncio.Event()
    poison = True

    async def handle(event: Moved) -> None:
        if event.n == 1 and poison:
            raise ValueError("poison")
        order.add(f"{event.n} begins")
        if event.n == 2:
            await release.wait()
        order.add(f"{event.n} ends")

    bus.subscribe(Moved, handle, retry=ONE_ATTEMPT)
    await bus.publish(Moved("rook", 1))
    await bus.drain(60)
    poison = False
    await bus.publish(Moved("rook", 2))
    await order.reach(1)
    [letter] = await bus.dead_letters.list()
    await bus.dead_letters.retry(letter.id)
    await spin_loop()
    assert order == ["2 begins"]
    release.set()
    await bus.drain(60)
    assert order == ["2 begins", "2 ends", "1 begins", "1 ends"]
