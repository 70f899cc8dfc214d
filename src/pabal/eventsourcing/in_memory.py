"""``InMemoryProjection``: run a projection in tests, without a file or a bus."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Any
from weakref import finalize

from pabal.delivery.tracebacks import repr_of
from pabal.domain.registry import registry
from pabal.errors import EventNotProjectedError, ProjectionHandlerError, UsageError
from pabal.eventsourcing.projection import Projection
from pabal.eventsourcing.read_model import ProjectionTransaction, refuse_lazy_result
from pabal.ports.sql import check_in_transaction, only_reads


class _Statements:
    """Run a handler's statements, and refuse the same ones as a storage's transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.executemany = connection.executemany

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        """Run one statement. Raises UsageError for statements that only pabal may run, such as COMMIT."""
        check_in_transaction(sql)
        return self._connection.execute(sql, parameters)


class InMemoryProjection:
    """Run a projection's own methods over given events, into tables in memory.

    ``projection`` is the class; its ``__init__`` is not called. ``Projection`` shows an example. Raises what
    ``apply`` raises.
    """

    def __init__(self, projection: type[Projection], events: Iterable[Any] = ()) -> None:
        self._model = projection.model
        self._projection = projection.__new__(projection)
        # The garbage collector may run the finalizer in any thread.
        self._connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        self._statements = _Statements(self._connection)
        finalize(self, self._connection.close)
        self._model.tables.create(self._connection, "")
        self._position = 0
        """The position that the last event would have in a log of all events applied."""
        self.apply(*events)

    def apply(self, *events: Any) -> None:
        """Project events, in order, each whole or not at all; those before one that fails stay projected.

        Raises EventNotProjectedError for an unknown event, as a rebuild does, ProjectionHandlerError for a
        method that raises, UnregisteredEventError for what is no event. Positions count the events applied.
        """
        for event in events:
            self._position += 1
            name = registry.schema_of(type(event)).event_type
            handler = self._model.catalogue.handler_of(type(event))
            if handler is None:
                if self._model.catalogue.knows(name, type(event)):
                    continue
                raise EventNotProjectedError(
                    projection=self._model.name,
                    event_type=name,
                    position=self._position,
                    reason="unknown event",
                )
            self._connection.execute("BEGIN")
            try:
                own = ProjectionTransaction(self._statements, self._model.tables, "", {})
                refuse_lazy_result(handler(self._projection, event, own))
            except BaseException as error:
                self._connection.execute("ROLLBACK")
                if not isinstance(error, Exception):
                    raise  # pytest.skip() or an interrupt inside a handler
                raise ProjectionHandlerError(
                    projection=self._model.name,
                    event_type=name,
                    position=self._position,
                    reason=repr_of(error),
                ) from error
            self._connection.execute("COMMIT")

    def rows(self, sql: str, parameters: Any = ()) -> list[Any]:
        """Return the rows of a SELECT, as tuples; ``{table}`` stands for the table.

        Raises UsageError for a statement that SQLite refuses or that writes, as ``Projection.rows`` does.
        """
        statement = self._model.tables.translate(sql, "")
        if not only_reads(statement):
            # A pragma could let the next statement write, and BEGIN would break every later apply().
            raise UsageError(f"rows({sql!r:.200}) cannot be run; it takes one SELECT")
        self._connection.execute("PRAGMA query_only = ON")
        try:
            return self._connection.execute(statement, parameters).fetchall()
        except sqlite3.Error as error:
            raise UsageError(f"rows({sql!r:.200}) cannot be run: {error}; it takes one SELECT") from error
        finally:
            self._connection.execute("PRAGMA query_only = OFF")
