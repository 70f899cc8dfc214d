"""The parts of a projection: its tables, and a handler for each event."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from fnmatch import fnmatchcase
from typing import Any, NamedTuple, Protocol, TypeVar

from pabal.domain.envelope import Envelope, StoredRecord, decode_event, to_envelope
from pabal.domain.event import body_of
from pabal.domain.marking import can_be_paused, is_yet_to_run, mark_with, with_overrides
from pabal.domain.registry import registry
from pabal.errors import ProjectionDefinitionError, UsageError

Handler = Callable[[Any, Any, Any], Any]
_H = TypeVar("_H", bound=Callable[..., None])
_PROJECTS = "_pabal_projects"
_PLACEHOLDER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
_MAX_CACHED_STATEMENTS = 1000
"""Cache at most this many translated statements: one with values written into it differs for each event."""
_CREATE_TABLE = re.compile(
    r"(?:\s|--[^\n]*(?:\n|$)|/\*.*?\*/)*+CREATE\s+TABLE\s+\{([A-Za-z_][A-Za-z0-9_]*)\}",
    re.IGNORECASE | re.DOTALL,
)

_REMAINING = "SELECT type, name FROM sqlite_schema WHERE name NOT GLOB 'sqlite_*'"


class Statements(Protocol):
    """Anything that runs statements: a transaction of the storage, or a connection."""

    def execute(self, sql: str, parameters: Any = ..., /) -> sqlite3.Cursor:
        """Run one statement."""
        ...

    def executemany(self, sql: str, rows: Iterable[Any], /) -> sqlite3.Cursor:
        """Run one statement for many rows."""
        ...


def projects(*event_classes: type) -> Callable[[_H], _H]:
    """Mark a method ``(self, event, tx)`` of a projection as the handler of these events.

    ``tx`` is a ``ProjectionTransaction``. Subclasses of the events are included unless they have a handler of
    their own. ``Projection`` shows an example. Raises ProjectionDefinitionError if an argument is not a class
    or if there is none.
    """
    return mark_with(
        _PROJECTS,
        "@projects",
        event_classes,
        lambda detail: ProjectionDefinitionError(detail, projection="(unknown)"),
    )


def handlers_of(cls: type, inherited: dict[type, Handler]) -> dict[type, Handler]:
    """Return the handlers of a class by event class. Raises ProjectionDefinitionError."""
    found = with_overrides(cls, inherited, _PROJECTS)
    for method in found.values():
        _require_plain_function(cls, method.__name__, method)
    own: dict[type, str] = {}
    for name, value in vars(cls).items():
        for event_class in getattr(value, _PROJECTS, ()):
            _require_plain_function(cls, name, value)
            if event_class in own:
                raise ProjectionDefinitionError(
                    f"{own[event_class]}() and {name}() both project {event_class.__name__}; keep one",
                    projection=cls.__qualname__,
                )
            own[event_class] = name
            found[event_class] = value
    return found


def _require_plain_function(cls: type, name: str, method: Any) -> None:
    if can_be_paused(method):
        raise ProjectionDefinitionError(
            f"{name}() cannot be async or a generator: it runs inside a transaction; make it a plain def",
            projection=cls.__qualname__,
        )


def refuse_lazy_result(result: Any) -> None:
    """Raise UsageError if a handler returned a coroutine or generator, whose statements have not run."""
    if is_yet_to_run(result):
        raise UsageError(
            "it returned a coroutine or generator, so it has written nothing; make it a plain def"
        )


class Tables:
    """Hold the statements that create a projection's tables, and fill in the tables' names."""

    def __init__(self, projection: str, script: str) -> None:
        self._statements = _split(script)
        self.names = tuple(found[1] for text in self._statements if (found := _CREATE_TABLE.match(text)))
        if not self.names:
            raise ProjectionDefinitionError(
                "tables creates no table; write tables = 'CREATE TABLE {orders} (id TEXT PRIMARY KEY)', "
                "exactly in this form: the name in braces, of ASCII letters, digits and _, with nothing "
                "between TABLE and the name",
                projection=projection,
            )
        refused = self._validate()
        if refused:
            raise ProjectionDefinitionError(refused, projection=projection)

    def _validate(self) -> str | None:
        """Create the tables in memory, and again as a rebuild would; return what is wrong, or None."""
        with closing(sqlite3.connect(":memory:")) as trial:
            try:
                self.create(trial, "")
            except (sqlite3.Error, sqlite3.Warning) as error:
                placeholder = _PLACEHOLDER.search(
                    "".join(self.translate(each, "") for each in self._statements)
                )
                if placeholder is not None and 'token: "{"' in str(error):
                    table = placeholder[1]
                    return (
                        f"tables names {{{table}}} but does not create it; write exactly "
                        f"CREATE TABLE {{{table}}}"
                    )
                return f"SQLite rejects its tables: {error}"
            try:
                self.create(trial, "__1")
            except sqlite3.Error as error:
                return (
                    f"a rebuild could not create its tables beside the live ones: {error}; begin the name of "
                    "each index and trigger with its table's name in braces, as in {orders}_by_day"
                )
            for table in self.names:
                trial.execute(f"DROP TABLE {table}")
                trial.execute(f"DROP TABLE {table}__1")
            remaining = trial.execute(_REMAINING).fetchone()
        if remaining:
            kind, name = remaining
            return f"its {kind} {name} would not be rebuilt with its tables; create it outside of tables"
        return None

    def create(self, tx: Statements, suffix: str) -> None:
        """Create the tables, with the suffix appended to each name."""
        for statement in self._statements:
            tx.execute(self.translate(statement, suffix))

    def translate(self, sql: str, suffix: str) -> str:
        """Replace each ``{table}`` by the table's name and the suffix; leave other braces alone."""
        return _PLACEHOLDER.sub(lambda found: found[1] + suffix if found[1] in self.names else found[0], sql)


