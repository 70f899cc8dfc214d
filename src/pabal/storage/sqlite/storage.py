"""``SqliteEventStorage``: the event log and all delivery state in one SQLite file."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from inspect import iscoroutinefunction
from typing import Any, TypeVar

from pabal.delivery.turns import AT_ONCE, decode_all, encode_all
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
from pabal.errors import UsageError
from pabal.ports.arguments import check_filter, check_stream, check_types
from pabal.ports.storage import LogFilter, Page, StreamAppend
from pabal.storage.sqlite import queries, reader
from pabal.storage.sqlite.appender import Expected
from pabal.storage.sqlite.care import SqliteCare
from pabal.storage.sqlite.inspection import SqliteInspection
from pabal.storage.sqlite.job import Job
from pabal.storage.sqlite.samples import SqliteSamples
from pabal.storage.sqlite.statements import statements
from pabal.storage.sqlite.subscribing import SubscriptionCalls
from pabal.storage.sqlite.transaction import Transaction

T = TypeVar("T")
_PAGE = 256


class SqliteEventStorage(SubscriptionCalls, SqliteCare, SqliteInspection, SqliteSamples):
    """Keep events, cursors, retries, dead letters and scheduled events in one SQLite file.

    The file is created if it does not exist; its directory must exist. ``durability="full"`` syncs to disk
    before a call returns; with ``"normal"``, events survive a crash of the process, but a power cut may lose
    the newest. ``max_payload_bytes`` limits the payload of one event, 1 MiB by default. Any number of
    processes may open the file, and any event loop may call it. Close it with ``close()``, ``aclose()``,
    ``with`` or ``async with`` once the buses that use it have stopped.

    Raises StorageUnavailableError, NotAPabalDatabaseError, NewerSchemaError or CorruptLogError if the file
    cannot be opened, and leaves the file unchanged; UsageError for any other ``durability``. Once open, any
    call may raise StorageUnavailableError, CorruptLogError or, after ``close``, StorageClosedError. A
    cancelled call takes effect completely or not at all; ``trim`` and ``vacuum`` stop between two commits.

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

        Positions begin at 1. The event is committed when this returns, and buses on this file deliver it.
        Storing the same event again returns its first position. Raises InvalidEventError if it cannot be
        stored, DuplicateEventError if its id is already stored with different content, StorageError.
        """
        return (await self.append_events([adopt(event)]))[0]

    async def store_events(self, events: Iterable[Any]) -> list[int]:
        """Append events in order, all or none; return their positions. Raises what ``store_event`` does."""
        return await self.append_events([adopt(event) for event in events])

    def append_events(self, events: Sequence[DomainEvent]) -> asyncio.Future[list[int]]:
        """Append events in order, all or none; the future gets their positions once they are committed.

        The events are stored even if the future is never awaited. Raises InvalidEventError and
        StorageClosedError at the call, or for many events like other errors through the future.
        """
        if len(events) > AT_ONCE:
            return asyncio.ensure_future(self._append_in_turns(events))
        records = [encode_event(event, self.max_payload_bytes) for event in events]
        return self._writer.submit(Job(events=events, records=records))

    async def _append_in_turns(self, events: Sequence[DomainEvent]) -> Any:
        records = await encode_all(events, lambda event: encode_event(event, self.max_payload_bytes))
        return await self._writer.submit(Job(events=events, records=records))

    async def append(
        self,
        aggregate_type: str,
        aggregate_id: str,
        events: Iterable[Any],
        *,
        expected_version: int | None,
    ) -> list[int]:
        """Append to one aggregate's stream and return the positions.

        ``expected_version`` is the version the stream must have: the number of events ever appended to it,
        0 for a new stream. None accepts any version. If all the events are stored already, their positions
        are returned. Raises ConcurrencyError (with both versions) if the version differs, InvalidEventError
        for an event of another aggregate, DuplicateEventError, StorageError.
        """
        adopted = [adopt(event) for event in events]
        check_stream(adopted, aggregate_type, aggregate_id)
        if expected_version is None:
            return await self.append_events(adopted)
        change = StreamAppend(aggregate_type, aggregate_id, expected_version, tuple(adopted))
        return await self.append_streams([change])

    def append_streams(self, changes: Sequence[StreamAppend]) -> asyncio.Future[list[int]]:
        """Append to several streams, all or none; await the positions. Raises what ``append`` does."""
        events = [event for change in changes for event in change.events]
        records = [encode_event(event, self.max_payload_bytes) for event in events]
        expected = [Expected(c.aggregate_type, c.aggregate_id, c.expected_version) for c in changes]
        return self._writer.submit(Job(events=events, records=records, expected=expected))

    async def transact(self, function: Callable[[Transaction], T]) -> T:
        """Run ``function(tx)`` inside a write transaction and return its result.

        Rows written with ``tx.execute`` and events stored with ``tx.store_event`` are committed together or
        not at all; ``tx`` is a ``Transaction``. The function runs in the writer thread, so it must be quick
        and must not use asyncio. If it raises (errors of ``tx.execute`` included), its changes are undone and
        the exception is raised here. Raises UsageError for an async function, StorageError.

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
            raise UsageError("transact() takes a plain function; an async one would never run")
        return await self._writer.submit(Job(action=function, runs_once=True))  # type: ignore[no-any-return]

    # -- reading --------------------------------------------------------------------------------------

    async def query(self, sql: str, parameters: Any = ()) -> list[Any]:
        """Return the rows of a SELECT on your own tables, as tuples.

        It runs concurrently with the writer and sees committed rows only. ``parameters`` is a sequence for
        ``?`` or a mapping for ``:name``. Raises UsageError if SQLite rejects the statement or it writes.
        """
        return await self._reader.run(lambda c: reader.read_rows(c, sql, parameters))

    async def head(self) -> int:
        """Return the highest position, 0 for an empty log."""
        return await self._reader.run(lambda c: c.execute(statements()["head"]).fetchone()[0])

    async def get_event(self, event_id: str) -> Any:
        """Return the event with this id, or None if there is none or the text is not a UUID.

        Raises DecodeError (UnknownEventTypeError if its class is not imported) or CorruptLogError.
        """
        row = await self._reader.run(lambda c: reader.read_event(c, self.path, event_id))
        return None if row is None else body_of(decode_event(row))

    async def get_events_by_aggregate(
        self, aggregate_id: str, aggregate_type: str | None = None
    ) -> list[Any]:
        """Return an aggregate's events in version order; an empty list if it has none.

        Without ``aggregate_type``: the events of all aggregates with this id, in order of position. ``""``
        stands for aggregates without a type. Raises DecodeError, CorruptLogError.
        """
        rows = await self._reader.run(
            lambda c: reader.read_stream(c, self.path, self._writer.appender, aggregate_id, aggregate_type)
        )
        return await decode_all(rows)

    async def read_history(
        self, aggregate_type: str, aggregate_id: str, after_version: int = 0
    ) -> list[StoredRecord]:
        """Read an aggregate's rows above ``after_version``, in version order. Raises CorruptLogError."""
        appender = self._writer.appender
        return await self._reader.run(
            lambda c: reader.read_stream(c, self.path, appender, aggregate_id, aggregate_type, after_version)
        )

    async def load_snapshot(self, aggregate_type: str, aggregate_id: str) -> bytes | None:
        """Return the last snapshot saved for an aggregate, or None."""
        key = (aggregate_id, aggregate_type)
        row = await self._reader.run(lambda c: c.execute(statements()["load_snapshot"], key).fetchone())
        return None if row is None else row[0]

    async def save_snapshot(
        self, aggregate_type: str, aggregate_id: str, version: int, data: bytes | None
    ) -> None:
        """Save an aggregate's snapshot in place of the previous one; ``data=None`` deletes it."""
        sql = statements()
        if data is None:
            await self._do(lambda tx: tx.execute(sql["drop_snapshot"], (aggregate_id, aggregate_type)))
        else:
            row = (aggregate_id, aggregate_type, version, data)
            await self._do(lambda tx: tx.execute(sql["save_snapshot"], row))

    async def read(
        self, after: int = 0, *, types: Iterable[Any] | None = None, limit: int | None = None
    ) -> AsyncIterator[Envelope]:
        """Iterate over the envelopes above position ``after``, in order, until the end of the log is reached.

        ``types`` are event classes (subclasses not included) or type names; None means all. At most ``limit``
        envelopes are yielded. Raises CorruptLogError, DecodeError for a selected event it cannot decode.
        """
        check_types(types)
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
        """Read up to ``limit`` rows above ``after``, not decoded. Raises CorruptLogError at a damaged row."""
        return await self._reader.run(lambda c: reader.read_page(c, self.path, after, limit, types))

    async def read_positions(self, positions: Sequence[int]) -> list[StoredRecord]:
        """Read the rows at these positions, in order; positions missing from the log are left out."""
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
        """Return up to ``limit`` matching rows, strictly between two positions, oldest or newest first.

        Types, aggregates, correlation ids and times are looked up in indexes; only ``causation_id`` is not.
        Raises UsageError for an ``aggregate_type`` without an ``aggregate_id`` and for a naive datetime,
        CorruptLogError.
        """
        check_filter(wanted)
        return await self._reader.run(
            lambda c: queries.find_events(c, self.path, wanted, after, before, limit, newest_first)
        )

    async def list_event_types(self) -> list[str]:
        """Return the names of all event types in the log, sorted."""
        return await self._reader.run(lambda c: [name for (name,) in c.execute(statements()["event_types"])])

    async def get_unprocessed_events(self, limit: int = 100) -> list[Any]:
        """Return events that at least one durable subscription has not finished, in order of position.

        This includes events that wait for a retry or behind a dead letter, but not the dead letters
        themselves. If there is no durable subscription, it returns the events not marked with
        ``mark_event_processed``. Raises DecodeError, CorruptLogError.
        """
        return await decode_all(await self._reader.unprocessed(limit))

    async def mark_event_processed(self, event_id: str, result: str | None = None) -> bool:
        """Mark an event as dispatched by the application itself; False if there is no such event.

        For applications without a bus: see ``get_unprocessed_events``. ``result`` is a text to store with it.
        """
        sql = statements()

        def mark(tx: Transaction) -> bool:
            row = reader.read_event(tx, self.path, event_id)
            if row is not None:
                tx.execute(sql["mark_processed"], (row.position, result, time.time_ns() // 1000))
            return row is not None

        return await self._do(mark)

    async def get_event_statistics(self) -> dict[str, Any]:
        """Return event counts by type and aggregate type, and the range of positions and times.

        Keys: ``total_events``; ``events_by_type``; ``events_by_aggregate``, by aggregate type (``""`` for
        none), leaving out events of no aggregate; ``first_position``, ``last_position``;
        ``first_occurred_at``, ``last_occurred_at``, the earliest and latest time (aware). The last four are
        None for an empty log. The cost grows with the size of the log.
        """
        figures = await self._reader.run(reader.read_statistics)
        for name in ("first_occurred_at", "last_occurred_at"):
            if figures[name] is not None:
                figures[name] = from_microseconds(figures[name])
        return figures


def _name_of(kind: Any) -> str:
    return kind if isinstance(kind, str) else registry.schema_of(kind).event_type
