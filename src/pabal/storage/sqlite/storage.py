"""``SqliteEventStorage``: the log and everything beside it in one SQLite file."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from datetime import timedelta
from inspect import iscoroutinefunction
from pathlib import Path
from typing import Any, TypeVar

from pabal.domain.envelope import (
    Envelope,
    StoredRecord,
    decode_event,
    encode_event,
    from_microseconds,
    to_envelope,
)
from pabal.domain.event import DomainEvent, adopt, body_of
from pabal.domain.registry import registry
from pabal.errors import InvalidEventError, UsageError
from pabal.ports.storage import LogFilter, Page, StreamAppend
from pabal.storage.sqlite import care, queries, reader, rebuild, retention
from pabal.storage.sqlite.appender import Expected
from pabal.storage.sqlite.care import Progress
from pabal.storage.sqlite.inspection import SqliteInspection
from pabal.storage.sqlite.job import Job
from pabal.storage.sqlite.retention import Trimmed, Vacuumed
from pabal.storage.sqlite.samples import SqliteSamples
from pabal.storage.sqlite.statements import statements
from pabal.storage.sqlite.subscribing import SubscriptionCalls
from pabal.storage.sqlite.transaction import Transaction

T = TypeVar("T")
_PAGE = 256


class SqliteEventStorage(SubscriptionCalls, SqliteInspection, SqliteSamples):
    """Keep events, cursors, retries, dead letters and schedules in one SQLite file.

    The file is made if it is not there; its directory must be. ``durability="full"`` syncs to disk before a
    call returns; ``"normal"`` survives the death of the process, but a power cut may take the newest events.
    ``max_payload_bytes`` is the largest payload of an event, 1 MiB by default. Any number of processes may
    open the file; calls may come from any event loop. Close it with ``close()``, ``aclose()``, ``with`` or
    ``async with``, after the bus that uses it has stopped.

    Raises StorageUnavailableError, NotAPabalDatabaseError, NewerSchemaError or CorruptLogError when the
    file cannot be opened, and leaves it as it was; UsageError for another ``durability``. Afterwards each
    call may raise StorageUnavailableError, CorruptLogError, or StorageClosedError after ``close``. A call
    that is cancelled is done whole or not at all; ``trim`` and ``vacuum`` stop between two commits.

    >>> import asyncio
    >>> from pabal import DomainEvent
    >>> class RoomBooked(DomainEvent):
    ...     room: str
    >>> async def main():
    ...     async with SqliteEventStorage("rooms.db") as storage:
    ...         await storage.store_events([RoomBooked("A1"), RoomBooked("B2")])
    ...         return [(one.position, one.event.room) async for one in storage.read(after=1)]
    >>> asyncio.run(main())
    [(2, 'B2')]
    """

    # -- appending ------------------------------------------------------------------------------------

    async def store_event(self, event: Any) -> int:
        """Append one event and return its position.

        Positions begin at 1. The event is stored when this returns, and buses on this file deliver it. The
        same event again returns its first position. Raises InvalidEventError for one that cannot be stored,
        DuplicateEventError for an id that is stored with other content, StorageError.
        """
        return (await self.append_events([adopt(event)]))[0]

    async def store_events(self, events: Iterable[Any]) -> list[int]:
        """Append several events in order, all or none; return their positions. Raises as ``store_event``."""
        return await self.append_events([adopt(event) for event in events])

    def append_events(self, events: Sequence[DomainEvent]) -> asyncio.Future[list[int]]:
        """Append events in order, all or none; the positions come when they are committed.

        Whether or not somebody awaits them, the events are stored. Raises InvalidEventError and
        StorageClosedError at the call, other errors when awaited.
        """
        limit = self.max_payload_bytes
        records = [encode_event(event, limit) for event in events]
        return self._writer.submit(Job(events=events, records=records))

    async def append(
        self,
        aggregate_type: str,
        aggregate_id: str,
        events: Iterable[Any],
        *,
        expected_version: int | None,
    ) -> list[int]:
        """Append to one aggregate's stream and return the positions.

        ``expected_version`` is the version the stream must be at: how many events it ever got, 0 for none.
        With None it may be at any. Events that are all stored already just return their positions.
        Raises ConcurrencyError with both versions, InvalidEventError for an event of another aggregate,
        DuplicateEventError, StorageError.
        """
        adopted = [adopt(event) for event in events]
        for event in adopted:
            if (event.aggregate_type, event.aggregate_id) != (aggregate_type, aggregate_id):
                raise InvalidEventError(
                    f"event {event.event_type!r} belongs to {event.aggregate_type}/{event.aggregate_id}, "
                    f"not to {aggregate_type}/{aggregate_id}"
                )
        records = [encode_event(event, self.max_payload_bytes) for event in adopted]
        expected: tuple[Expected, ...] = ()
        if expected_version is not None:
            expected = (Expected(aggregate_type, aggregate_id, expected_version),)
        return await self._writer.submit(  # type: ignore[no-any-return]
            Job(events=adopted, records=records, expected=expected)
        )

    def append_streams(self, changes: Sequence[StreamAppend]) -> asyncio.Future[list[int]]:
        """Append to several streams, all or none; await the positions. Raises as ``append``."""
        events = [event for change in changes for event in change.events]
        records = [encode_event(event, self.max_payload_bytes) for event in events]
        expected = [Expected(c.aggregate_type, c.aggregate_id, c.expected_version) for c in changes]
        return self._writer.submit(Job(events=events, records=records, expected=expected))

    async def transact(self, function: Callable[[Transaction], T]) -> T:
        """Run ``function(tx)`` in the one writing transaction and return its result.

        What it writes with ``tx.execute`` and the events it stores with ``tx.store_event`` commit together or
        not at all; ``tx`` is a ``Transaction``. It runs in the writer's thread, so it must be quick and use
        nothing of asyncio. Whatever it raises undoes its part and is raised here, among it what ``execute``
        refuses. Raises UsageError for an async function, StorageError.

        >>> import asyncio
        >>> from pabal import DomainEvent
        >>> class GuestArrived(DomainEvent):
        ...     guest: str
        >>> def arrive(tx) -> int:
        ...     tx.execute("CREATE TABLE IF NOT EXISTS guests (name TEXT)")
        ...     tx.execute("INSERT INTO guests VALUES (?)", ("kim",))
        ...     return tx.store_event(GuestArrived("kim"))
        >>> async def main():
        ...     async with SqliteEventStorage("guests.db") as storage:
        ...         return await storage.transact(arrive), await storage.query("SELECT name FROM guests")
        >>> asyncio.run(main())
        (1, [('kim',)])
        """
        if iscoroutinefunction(function):
            raise UsageError("transact() takes a plain function: of an async one nothing would be run")
        return await self._writer.submit(Job(action=function, runs_once=True))  # type: ignore[no-any-return]

    # -- reading --------------------------------------------------------------------------------------

    async def query(self, sql: str, parameters: Any = ()) -> list[Any]:
        """Return the rows of a SELECT on your own tables, as tuples.

        It runs beside the writer and sees what is committed. ``parameters`` are a sequence for ``?`` or a
        mapping for ``:name``. Raises UsageError for a statement that SQLite refuses or that writes.
        """
        return await self._reader.run(lambda c: reader.read_rows(c, sql, parameters))

    async def head(self) -> int:
        """Return the highest position, 0 for an empty log."""
        return await self._reader.run(lambda c: c.execute(statements()["head"]).fetchone()[0])

    async def get_event(self, event_id: str) -> Any:
        """Return the event with this id, or None, also for text that is no UUID.

        Raises DecodeError (UnknownEventTypeError for a class that is not imported) or CorruptLogError.
        """
        row = await self._reader.run(lambda c: reader.read_event(c, self.path, event_id))
        return None if row is None else body_of(decode_event(row))

    async def get_events_by_aggregate(
        self, aggregate_id: str, aggregate_type: str | None = None
    ) -> list[Any]:
        """Return an aggregate's events in version order; an empty list for an unknown one.

        Without a type: the events of all aggregates of this id, in the order of their positions; ``""`` means
        those without a type. Raises DecodeError, CorruptLogError.
        """
        rows = await self._reader.run(
            lambda c: reader.read_stream(c, self.path, self._writer.appender, aggregate_id, aggregate_type)
        )
        return [body_of(decode_event(row)) for row in rows]

    async def read_history(
        self, aggregate_type: str, aggregate_id: str, after_version: int = 0
    ) -> list[StoredRecord]:
        """Read an aggregate's rows above ``after_version``, in version order. Raises CorruptLogError."""
        appender = self._writer.appender
        return await self._reader.run(
            lambda c: reader.read_stream(c, self.path, appender, aggregate_id, aggregate_type, after_version)
        )

    async def load_snapshot(self, aggregate_type: str, aggregate_id: str) -> bytes | None:
        """Return what was saved last for an aggregate, or None."""
        key = (aggregate_id, aggregate_type)
        row = await self._reader.run(lambda c: c.execute(statements()["load_snapshot"], key).fetchone())
        return None if row is None else row[0]

    async def save_snapshot(
        self, aggregate_type: str, aggregate_id: str, version: int, data: bytes | None
    ) -> None:
        """Keep a snapshot in place of the last one; ``None`` removes it."""
        sql = statements()
        if data is None:
            await self._do(lambda tx: tx.execute(sql["drop_snapshot"], (aggregate_id, aggregate_type)))
        else:
            row = (aggregate_id, aggregate_type, version, data)
            await self._do(lambda tx: tx.execute(sql["save_snapshot"], row))

    async def read(
        self, after: int = 0, *, types: Iterable[Any] | None = None, limit: int | None = None
    ) -> AsyncIterator[Envelope]:
        """Iterate over envelopes above position ``after``, in order, up to where the log ends by then.

        ``types`` are event classes, each without its subclasses, or type names; None means all. ``limit`` is
        the most that come. Raises CorruptLogError, and DecodeError unless ``types`` leaves such events out.
        """
        names = None if types is None else [_name_of(kind) for kind in types]
        left = limit
        while left != 0:
            size = _PAGE if left is None else min(_PAGE, left)
            page = await self.read_page(after, limit=size, types=names)
            for row in page.rows:
                yield to_envelope(row)
            if page.upto == after:
                return
            after = page.upto
            if left is not None:
                left -= len(page.rows)

    async def read_page(self, after: int, *, limit: int, types: Iterable[str] | None = None) -> Page:
        """Read up to ``limit`` rows above ``after``, undecoded. Raises CorruptLogError at an altered row."""
        return await self._reader.run(lambda c: reader.read_page(c, self.path, after, limit, types))

    async def read_positions(self, positions: Sequence[int]) -> list[StoredRecord]:
        """Read the rows at these positions, in order; positions that are not there are left out."""
        return await self._reader.run(lambda c: reader.read_positions(c, self.path, positions))

    async def find_events(
        self,
        wanted: LogFilter,
        *,
        after: int = 0,
        before: int | None = None,
        limit: int = 100,
        newest_first: bool = False,
    ) -> list[StoredRecord]:
        """Return up to ``limit`` rows that match, strictly between two positions, from one end or the other.

        Types, aggregates, correlation ids and times are looked up in indexes; ``causation_id`` alone is not.
        Raises UsageError for an ``aggregate_type`` without ``aggregate_id`` and for a naive time,
        CorruptLogError.
        """
        for moment in (wanted.since, wanted.until):
            if moment is not None and moment.tzinfo is None:
                raise UsageError("a filter by time needs aware datetimes, as datetime.now(UTC)")
        return await self._reader.run(
            lambda c: queries.find_events(c, self.path, wanted, after, before, limit, newest_first)
        )

    async def list_event_types(self) -> list[str]:
        """Return the names of all event types in the log, sorted."""
        return await self._reader.run(lambda c: [name for (name,) in c.execute(statements()["event_types"])])

    async def get_unprocessed_events(self, limit: int = 100) -> list[Any]:
        """Return events that some durable subscription has not finished, lowest position first.

        What waits for a retry or behind a dead letter counts, a dead letter itself does not. Without
        any durable subscription: the events that ``mark_event_processed`` has not marked. Raises
        DecodeError, CorruptLogError.
        """
        rows = await self._reader.run(lambda c: reader.read_unprocessed(c, self.path, limit))
        return [body_of(decode_event(row)) for row in rows]

    async def mark_event_processed(self, event_id: str, result: str | None = None) -> bool:
        """Note that the application dispatched an event by itself; False if there is no such event.

        For applications without a bus: see ``get_unprocessed_events``. ``result`` is any text to keep.
        """
        sql = statements()

        def mark(tx: Transaction) -> bool:
            row = reader.read_event(tx, self.path, event_id)
            if row is not None:
                tx.execute(sql["mark_processed"], (row.position, result, time.time_ns() // 1000))
            return row is not None

        return await self._do(mark)

    async def get_event_statistics(self) -> dict[str, Any]:
        """Return totals by type and aggregate type, and the span of positions and times.

        Keys: ``total_events``; ``events_by_type``; ``events_by_aggregate``, by aggregate type (``""`` for
        none), without events of no aggregate; ``first_position``, ``last_position``; ``first_occurred_at``,
        ``last_occurred_at``, the earliest and latest time (aware). The last four are None for an empty log.
        The cost grows with the log.
        """
        figures = await self._reader.run(reader.read_statistics)
        for name in ("first_occurred_at", "last_occurred_at"):
            if figures[name] is not None:
                figures[name] = from_microseconds(figures[name])
        return figures

    # -- care -----------------------------------------------------------------------------------------

    async def backup(self, path: str | Path, *, progress: Progress | None = None) -> None:
        """Copy the database, as it is at this moment, to a new file while it goes on being used.

        ``progress(bytes, all_bytes)`` is called now and then. If it fails or is cancelled, it leaves no file.
        Raises StorageUnavailableError if the file exists or cannot be written.
        """
        told = _in_the_loop(progress)
        await self._reader.run_long(lambda c, given_up: care.copy(c, Path(path), told, given_up))

    async def check(self, *, progress: Progress | None = None) -> list[str]:
        """Verify the file's structure and every event's checksum; return what is wrong, in sentences.

        An empty list means that all is well. Reads the whole file, while it goes on being used.
        ``progress(position, head)`` is called now and then, once the structure is verified.
        """
        told = _in_the_loop(progress)
        return await self._reader.run_long(lambda c, given_up: care.check(c, self.path, told))

    async def trim(
        self,
        *,
        max_age: timedelta | None = None,
        max_events: int | None = None,
        max_bytes: int | None = None,
        dry_run: bool = False,
        progress: Progress | None = None,
    ) -> Trimmed:
        """Delete events older than ``max_age``, beyond the newest ``max_events``, or beyond ``max_bytes``.

        Each limit deletes by itself; age counts from when an event was stored. Raises UsageError without any
        limit, and for a negative one. Deletes in small commits between which publishers go on, and returns
        when all is gone. Never deletes the newest event, nor what a subscription has not finished or is to be
        replayed, or what a projection's tables do not hold yet, whatever its age; ``held_back_by`` names
        those that are in the way. Dead letters keep a copy of their own. The history of an aggregate is
        deleted like everything else, so do not trim a log from which aggregates are loaded, nor steps that a
        process manager may still go on from: its state is its last one. ``max_bytes`` counts what is used of
        the file, indexes and all. The file keeps its size, and new events fill the room; ``vacuum`` gives it
        back. ``dry_run`` only says what would go. ``progress(deleted, all_due)`` is called after each commit;
        what was deleted before a cancellation stays deleted.
        """
        retention.check_limits(max_age, max_events, max_bytes)
        bound = await self._do(lambda tx: retention.find_bound(tx, max_age, max_events, max_bytes))
        if dry_run:
            return Trimmed(bound.events, bound.held_back_by)

        def gone_so_far(deleted: int) -> None:
            if progress is not None:
                progress(deleted, max(deleted, bound.events))

        deleted = await retention.delete_upto(bound.upto, self._do, gone_so_far)
        return Trimmed(deleted, bound.held_back_by)

    async def vacuum(self) -> Vacuumed:
        """Give room that nothing fills back to the file system, in small commits; return how much went.

        Publishers go on meanwhile, and no second copy of the file is needed. The file itself becomes shorter
        when the write-ahead log is next moved into it.
        """
        freed = 0
        while gone := await self._do(retention.vacuum_slice):
            freed += gone
            await asyncio.sleep(retention.SLICE_SECONDS)
        return Vacuumed(freed, await self._do(retention.used_bytes))

    async def rebuild(self, path: str | Path) -> int:
        """Copy everything into a new file, event by event, and make its indexes anew; return the events.

        For a file whose indexes are damaged, or that should be packed. Subscriptions, dead letters, schedules
        and projections come along, and a projection's rebuild goes on where it stood; tables of a projection
        that cannot be read whole stay behind, with a warning, and are built anew at its next start. An
        application's own tables stay behind. Every checksum is verified: raises CorruptLogError at the first
        altered event, and leaves no file then. Raises StorageUnavailableError if the file exists or cannot be
        written.
        """
        return await self._reader.run_long(
            lambda c, given_up: rebuild.rebuild(c, self.path, Path(path), given_up)
        )


def _in_the_loop(progress: Progress | None) -> Progress:
    """Return what a reader's thread may call to have ``progress`` called in the running loop."""
    if progress is None:
        return lambda done, total: None
    loop = asyncio.get_running_loop()
    return lambda done, total: loop.call_soon_threadsafe(progress, done, total)


def _name_of(kind: Any) -> str:
    return kind if isinstance(kind, str) else registry.schema_of(kind).event_type