class ProjectionTransaction:
    """Run a handler's statements in the transaction that also saves the projection's position.

    ``{orders}`` in a statement stands for the table ``orders``; during a rebuild, for the one being built.
    Valid only until the handler returns. ``row`` is the event as stored.
    """

    __slots__ = ("_suffix", "_tables", "_translated_statements", "_tx", "row")

    def __init__(self, tx: Statements, tables: Tables, suffix: str, translated: dict[str, str]) -> None:
        self._tx = tx
        self._tables = tables
        self._suffix = suffix
        self._translated_statements = translated
        self.row: StoredRecord | None = None
        """The stored event that is being projected; None for one given to an in-memory projection."""

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        """Run one statement and return its cursor. Raises sqlite3.Error if SQLite refuses it.

        If the handler raises an error, the whole batch is rolled back and the projection stops.
        """
        return self._tx.execute(self._translated_statements.get(sql) or self._translate(sql), parameters)

    def executemany(self, sql: str, rows: Iterable[Any], /) -> sqlite3.Cursor:
        """Run one statement for many rows of parameters. Raises what ``execute`` does."""
        return self._tx.executemany(self._translated_statements.get(sql) or self._translate(sql), rows)

    @property
    def envelope(self) -> Envelope:
        """Return the event with its place in the log.

        Raises UsageError in an ``InMemoryProjection``, whose events are in no log.
        """
        if self.row is None:
            raise UsageError("an event given to an in-memory projection has no envelope")
        return to_envelope(self.row)

    def _translate(self, sql: str) -> str:
        if len(self._translated_statements) >= _MAX_CACHED_STATEMENTS:
            self._translated_statements.clear()
        text = self._translated_statements[sql] = self._tables.translate(sql, self._suffix)
        return text


class Task(NamedTuple):
    """Hold an event to be projected, with its handler."""

    handler: Handler
    event: Any
    row: StoredRecord


