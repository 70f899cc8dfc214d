"""List and remove the projections stored in a file, without their classes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, NoReturn

from pabal.errors import ActionNotPossibleError, ProjectionNotFoundError, UsageError
from pabal.eventsourcing.advancing import TableStorage
from pabal.eventsourcing.generations import Generation, live_of
from pabal.eventsourcing.stored_projections import drop_known, stored_projections
from pabal.ports.operations import Action, ActionResult, ProjectionView, RebuildView

PROJECTION_ACTIONS: frozenset[Action] = frozenset(("remove", "rebuild"))
"""Actions that are possible only on the file of a log."""


class NoProjections:
    """A source without projections: only the file of a log has tables for them."""

    async def projections(self, *, rows: bool) -> list[ProjectionView]:
        """Return an empty list."""
        return []

    async def remove_projection(self, name: str, *, unfinished: bool) -> ActionResult:
        """Raise ActionNotPossibleError."""
        _refuse("remove", name)

    async def rebuild_projection(self, name: str, rebuild: Callable[[Any], Awaitable[int]]) -> ActionResult:
        """Raise ActionNotPossibleError."""
        _refuse("rebuild", name)


def _refuse(action: Action, name: str) -> NoReturn:
    raise ActionNotPossibleError(
        action=action,
        subject=f"projection {name}",
        reason="projections are kept in the SQLite file of a log, and this is not one",
    )


async def list_projections(storage: Any, *, rows: bool) -> list[ProjectionView]:
    """Return the projections in the file, by name; with ``rows``, count the rows of every live table."""
    if not hasattr(storage, "transact"):
        return []  # an in-memory storage has no tables
    found = await stored_projections(storage)
    head = await storage.head()
    return [
        _view(name, generations, head, await _count(storage, generations) if rows else None)
        for name, generations in found.items()
    ]


async def remove_projection(storage: Any, name: str, *, unfinished: bool) -> ActionResult:
    """Drop tables and position; count 0 if no rebuild is unfinished. Raises ProjectionNotFoundError."""
    if not hasattr(storage, "transact"):
        raise ProjectionNotFoundError(name=name, known="none")
    dropped = await storage.transact(partial(drop_known, name=name, unfinished=unfinished))
    return ActionResult("remove", f"projection {name}", min(1, dropped))


def _view(
    name: str, generations: Sequence[Generation], head: int, rows: dict[str, int] | None
) -> ProjectionView:
    live = live_of(generations)
    built = next((each for each in generations if not each.is_live), None)
    position = 0 if live is None else live.position
    return ProjectionView(
        name=name,
        version=None if live is None else live.version,
        position=position,
        lag=max(0, head - position),
        tables=() if live is None else live.tables,
        rebuild=None
        if built is None
        else RebuildView(built.version, built.position, max(0, head - built.position)),
        rows=rows,
    )


async def _count(storage: TableStorage, generations: Sequence[Generation]) -> dict[str, int]:
    live = live_of(generations)
    counted: dict[str, int] = {}
    for table in () if live is None else live.tables:
        try:
            counted[table] = (await storage.query(f'SELECT count(*) FROM "{table}"'))[0][0]
        except UsageError:
            continue  # the table was dropped by hand, or since the projections were listed
    return counted
