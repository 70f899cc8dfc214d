"""Schedules: events that enter the log once, at the time they are due."""

from __future__ import annotations

from pabal.domain.event import adopt
from pabal.errors import DuplicateEventError, InvalidEventError, StorageClosedError, UsageError
from pabal.testing.conformance.case import StorageFactory, case, check, expect_equal, expect_error, opened
from pabal.testing.conformance.events import Deposited, Ticked, everything

T = 1_700_000_000.0


@case()
async def nothing_is_due_when_nothing_is_scheduled(factory: StorageFactory) -> None:
    """Return None, and append nothing."""
    async with opened(factory) as storage:
        expect_equal(await storage.release_due(T), None, "when the next event is due")
        expect_equal(await storage.head(), 0, "the head")


@case()
async def events_enter_the_log_when_they_are_due(factory: StorageFactory) -> None:
    """Append due events in order of time, and return when the next one is due."""
    async with opened(factory) as storage:
        for number, due in ((3, T + 3.5), (1, T + 1), (2, T + 2)):
            await storage.schedule_event(Ticked(number), due)
        expect_equal(await storage.head(), 0, "the head before anything is due")
        expect_equal(await storage.release_due(T + 0.999), T + 1, "when the next event is due, at first")
        expect_equal(await storage.head(), 0, "the head just before the first is due")
        expect_equal(await storage.release_due(T + 2), T + 3.5, "when the next event is due, after two")
        expect_equal(await everything(storage), [Ticked(1), Ticked(2)], "the log after two were due")
        expect_equal(await storage.release_due(T + 2), T + 3.5, "when the next event is due, asked again")
        expect_equal(await storage.release_due(T + 100), None, "when the next event is due, after all")
        expect_equal(
            await everything(storage), [Ticked(1), Ticked(2), Ticked(3)], "the log after all were due"
        )


@case("versioned")
async def a_due_event_is_appended_unchanged(factory: StorageFactory) -> None:
    """Keep id, time, correlation and metadata; give it a version in its stream, and call listeners."""
    event = Deposited("a", 2, metadata={"desk": "x"}, correlation_id="c-1", causation_id="c-0")
    heard: list[object] = []
    async with opened(factory) as storage:
        await storage.store_event(Deposited("a", 1))
        await storage.schedule_event(event, T)
        storage.add_listener(lambda batch: heard.extend(batch.events))
        await storage.release_due(T)
        found = await storage.get_event(event.event_id)
        expect_equal(found.to_dict(), event.to_dict(), "the event that was appended")
        envelopes = [envelope async for envelope in storage.read()]
        expect_equal([one.stream_version for one in envelopes], [1, 2], "versions of the stream")
        expect_equal(heard, [event], "the events a listener received")


@case()
async def a_repeated_event_is_scheduled_once(factory: StorageFactory) -> None:
    """Change nothing for an event that is already scheduled or stored."""
    event, stored = Ticked(1), Ticked(2)
    async with opened(factory) as storage:
        await storage.store_event(stored)
        await storage.schedule_event(stored, T)
        for due in (T + 1, T + 2):
            await storage.schedule_event(event, due)
        expect_equal(await storage.release_due(T), T + 1, "when the next event is due")
        expect_equal(await storage.release_due(T + 1), None, "when the next event is due, after all")
        expect_equal(await everything(storage), [stored, event], "the log")


@case()
async def an_id_with_different_content_is_rejected(factory: StorageFactory) -> None:
    """Raise DuplicateEventError if another event with the id is scheduled or stored."""
    scheduled, stored = Ticked(1), Ticked(2)
    async with opened(factory) as storage:
        await storage.store_event(stored)
        await storage.schedule_event(scheduled, T)
        for event in (scheduled, stored):
            for other in (Ticked(9, event_id=event.event_id), Deposited("a", 1, event_id=event.event_id)):
                call = storage.schedule_event(other, T)
                error = await expect_error(DuplicateEventError, call, f"{other!r} under the id of {event!r}")
                expect_equal(error.event_id, event.event_id, "the event_id in the error")
        await storage.release_due(T)
        expect_equal(await everything(storage), [stored, scheduled], "the log")


@case()
async def a_scheduled_event_already_stored_is_not_appended_again(factory: StorageFactory) -> None:
    """Append nothing for it when it is due, and continue with the other events that are due."""
    event, other, third = Ticked(1), Ticked(2), Ticked(3)
    async with opened(factory) as storage:
        for number, scheduled in enumerate((event, other, third)):
            await storage.schedule_event(scheduled, T + number)
        position = await storage.store_event(event)
        await storage.store_event(Ticked(9, event_id=other.event_id))
        expect_equal(await storage.release_due(T + 9), None, "when the next event is due, after all")
        found = [one.number for one in await everything(storage)]
        expect_equal(found, [1, 9, 3], "numbers of the events in the log")
        expect_equal(position, 1, "the position of the event that was stored first")


@case()
async def invalid_events_cannot_be_scheduled(factory: StorageFactory) -> None:
    """Reject an invalid event when it is scheduled, not when it is due; reject a time that never comes."""
    async with opened(factory) as storage:
        for bad in (Ticked(1, float("inf")), Deposited("x" * 3_000_000, 1)):
            await expect_error(
                InvalidEventError, storage.schedule_event(adopt(bad), T), "scheduling an invalid event"
            )
        for never in (float("nan"), float("inf"), 10**400):
            await expect_error(
                UsageError,
                storage.schedule_event(Ticked(2), never),
                "scheduling at a time that is not finite",
            )
        expect_equal(await storage.release_due(T + 9), None, "when the next event is due")


@case()
async def all_events_due_at_once_are_appended(factory: StorageFactory) -> None:
    """Append every event that is due, however many there are, in one call or several."""
    async with opened(factory) as storage:
        for number in range(60):
            await storage.schedule_event(Ticked(number), T + number // 20)
        while await storage.release_due(T + 9) is not None:
            check(await storage.head() < 60, "no event may be due once all have been appended")
        found = [event.number // 20 for event in await everything(storage)]
        expect_equal(found, sorted(found), "events in the order of their time")
        expect_equal(len(found), 60, "events in the log")


@case()
async def nothing_is_scheduled_in_a_closed_log(factory: StorageFactory) -> None:
    """Raise StorageClosedError, as an append does."""
    async with opened(factory) as storage:
        await storage.aclose()
        call = storage.schedule_event(Ticked(1), T)
        await expect_error(StorageClosedError, call, "scheduling after the log was closed")


@case("persistent")
async def schedules_survive_closing(factory: StorageFactory) -> None:
    """After opening again, append the events that were scheduled before."""
    async with opened(factory) as storage:
        await storage.schedule_event(Deposited("a", 1), T)
        await storage.schedule_event(Deposited("a", 2), T + 1)
    async with opened(factory) as storage:
        expect_equal(await storage.release_due(T), T + 1, "when the next event is due, after opening again")
        expect_equal(await everything(storage), [Deposited("a", 1)], "the log after opening again")
