"""Advance a projection's tables: read a batch, decode it, and write it together with the new position."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar, cast

from pabal.delivery.tracebacks import repr_of
from pabal.domain.envelope import StoredRecord
from pabal.errors import (
    DecodeError,
    EventNotProjectedError,
    ProjectionError,
    ProjectionHandlerError,
    StorageError,
    UsageError,
)
from pabal.eventsourcing.generations import (
    Generation,
    MovedOnError,
    abandon,
    advance,
    begin,
    read_generations,
)
from pabal.eventsourcing.read_model import Model, ProjectionTransaction, Statements, Task, refuse_lazy_result
from pabal.ports.storage import EventStorage

T = TypeVar("T")
_SAVE_EVERY = 10_000
"""Save the position at least every this many positions, even if no event in between has a handler."""
_DECODE_INLINE_MAX = 32
"""Decode up to this many rows on the event loop: handing them to a thread would take about as long."""
_log = logging.getLogger("pabal")


class TableStorage(EventStorage, Protocol):
    """Describe an event storage that can also hold an application's tables."""

    async def transact(self, function: Callable[[Any], T]) -> T:
        """Run ``function(tx)`` in the storage's single write transaction and return its result."""
        ...

    async def query(self, sql: str, parameters: Any = ()) -> list[Any]:
        """Return the rows of a SELECT."""
        ...


def tables_of(bus_or_storage: Any) -> TableStorage:
    """Return the storage that holds the tables. Raises UsageError if it cannot hold any."""
    storage = getattr(bus_or_storage, "storage", bus_or_storage)
    if not hasattr(storage, "transact"):
        raise UsageError(
            f"{bus_or_storage!r:.80} has no tables for a projection; give the bus a SqliteEventStorage, "
            "or use InMemoryProjection"
        )
    return cast(TableStorage, storage)


class Advance:
    """Move the generations (sets of tables) of one projection through the log."""

    def __init__(self, projection: Any, model: Model, storage: TableStorage, batch: int) -> None:
        self._projection = projection
        self._name, self._version, self._tables, self._catalogue = model
        self._storage = storage
        self.batch = batch
        self._warned: set[str] = set()

    async def transact(self, function: Callable[[Statements], T]) -> T:
        """Run a function on the tables. Raises ProjectionError if SQLite refuses a statement."""

        def run(tx: Statements) -> T:
            try:
                return function(tx)
            except sqlite3.Error as error:
                if _is_fault(error):
                    raise
                raise ProjectionError(
                    projection=self._name, reason=f"SQLite cannot create its tables: {error}"
                ) from error

        return await self._storage.transact(run)

    async def begin(self, *, anew: bool) -> Generation:
        """Create empty tables beside the live ones; unless ``anew``, continue what a stopped build has left.

        From then on, the row of these tables keeps ``trim`` from deleting events that they lack. Raises
        ProjectionError if they cannot be created, or such events were trimmed already.
        """
        page = await self._storage.read_page(0, limit=1)
        first = page.rows[0].position if page.rows else 0

        def begin_at_start_of_log(tx: Statements) -> Generation:
            built = begin(tx, self._name, self._version, self._tables, anew=anew)
            self.refuse_gap(built, first)
            return built

        return await self.transact(begin_at_start_of_log)

    async def abandon(self, built: Generation) -> None:
        """Drop tables whose build has failed; if that fails as well, log it and leave them."""
        try:
            await self._storage.transact(lambda tx: abandon(tx, self._name, built))
        except StorageError as error:
            _log.warning("projection %r leaves what a failed rebuild has made: %s", self._name, error)

    async def step(self, generation: Generation, *, strict: bool) -> bool:
        """Project the next batch. Return False at the end of the log.

        ``strict`` raises EventNotProjectedError for an unknown event. Raises ProjectionHandlerError,
        ProjectionError, StorageError, and MovedOnError if another process has moved a live generation.
        """
        page = await self._storage.read_page(generation.position, limit=self.batch)
        if page.upto == generation.position:
            return False
        self.refuse_gap(generation, page.rows[0].position)
        tasks = await self._match_handlers(page.rows, strict)
        if tasks or page.upto - generation.saved >= _SAVE_EVERY:
            try:
                await self._storage.transact(lambda tx: self._apply(tx, generation, tasks, page.upto))
            except MovedOnError:
                if generation.is_live:
                    raise
                await self._follow_builder(generation)
                return True
            generation.saved = page.upto
        generation.position = page.upto
        return True

    def refuse_gap(self, generation: Generation, first: int) -> None:
        """Raise ProjectionError if events between the tables and ``first``, the log's next, were trimmed."""
        if first > generation.position + 1:
            raise ProjectionError(
                projection=self._name,
                reason=f"the log begins at position {first}, but its tables hold only the events up to "
                f"position {generation.position}: the events between were trimmed and cannot be projected",
            )

    def _apply(self, tx: Statements, generation: Generation, tasks: list[Task], upto: int) -> None:
        advance(tx, self._name, generation, upto)
        transaction = ProjectionTransaction(tx, self._tables, generation.suffix, generation.translated)
        projection = self._projection
        try:
            for handler, event, row in tasks:
                transaction.row = row
                if (result := handler(projection, event, transaction)) is not None:
                    refuse_lazy_result(result)
        except BaseException as error:
            # BaseException: this is the writer's thread, where no signal arrives and nothing is cancelled.
            if _is_fault(error):
                raise  # a storage fault, not the handler's: it is reported as such, and the batch retried
            row = cast(StoredRecord, transaction.row)
            raise ProjectionHandlerError(
                projection=self._name,
                event_type=row.event_type,
                position=row.position,
                reason=repr_of(error),
            ) from error

    async def _follow_builder(self, generation: Generation) -> None:
        """Read how far another builder of the same tables has come. Raises MovedOnError when it is done."""
        for found in await self._storage.transact(lambda tx: read_generations(tx, self._name)):
            if found.number == generation.number and not found.is_live:
                generation.saved = generation.position = found.saved
                return
        raise MovedOnError

    async def _match_handlers(self, rows: Sequence[StoredRecord], strict: bool) -> list[Task]:
        try:
            if len(rows) <= _DECODE_INLINE_MAX:
                tasks, unknown = self._catalogue.match_handlers(rows)
            else:
                tasks, unknown = await asyncio.to_thread(self._catalogue.match_handlers, rows)
        except DecodeError as error:
            raise ProjectionError(projection=self._name, reason=str(error)) from error
        for row in unknown:
            if strict:
                raise EventNotProjectedError(
                    projection=self._name,
                    event_type=row.event_type,
                    position=row.position,
                    reason="unknown event",
                )
            if row.event_type not in self._warned:
                self._warned.add(row.event_type)
                _log.warning(
                    "projection %r skips %r from position %d on: unknown to it, and to a rebuild an error",
                    self._name,
                    row.event_type,
                    row.position,
                )
        return tasks


_FAULTS = {
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_NOTADB,
}


def _is_fault(error: BaseException) -> bool:
    """Return whether an error comes from the file or the disk rather than from the statement itself."""
    return isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", 0) & 0xFF in _FAULTS
