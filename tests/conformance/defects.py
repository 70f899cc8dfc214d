"""Storages with one defect each, and the conformance case that finds it."""

import asyncio
import unicodedata
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

import msgspec

from pabal import InMemoryEventStorage
from pabal.domain.envelope import StoredRecord
from pabal.domain.event import DomainEvent
from pabal.ports.storage import (
    Committed,
    Cursor,
    DeadLetterRecord,
    LogFilter,
    Page,
    Progress,
    Start,
    StreamAppend,
    SubscriptionRecord,
)


class StoresTwice(InMemoryEventStorage):
    """Does not recognise an event that is already stored."""

    async def store_event(self, event: Any) -> int:
        self._by_id.clear()
        return await super().store_event(event)


class StoresPartialBatches(InMemoryEventStorage):
    """Stores the good events of a batch before it finds the bad one."""

    async def store_events(self, events: Iterable[Any]) -> list[int]:
        return [await self.store_event(event) for event in events]


class EndsPagesEarly(InMemoryEventStorage):
    """Ends a filtered page at its last row, so that readers never reach the end."""

    async def read_page(self, after: int, *, limit: int, types: Iterable[str] | None = None) -> Page:
        page = await super().read_page(after, limit=limit, types=types)
        return Page(page.rows, page.rows[-1].position if page.rows else after)


class NotifiesLate(InMemoryEventStorage):
    """Calls listeners some time after the append has returned."""

    def add_listener(self, listener: Callable[[Committed], None]) -> Callable[[], None]:
        def later(batch: Committed) -> None:
            asyncio.get_running_loop().call_later(60, listener, batch)

        return super().add_listener(later)


class IgnoresVersions(InMemoryEventStorage):
    """Appends to a stream whatever its version."""

    async def append(
        self, aggregate_type: str, aggregate_id: str, events: Iterable[Any], *, expected_version: int | None
    ) -> list[int]:
        return await super().append(aggregate_type, aggregate_id, events, expected_version=None)


class AppendsOneByOne(InMemoryEventStorage):
    """Appends to the streams before the one at another version."""

    def append_streams(self, changes: Sequence[StreamAppend]) -> asyncio.Future[list[int]]:
        done: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()
        positions: list[int] = []
        for change in changes:
            one = super().append_streams([change])
            if (error := one.exception()) is not None:
                done.set_exception(error)
                return done
            positions += one.result()
        done.set_result(positions)
        return done


class IncludesTheVersion(InMemoryEventStorage):
    """Includes the event at the version itself."""

    async def read_history(
        self, aggregate_type: str, aggregate_id: str, after_version: int = 0
    ) -> list[StoredRecord]:
        return await super().read_history(aggregate_type, aggregate_id, max(0, after_version - 1))


class NormalizesIds(InMemoryEventStorage):
    """Treats two spellings of a letter as the same."""

    async def save_snapshot(
        self, aggregate_type: str, aggregate_id: str, version: int, data: bytes | None
    ) -> None:
        composed = unicodedata.normalize("NFC", aggregate_id)
        await super().save_snapshot(aggregate_type, composed, version, data)


class KeepsHighestVersion(InMemoryEventStorage):
    """Keeps a snapshot of a higher version although another was saved later."""

    async def save_snapshot(
        self, aggregate_type: str, aggregate_id: str, version: int, data: bytes | None
    ) -> None:
        newest = self.__dict__.setdefault("newest", {})
        if version >= newest.get((aggregate_type, aggregate_id), 0):
            newest[aggregate_type, aggregate_id] = version
            await super().save_snapshot(aggregate_type, aggregate_id, version, data)


class SettlesStartLate(InMemoryEventStorage):
    """Fixes the position of a new name only when the call is awaited."""

    def open_subscription(
        self, name: str, start: Start, *, epoch: int | None = None
    ) -> Awaitable[Cursor | None]:
        async def later() -> Cursor | None:
            await asyncio.sleep(0)
            return await super(SettlesStartLate, self).open_subscription(name, start, epoch=epoch)

        return later()


class AllowsTwoHolders(InMemoryEventStorage):
    """Gives a subscription to every caller."""

    def open_subscription(
        self, name: str, start: Start, *, epoch: int | None = None
    ) -> Awaitable[Cursor | None]:
        if name in self._subscriptions._by_name:
            self._subscriptions.of(name).holder = None
        return super().open_subscription(name, start, epoch=epoch)


class RefusesReopening(InMemoryEventStorage):
    """Refuses to reopen a subscription for its own holder."""

    def open_subscription(
        self, name: str, start: Start, *, epoch: int | None = None
    ) -> Awaitable[Cursor | None]:
        return super().open_subscription(name, start)


class ReopensForAnyEpoch(InMemoryEventStorage):
    """Accepts any epoch as that of the holder."""

    def open_subscription(
        self, name: str, start: Start, *, epoch: int | None = None
    ) -> Awaitable[Cursor | None]:
        known = self._subscriptions._by_name.get(name)
        held_in = None if known is None or epoch is None else known.epoch
        return super().open_subscription(name, start, epoch=held_in)


class ContinuesEpochs(InMemoryEventStorage):
    """Continues the epochs of a name that was forgotten."""

    def __init__(self) -> None:
        super().__init__()
        self.epochs: dict[str, int] = {}

    def open_subscription(
        self, name: str, start: Start, *, epoch: int | None = None
    ) -> Awaitable[Cursor | None]:
        opening = super().open_subscription(name, start, epoch=epoch)

        async def answer() -> Cursor | None:
            cursor, before = await opening, self.epochs.get(name, 0)
            return cursor and msgspec.structs.replace(cursor, epoch=before + cursor.epoch)

        return answer()

    async def forget_subscription(self, name: str) -> bool:
        self.epochs[name] = self._subscriptions.of(name).epoch
        return await super().forget_subscription(name)