class HandlerCatalogue:
    """Decide for each event type which handler takes it, or whether it is ignored or unknown."""

    def __init__(self, handlers: dict[type, Handler], matches: str, ignores: Iterable[type | str]) -> None:
        self._handlers = handlers
        self._matches = matches
        self._ignored_names = frozenset(each for each in ignores if isinstance(each, str))
        self._ignored = tuple(each for each in ignores if isinstance(each, type))
        self._by_class: dict[type, Handler | None] = {}

    def handler_of(self, cls: type) -> Handler | None:
        """Return the handler of an event class: its own, or that of the nearest base."""
        if cls not in self._by_class:
            self._by_class[cls] = next(
                (self._handlers[base] for base in cls.__mro__ if base in self._handlers), None
            )
        return self._by_class[cls]

    def knows(self, event_type: str, cls: type | None) -> bool:
        """Return whether an event without a handler is ignored on purpose rather than unknown."""
        if event_type in self._ignored_names or (cls is not None and issubclass(cls, self._ignored)):
            return True
        if self._matches:
            return not fnmatchcase(event_type, self._matches)
        # Those of commands and processes, which a process with read models alone has not imported, are not
        # forgotten: whoever projects one has imported its class.
        return cls is not None or event_type.startswith("pabal.")

    def match_handlers(self, rows: Sequence[StoredRecord]) -> tuple[list[Task], list[StoredRecord]]:
        """Return decoded events that have a handler, and the rows of unknown types. Raises DecodeError."""
        tasks: list[Task] = []
        unknown: list[StoredRecord] = []
        handlers: dict[str, Handler | None] = {}
        unknown_types: set[str] = set()
        for row in rows:
            kind = row.event_type
            if kind not in handlers:
                cls = registry.class_named(kind)
                handlers[kind] = None if cls is None else self.handler_of(cls)
                if handlers[kind] is None and not self.knows(kind, cls):
                    unknown_types.add(kind)
            handler = handlers[kind]
            if handler is not None:
                tasks.append(Task(handler, body_of(decode_event(row)), row))
            elif kind in unknown_types:
                unknown.append(row)
        return tasks, unknown


class Model(NamedTuple):
    """Hold what a projection's class declares."""

    name: str
    version: int
    tables: Tables
    catalogue: HandlerCatalogue


def model_of(cls: Any, handlers: dict[type, Handler]) -> Model:
    """Collect what a class declares. Raises ProjectionDefinitionError for values that make no sense."""

    def refuse(detail: str) -> None:
        raise ProjectionDefinitionError(detail, projection=cls.__qualname__)

    if isinstance(cls.version, bool) or not isinstance(cls.version, int) or cls.version < 1:
        refuse(f"version is {cls.version!r}; it must be an int of at least 1")
    if not isinstance(cls.name, str) or not cls.name:
        refuse(f"name is {cls.name!r:.60}; it must be text that is not empty")
    for name in ("tables", "matches"):
        if not isinstance(getattr(cls, name), str):
            refuse(f"{name} is {getattr(cls, name)!r:.60}; it must be text")
    # A string is iterable too, but its letters are not names of events.
    is_list = isinstance(cls.ignores, Iterable) and not isinstance(cls.ignores, (str, type))
    if not is_list or not all(isinstance(each, (str, type)) for each in cls.ignores):
        refuse(
            f"ignores is {cls.ignores!r:.60}; it must be a tuple of classes and names, as ('order.legacy',)"
        )
    catalogue = HandlerCatalogue(handlers, cls.matches, cls.ignores)
    return Model(cls.name, cls.version, Tables(cls.__qualname__, cls.tables), catalogue)


def _split(script: str) -> list[str]:
    """Split a script into statements, ignoring semicolons inside quotes and triggers."""
    statements: list[str] = []
    text = ""
    for part in script.strip().removesuffix(";").split(";"):
        text += part + ";"
        if sqlite3.complete_statement(text):
            statements.append(text)
            text = ""
    return [*statements, text] if text else statements
