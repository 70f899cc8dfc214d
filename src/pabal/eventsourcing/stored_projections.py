"""Read and drop a file's stored projections without their classes: for operators, and for ``remove``."""

from __future__ import annotations

from pabal.errors import ProjectionNotFoundError
from pabal.eventsourcing.advancing import TableStorage
from pabal.eventsourcing.generations import COLUMNS, Generation, discard, read_generations
from pabal.eventsourcing.read_model import Statements

_HAS_ANY = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'pabal_projections'"
_ALL = f"SELECT name, {COLUMNS} FROM pabal_projections ORDER BY name, generation"


async def stored_projections(storage: TableStorage) -> dict[str, list[Generation]]:
    """Return each projection's generations by its name, oldest first. Writes nothing."""
    found: dict[str, list[Generation]] = {}
    if await storage.query(_HAS_ANY):
        for name, *row in await storage.query(_ALL):
            found.setdefault(name, []).append(Generation.of(*row))
    return found


def drop(tx: Statements, name: str, *, unfinished: bool = False) -> int:
    """Drop a projection's tables and position; with ``unfinished``, only what an unfinished rebuild has made.

    Return how many generations were dropped.
    """
    dropped = [each for each in read_generations(tx, name) if not (unfinished and each.is_live)]
    for generation in dropped:
        discard(tx, name, generation)
    return len(dropped)


def drop_known(tx: Statements, name: str, *, unfinished: bool) -> int:
    """Drop like ``drop``. Raises ProjectionNotFoundError if nothing is stored under the name."""
    if not read_generations(tx, name):
        known = tx.execute("SELECT DISTINCT name FROM pabal_projections ORDER BY name").fetchall()
        raise ProjectionNotFoundError(name=name, known=", ".join(each for (each,) in known) or "none")
    return drop(tx, name, unfinished=unfinished)
