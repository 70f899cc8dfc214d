"""``pabal projections``: the read models in a file; only a rebuild needs their classes."""

from __future__ import annotations

import sys
from contextlib import nullcontext

import click

from pabal.cli.base import (
    REFUSED,
    WRONG_USAGE,
    compose,
    confirm,
    dry_run_option,
    errors_as_exit_codes,
    fail,
    import_module,
    import_option,
    json_option,
    print_dry_run,
    print_json,
    print_result,
    progress,
    row,
    run,
    show,
    table,
    target_argument,
    yes_option,
)
from pabal.cli.command import Group
from pabal.cli.language import counted, t
from pabal.errors import ProjectionNotFoundError, UsageError
from pabal.eventsourcing import Projection
from pabal.eventsourcing.pace import BuildProgress
from pabal.integrations.progress import show_progress
from pabal.operations import Operations
from pabal.ports.operations import ActionResult, ProjectionView

_PROGRESS_LINE_INTERVAL = 2.0
"""Seconds between progress lines if there is no terminal."""


@click.group(cls=Group)
def projections() -> None:
    """List, rebuild and remove the projections of a log."""


@projections.command("list")
@target_argument
@click.option("--rows", is_flag=True, help="Count the rows of every table, which reads the tables in full.")
@json_option
def list_projections(target: str, rows: bool, as_json: bool) -> None:
    """List projections: version, position, lag, tables, and whether one is being rebuilt.

    The position is the last one saved: for a projection that handles few events, it may be up to 10,000
    behind.

    Example: pabal projections list trading.db
    """
    if target.startswith(("redis://", "rediss://")):
        fail(t("projections are kept in the SQLite file of a log; a Redis server has none"), WRONG_USAGE)
    with progress(t("counting"), None) if rows else nullcontext():
        found = run(target, lambda operations: operations.projections(rows=rows))
    if as_json:
        print_json(found)
        return
    projections = table("projection", ">version", ">position", ">lag", "tables", "rebuild")
    for view in found:
        row(
            projections,
            view.name,
            view.version,
            view.position,
            view.lag,
            _tables_cell(view),
            _rebuild_cell(view),
        )
    show(projections, "there is no projection")


def _tables_cell(view: ProjectionView) -> str:
    rows = view.rows or {}
    return ", ".join(
        t("{table} ({rows})", table=each, rows=counted(rows[each], "row")) if each in rows else each
        for each in view.tables
    )


def _rebuild_cell(view: ProjectionView) -> str:
    if view.rebuild is None:
        return ""
    return t(
        "version {version}, at position {position}",
        version=view.rebuild.version,
        position=view.rebuild.position,
    )


@projections.command("rebuild")
@target_argument
@click.argument("model", metavar="MODULE:CLASS")
@compose(import_option, yes_option, json_option)
def rebuild(target: str, model: str, modules: tuple[str, ...], yes: bool, as_json: bool) -> None:
    """Rebuild a projection's tables from the whole log next to the live ones, then swap them in.

    CLASS is a projection in MODULE, which is imported from the current directory or the environment
    and must import every event class. The application may be running; if it runs another version, you
    are asked first. Ctrl-C leaves the live tables unchanged.

    Example: pabal projections rebuild trading.db shop.models:OpenOrders
    """
    with errors_as_exit_codes():
        projection = _load_projection(model)
    live = run(target, lambda operations: _version_of(operations, projection.name))
    if live is not None and live != projection.version:
        question = t(
            "Replace version {live} of {name} by version {version}? Processes that run version {live} stop.",
            version=projection.version,
            name=repr(projection.name),
            live=live,
        )
        confirm(question, yes=yes)

    async def act(operations: Operations) -> ActionResult:
        with show_progress(
            projection.name, every=_PROGRESS_LINE_INTERVAL, formatter=_describe_progress
        ) as progress:
            return await operations.rebuild_projection(projection, progress=progress)

    print_result(run(target, act, modules=modules), as_json=as_json)


def _load_projection(model: str) -> type[Projection]:
    module_name, _, class_name = model.partition(":")
    if not module_name or not class_name:
        raise UsageError("name a class: MODULE:CLASS")
    import_module(module_name)
    found = getattr(sys.modules[module_name], class_name, None)
    if not isinstance(found, type) or not issubclass(found, Projection) or found is Projection:
        raise UsageError(f"{module_name!r} has no projection named {class_name!r}; write MODULE:CLASS")
    return found


async def _version_of(operations: Operations, name: str) -> int | None:
    return next((view.version for view in await operations.projections() if view.name == name), None)


def _describe_progress(measured: BuildProgress) -> str:
    fields = {"position": f"{measured.position:,}", "events": counted(measured.head, "event")}
    if measured.per_second is None:
        return t("{position} of {events}", **fields)
    fields |= {"rate": f"{measured.per_second:,.0f}", "left": str(measured.left)}
    return t("{position} of {events}, {rate}/s, {left} left", **fields)


@projections.command("remove")
@target_argument
@click.argument("name")
@click.option("--unfinished", is_flag=True, help="Drop only the tables of an unfinished rebuild.")
@compose(dry_run_option, yes_option, json_option)
def remove(target: str, name: str, unfinished: bool, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Drop a projection's tables and its position, so that it no longer holds back retention.

    Its class does not have to exist any more. A running projection stops; one that is started again is
    rebuilt.

    Example: pabal projections remove trading.db open_orders
    """
    question = run(target, lambda operations: _removal_question(operations, name, unfinished))
    if question is None:
        fail(t("there is no unfinished rebuild of {name}", name=repr(name)), REFUSED)
    if dry_run:
        print_dry_run(question, ActionResult("remove", f"projection {name}", 1), as_json=as_json)
        return
    confirm(question, yes=yes)
    result = run(target, lambda operations: operations.remove_projection(name, unfinished=unfinished))
    print_result(result, as_json=as_json)
    if not result.count:
        fail(t("there is no unfinished rebuild of {name}", name=repr(name)), REFUSED)


async def _removal_question(operations: Operations, name: str, unfinished: bool) -> str | None:
    """Return the question to confirm, or None if there is nothing to drop."""
    views = {view.name: view for view in await operations.projections()}
    if name not in views:
        raise ProjectionNotFoundError(name=name, known=", ".join(views) or "none")
    view = views[name]
    if unfinished:
        if view.rebuild is None:
            return None
        return t(
            "Drop the unfinished rebuild of {name}, up to position {position}? "
            "If it is still running, it fails.",
            name=repr(name),
            position=view.rebuild.position,
        )
    totals = (await operations.overview()).totals
    fields = {"name": repr(name), "tables": ", ".join(view.tables) or "–"}
    if totals.events < totals.head:
        return t(
            "Drop {name} and its tables ({tables}) for good? The log was trimmed: they cannot be rebuilt.",
            **fields,
        )
    return t("Drop {name} and its tables ({tables})? Only its class can rebuild them.", **fields)