class AcceptsStaleEpochs(InMemoryEventStorage):
    """Accepts progress of an epoch that is over."""

    async def save_progress(self, changes: Sequence[Progress]) -> list[str]:
        for change in changes:
            known = self._subscriptions.of(change.name)
            known.holder, change.epoch = asyncio.get_running_loop(), known.epoch
        return await super().save_progress(changes)


class ForgetsRetries(InMemoryEventStorage):
    """Saves how far a subscription is, but not its retries."""

    async def save_progress(self, changes: Sequence[Progress]) -> list[str]:
        for change in changes:
            change.retries = ()
        return await super().save_progress(changes)


class RetriesTwice(InMemoryEventStorage):
    """Begins a retry that is already under way."""

    async def begin_retry(
        self, dead_letter_id: int, payload: bytes | None, now: float
    ) -> DeadLetterRecord | None:
        letter = await super().begin_retry(dead_letter_id, payload, now)
        return letter if letter is not None else await self.get_dead_letter(dead_letter_id)


class ReleasesEarly(InMemoryEventStorage):
    """Lets scheduled events into the log whenever it is called."""

    async def release_due(self, now: float) -> float | None:
        return await super().release_due(now + 1e9)


class SchedulesTwice(InMemoryEventStorage):
    """Treats an event that is already scheduled as a new one."""

    async def schedule_event(self, event: DomainEvent, due_at: float) -> None:
        self._scheduled_by_id.clear()
        await super().schedule_event(event, due_at)


class ForgetsPauses(InMemoryEventStorage):
    """Reports that a subscription is paused, but lets the next holder go on."""

    def open_subscription(
        self, name: str, start: Start, *, epoch: int | None = None
    ) -> Awaitable[Cursor | None]:
        if name in self._subscriptions._by_name:
            self._subscriptions.of(name).paused = False
        return super().open_subscription(name, start, epoch=epoch)


class OverlapsPages(InMemoryEventStorage):
    """Begins a page with the last row of the page before."""

    async def find_events(self, wanted: LogFilter, *, after: int = 0, **page: Any) -> list[StoredRecord]:
        return await super().find_events(wanted, after=after - 1, **page)


class ReplaysTwice(InMemoryEventStorage):
    """Keeps a replay after its range is done."""

    async def save_progress(self, changes: Sequence[Progress]) -> list[str]:
        for change in changes:
            change.replayed = ()
        return await super().save_progress(changes)


class ForgetsFailures(InMemoryEventStorage):
    """Forgets the failed attempts of a delivery once it succeeds."""

    async def save_progress(self, changes: Sequence[Progress]) -> list[str]:
        for change in changes:
            change.recovered = ()
        return await super().save_progress(changes)


DEFECTS: list[tuple[type[InMemoryEventStorage], str]] = [
    (StoresTwice, "log: a repeated event is stored once"),
    (StoresPartialBatches, "log: a batch with an invalid event stores nothing"),
    (EndsPagesEarly, "log: pages cover the log without gap or overlap"),
    (NotifiesLate, "log: listeners receive every commit in order"),
    (IgnoresVersions, "streams: only one append at a version succeeds"),
    (AppendsOneByOne, "aggregates: a version conflict in one stream stores nothing"),
    (AppendsOneByOne, "aggregates: an invalid event in one stream stores nothing"),
    (IncludesTheVersion, "aggregates: a history is read after a version"),
    (NormalizesIds, "aggregates: similar ids are kept apart"),
    (KeepsHighestVersion, "aggregates: the snapshot saved last is kept"),
    (SettlesStartLate, "subscriptions: the start of a new subscription is fixed at the call"),
    (AllowsTwoHolders, "subscriptions: a subscription has one holder at a time"),
    (RefusesReopening, "subscriptions: a holder can reopen its subscription without releasing it"),
    (ReopensForAnyEpoch, "subscriptions: a holder can reopen its subscription without releasing it"),
    (ContinuesEpochs, "controls: a forgotten subscription starts over"),
    (AcceptsStaleEpochs, "subscriptions: progress of an ended epoch is rejected"),
    (ForgetsPauses, "controls: a pause lasts until resume"),
    (ReplaysTwice, "controls: replays stay in the cursor until they are done"),
    (OverlapsPages, "queries: pages continue where the last one ended"),
    (ForgetsFailures, "inspection: a recovered delivery keeps its failed attempts"),
    (ForgetsFailures, "inspection: a recovered dead letter keeps its failed attempts"),
    (ForgetsRetries, "bus: a retry keeps its due time across a restart"),
    (RetriesTwice, "dead_letters: a retry begins once"),
    (ReleasesEarly, "schedules: events enter the log when they are due"),
    (SchedulesTwice, "schedules: a repeated event is scheduled once"),
]


class DropsFirstElement(InMemoryEventStorage):
    """Omits the first element of every list it returns."""

    async def list_subscriptions(self) -> list[SubscriptionRecord]:
        return (await super().list_subscriptions())[1:]

    async def list_dead_letters(self, **options: Any) -> list[DeadLetterRecord]:
        return (await super().list_dead_letters(**options))[1:]

    async def read_positions(self, positions: Sequence[int]) -> list[StoredRecord]:
        return (await super().read_positions(positions))[1:]
