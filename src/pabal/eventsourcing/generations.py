"""Generations of a projection: its sets of tables, and the log position of each.

A projection has one live generation and, during a rebuild, one that is being built; each is a row in
``pabal_projections``. Every function here runs in a transaction of the storage. A row is updated only if its
position is still the one that was read, so when several processes project the same events, exactly one
commits its effects.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from pabal.errors import ProjectionError
from pabal.eventsourcing.read_model import Statements, Tables

_TABLE = """
CREATE TABLE IF NOT EXISTS pabal_projections (
    name TEXT NOT NULL,
    generation INTEGER NOT NULL,
    version INTEGER NOT NULL,
    position INTEGER NOT NULL,
    is_live INTEGER NOT NULL,
    tables TEXT NOT NULL,
    PRIMARY KEY (name, generation)
) STRICT, WITHOUT ROWID
"""


COLUMNS = "generation, version, position, is_live, tables"
"""What ``Generation.of`` takes from ``pabal_projections``."""


class MovedOnError(Exception):
    """Raised when another process has advanced or replaced a projection; its row has to be read again."""


@dataclass(slots=True)
class Generation:
    """Hold one set of a projection's tables and the position up to which they are complete."""

    number: int
    version: int
    saved: int
    is_live: bool
    tables: tuple[str, ...]
    position: int = 0
    """At least ``saved``; events in between did not concern the projection."""
    translated: dict[str, str] = field(default_factory=dict)
    """Caches statements with this generation's table names filled in."""

    @classmethod
    def of(cls, number: int, version: int, position: int, is_live: int, tables: str) -> Generation:
        """Return the generation that a stored row describes."""
        return cls(number, version, position, bool(is_live), tuple(tables.split()), position)

    @property
    def suffix(self) -> str:
        """Return the suffix of its tables' names: empty once they are live."""
        return "" if self.is_live else f"__{self.number}"


def read_generations(tx: Statements, name: str) -> list[Generation]:
    """Return a projection's stored generations, oldest first."""
    tx.execute(_TABLE)
    found = tx.execute(f"SELECT {COLUMNS} FROM pabal_projections WHERE name = ? ORDER BY generation", (name,))
    return [Generation.of(*row) for row in found]


def live_of(generations: Iterable[Generation]) -> Generation | None:
    """Return the live generation, or None before the first build has finished."""
    return next((each for each in generations if each.is_live), None)


def begin(tx: Statements, name: str, version: int, tables: Tables, *, anew: bool) -> Generation:
    """Create empty tables beside the live ones; unless ``anew``, continue what a stopped rebuild left.

    Raises ProjectionError if a higher version, or the same version with other tables, is being built: each
    builder would drop the other's tables and start over, and neither would finish. Also raises it if one of
    the table names is taken.
    """
    generations = read_generations(tx, name)
    live = live_of(generations)
    _refuse_taken(tx, name, tables.names, () if live is None else live.tables)
    for stored in generations:
        if not stored.is_live:
            if not anew and (stored.version, stored.tables) == (version, tables.names):
                return stored
            if not anew and stored.version > version:
                raise ProjectionError(
                    projection=name,
                    reason=f"version {stored.version} of its tables is being built, this class is version "
                    f"{version}; raise its version, or drop the unfinished tables with "
                    "'pabal projections remove --unfinished'",
                )
            if not anew and stored.version == version:
                refuse_other_tables(name, stored, tables.names)
            discard(tx, name, stored)
    generation = Generation(
        max((each.number for each in generations), default=0) + 1, version, 0, False, tables.names
    )
    tables.create(tx, generation.suffix)
    tx.execute(
        "INSERT INTO pabal_projections VALUES (?, ?, ?, 0, 0, ?)",
        (name, generation.number, version, " ".join(tables.names)),
    )
    return generation


def refuse_other_tables(name: str, stored: Generation, wanted: tuple[str, ...]) -> None:
    """Raise ProjectionError: the stored tables of this name and version are not those of the class."""
    raise ProjectionError(
        projection=name,
        reason=f"its version {stored.version} has the tables {', '.join(stored.tables)}, this class has "
        f"{', '.join(wanted)}; raise its version if they have changed, or give it another name",
    )


