"""What ``transact`` and the storage's own operations see of the one writing transaction."""

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
from pabal.storage.sqlite.schema import CHECKPOINT_PAGES

if TYPE_CHECKING:
    from pabal.storage.sqlite.appender import Appender


class Transaction:
    """Run statements and append events inside one transaction.

    It is handed to the function given to ``storage.transact`` and is good only until that returns.
    Statements go to the same database file; own tables live beside pabal's.
    """

    def __init__(self, connection: sqlite3.Connection, appender: Appender, *, is_users: bool) -> None:
        self._connection: sqlite3.Connection | None = connection
        self._is_users = is_users
        self._appender = appender
        self._cursors: weakref.WeakSet[sqlite3.Cursor] = weakref.WeakSet()
        self.added: list[Committed] = []
        self.after_commit: list[Callable[[], object]] = []

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        """Run one statement and return its cursor, whose rows are to be fetched inside the function.

        Raises UsageError for one that would begin or end a transaction, set a PRAGMA that pabal relies on or
        change a table of pabal's, sqlite3.Error for one that SQLite refuses.
        """
        check_in_transaction(sql)
        cursor = self._run(self._open.execute, sql, parameters)
        if cursor.description is not None:
            self._cursors.add(cursor)
        return cursor

    def executemany(self, sql: str, rows: Iterable[Any], /) -> sqlite3.Cursor:
        """Run one statement for many rows of parameters. Raises what ``execute`` does."""
        return self._run(self._open.executemany, sql, rows)

    def _run(self, call: Callable[..., sqlite3.Cursor], sql: str, parameters: Any) -> sqlite3.Cursor:
        if not self._is_users:
            return call(sql, parameters)
        return self._appender.own_tables.keep(call, sql, parameters)

    def store_event(self, event: Any) -> int:
        """Append an event and return its position; it is delivered once the transaction is committed.

        Raises what ``store_events`` does.
        """
        return self.store_events([event])[0]

    def store_events(self, events: Iterable[Any]) -> list[int]:
        """Append several events and return their positions.

        Raises InvalidEventError or DuplicateEventError, which undo everything unless the function catches it.
        """
        adopted = [adopt(event) for event in events]
        records = [encode_event(event, self._appender.max_payload_bytes) for event in adopted]
        return self.append_records(adopted, records)

    def append_records(
        self, events: Sequence[DomainEvent], records: Sequence[EventRecord], *, announce: bool = True
    ) -> list[int]:
        """Append events that are encoded already; unannounced ones are found in the log, not handed over."""
        assert self._open
        self._appender.own_tables.lift()
        positions, added = self._appender.append(events, records)
        if announce:
            self.added += added
        return positions

    def index_streams(self, position: int) -> None:
        """Bring the index of streams up to the log's end, unless it reaches a position already."""
        if position > self._appender.indexed_upto:
            upto = self._appender.index_streams()
            self.after_commit.append(lambda: self._appender.indexed(upto))

    def checkpoint_from(self, pages: int) -> None:
        """Have this commit move the write-ahead log into the file from fewer pages on than others do."""
        connection = self._open
        connection.execute(f"PRAGMA wal_autocheckpoint = {pages}")
        usual = f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}"
        self.after_commit.append(lambda: connection.execute(usual))

    def end(self) -> None:
        """Take nothing more: the function has returned, and the transaction is not its own any longer."""
        self._connection = None
        for cursor in list(self._cursors):
            # One with rows left keeps its snapshot: once another process has written, nothing could be here.
            cursor.close()

    @property
    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            raise UsageError("this transaction is over: use tx only inside the function given to transact()")
        return self._connection
