"""The write transaction, as ``transact`` and the storage's own operations use it."""

from __future__ import annotations

import sqlite3
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from pabal.domain.envelope import EventRecord, encode_event
from pabal.domain.event import DomainEvent, adopt
from pabal.errors import UsageError
from pabal.ports.sql import check_in_transaction
from pabal.ports.storage import Committed

if TYPE_CHECKING:
    from pabal.storage.sqlite.appender import Appender


class Transaction:
    """Run statements and append events inside one write transaction.

    ``storage.transact`` passes it to your function; it is usable only until that function returns.
    Statements run on the storage's database file, where your own tables live beside pabal's.
    """

    def __init__(self, connection: sqlite3.Connection, appender: Appender, *, is_users: bool) -> None:
        self._connection: sqlite3.Connection | None = connection
        self._is_users = is_users
        self._appender = appender
        self._cursors: weakref.WeakSet[sqlite3.Cursor] = weakref.WeakSet()
        self.added: list[Committed] = []
        self.after_commit: list[Callable[[], object]] = []

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        """Run one statement and return its cursor; fetch its rows before the function returns.

        Raises UsageError if the statement would begin or end a transaction, set a PRAGMA that pabal relies on
        or change one of pabal's tables; sqlite3.Error if SQLite rejects it.
        """
        check_in_transaction(sql)
        cursor = self._run(self._open.execute, sql, parameters)
        if cursor.description is not None:
            self._cursors.add(cursor)
        return cursor

    def executemany(self, sql: str, rows: Iterable[Any], /) -> sqlite3.Cursor:
        """Run one statement once per row of parameters. Raises what ``execute`` does."""
        return self._run(self._open.executemany, sql, rows)

    def _run(self, call: Callable[..., sqlite3.Cursor], sql: str, parameters: Any) -> sqlite3.Cursor:
        if not self._is_users:
            return call(sql, parameters)
        return self._appender.own_tables.execute_guarded(call, sql, parameters)

    def store_event(self, event: Any) -> int:
        """Append an event and return its position; it is delivered after the transaction is committed.

        Raises what ``store_events`` does.
        """
        return self.store_events([event])[0]

    def store_events(self, events: Iterable[Any]) -> list[int]:
        """Append several events and return their positions.

        Raises InvalidEventError or DuplicateEventError; unless your function catches it, all is undone.
        """
        adopted = [adopt(event) for event in events]
        records = [encode_event(event, self._appender.max_payload_bytes) for event in adopted]
        return self.append_records(adopted, records)

    def append_records(
        self, events: Sequence[DomainEvent], records: Sequence[EventRecord], *, announce: bool = True
    ) -> list[int]:
        """Append encoded events; with ``announce=False``, buses are not handed them and read the log."""
        assert self._open
        self._appender.own_tables.suspend()
        positions, added = self._appender.append(events, records)
        if announce:
            self.added += added
        return positions

    def index_streams(self, position: int) -> None:
        """Extend the stream index to the end of the log, unless it covers ``position`` already."""
        if position > self._appender.indexed_upto:
            upto = self._appender.index_streams()
            self.after_commit.append(lambda: self._appender.note_indexed(upto))

    def checkpoint_from(self, pages: int) -> None:
        """Make this commit checkpoint the write-ahead log as soon as it holds ``pages``, fewer than usual."""
        self._appender.checkpoint_from(pages)

    def end(self) -> None:
        """Refuse further use: the function has returned, so the transaction is no longer its own."""
        self._connection = None
        for cursor in list(self._cursors):
            # A cursor with unread rows keeps its snapshot. Once another process has written, this connection
            # could then write no more.
            cursor.close()

    @property
    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            raise UsageError("this transaction is over: use tx only inside the function given to transact()")
        return self._connection