def _refuse_taken(tx: Statements, name: str, wanted: tuple[str, ...], own: tuple[str, ...]) -> None:
    """Raise ProjectionError if a table name is taken, so that the final rename would fail."""
    own_tables = {table.lower() for table in own}
    existing = {
        table.lower()
        for (table,) in tx.execute("SELECT name FROM sqlite_schema WHERE type IN ('table', 'view')")
    }
    for table in wanted:
        if table.lower() in own_tables or table.lower() not in existing:
            continue
        for other, tables in tx.execute(
            "SELECT name, tables FROM pabal_projections WHERE is_live"
        ).fetchall():
            if table.lower() in tables.lower().split():
                raise ProjectionError(
                    projection=name,
                    reason=f"table {table} belongs to projection {other!r}; if this is the same "
                    "projection renamed, keep its old name or remove it first ('pabal projections remove'); "
                    "otherwise rename the table",
                )
        raise ProjectionError(
            projection=name,
            reason=f"the file already has a table or view {table}, which no "
            "projection created; rename the table",
        )


def discard(tx: Statements, name: str, generation: Generation) -> None:
    """Drop one set of tables."""
    for table in generation.tables:
        tx.execute(f"DROP TABLE IF EXISTS {table}{generation.suffix}")
    tx.execute("DELETE FROM pabal_projections WHERE name = ? AND generation = ?", (name, generation.number))


def abandon(tx: Statements, name: str, built: Generation) -> None:
    """Drop tables that were being built, unless a swap whose caller was cancelled has made them live."""
    for each in read_generations(tx, name):
        if (each.number, each.version, each.is_live) == (built.number, built.version, False):
            discard(tx, name, each)


def advance(tx: Statements, name: str, generation: Generation, upto: int) -> None:
    """Save a generation's new position. Raises MovedOnError if the stored row is not as last seen."""
    moved = tx.execute(
        "UPDATE pabal_projections SET position = ? "
        "WHERE name = ? AND generation = ? AND version = ? AND position = ? AND is_live = ?",
        # The version, too: after a removal numbering restarts, and another generation may match the rest.
        (upto, name, generation.number, generation.version, generation.saved, generation.is_live),
    )
    if moved.rowcount != 1:
        raise MovedOnError


def swap(tx: Statements, name: str, built: Generation) -> bool:
    """Replace the live tables by the built ones; return False if the live ones are ahead by now.

    Raises MovedOnError if the built tables are gone.
    """
    generations = read_generations(tx, name)
    if not any(each.number == built.number and not each.is_live for each in generations):
        raise MovedOnError
    advance(tx, name, built, built.position)
    live = live_of(generations)
    if live is not None:
        if live.position > built.position:
            built.saved = built.position
            return False
        discard(tx, name, live)
    recreate_sql = _drop_views_and_triggers(tx, {f"{table}{built.suffix}".lower() for table in built.tables})
    for table in built.tables:
        tx.execute(f"ALTER TABLE {table}{built.suffix} RENAME TO {table}")
    for sql in recreate_sql:
        tx.execute(sql)
    tx.execute(
        "UPDATE pabal_projections SET is_live = 1 WHERE name = ? AND generation = ?", (name, built.number)
    )
    return True


def _drop_views_and_triggers(tx: Statements, own: set[str]) -> list[str]:
    """Drop views, and triggers on tables other than ``own``; return the SQL that recreates them, in order.

    SQLite refuses to rename a table while any view or trigger names a table that does not exist. Between
    dropping the live tables and the rename, that is so for everything an application has built on them.
    """
    found = tx.execute(
        "SELECT type, name, tbl_name, sql FROM sqlite_schema WHERE type IN ('view', 'trigger') "
        "ORDER BY type DESC, rowid"
    ).fetchall()
    others = [(kind, name, sql) for kind, name, table, sql in found if table.lower() not in own]
    for kind, name, _ in others:
        tx.execute(f'DROP {kind} IF EXISTS "{name.replace(chr(34), chr(34) * 2)}"')
    return [sql for _, _, sql in others]
