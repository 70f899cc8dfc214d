"""``pabal backup``, ``check``, ``retention``, ``vacuum`` and ``audit``: maintain the file of a log."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import click

from pabal.cli.base import (
    REFUSED,
    WRONG_USAGE,
    actor,
    compose,
    confirm,
    dry_run_option,
    errors_as_exit_codes,
    fail,
    json_option,
    limit_option,
    moment,
    print_json,
    progress,
    readable,
    row,
    run,
    show,
    table,
    target_argument,
    yes_option,
)
from pabal.cli.command import Command
from pabal.cli.language import counted, language, t
from pabal.cli.translation import translate
from pabal.delivery.tracebacks import storable
from pabal.domain.counting import counted as counted_in_english
from pabal.errors import PabalError
from pabal.factory import open_log
from pabal.korean import outcome_in_korean
from pabal.ports.operations import AuditEntry
from pabal.storage.sqlite import SqliteEventStorage
from pabal.storage.sqlite.maintenance import Progress
from pabal.storage.sqlite.retention import Trimmed

T = TypeVar("T")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def _on_file(
    target: str,
    text: str,
    act: Callable[[SqliteEventStorage, Progress], Awaitable[T]],
    total: int | None = 100,
) -> T:
    """Run ``act`` on a file and show its progress; ``total`` is None if it reports none."""

    async def main() -> T:
        async with open_log(target) as storage:
            with progress(text, total) as percent:
                return await act(storage, lambda done, total: percent(100 * done // max(1, total)))

    with errors_as_exit_codes():
        return asyncio.run(main())


async def _audited(
    storage: SqliteEventStorage, action: str, act: Callable[[], Awaitable[T]], describe: Callable[[T], str]
) -> T:
    """Run ``act`` and record it in the audit log, with the text that ``describe`` makes of its result."""
    entry_id = await storage.begin_action(actor(), action, storable(storage.path), None)
    try:
        done = await act()
    except PabalError as error:
        await storage.finish_action(entry_id, f"{type(error).__name__}: {error}", succeeded=False)
        raise
    except BaseException as error:
        await storage.finish_action(entry_id, type(error).__name__, succeeded=False)
        raise
    await storage.finish_action(entry_id, describe(done), succeeded=True)
    return done


@click.command(cls=Command)
@target_argument
@click.argument("copy", type=click.Path(path_type=Path))
def backup(target: str, copy: Path) -> None:
    """Copy a log to a new file while it is in use.

    Example: pabal backup trading.db trading-copy.db
    """
    _on_file(target, t("copying"), lambda storage, progress: storage.backup(copy, progress=progress))
    click.echo(t("{size} bytes in {path}", size=f"{copy.stat().st_size:,}", path=copy))


@click.command(cls=Command)
@target_argument
@json_option
def check(target: str, as_json: bool) -> None:
    """Verify a log's structure and every checksum; exits with 1 if anything is wrong.

    Example: pabal check trading.db
    """
    problems = _on_file(target, t("checking"), lambda storage, progress: storage.check(progress=progress))
    if as_json:
        print_json({"problems": problems})
    else:
        for problem in problems:
            click.echo(readable(translate(problem)))
        if not problems:
            click.echo(t("structure and all checksums are correct"))
    sys.exit(REFUSED if problems else 0)


@click.command(cls=Command)
@target_argument
@click.option("--max-age", help="Delete events older than this: 12h, 30d, 8w.")
@click.option("--max-events", type=click.IntRange(1), help="Keep this many of the newest events.")
@click.option(
    "--max-bytes",
    type=click.IntRange(1),
    help="Delete the oldest events until at most this many bytes are in use.",
)
@compose(dry_run_option, yes_option, json_option)
def retention(
    target: str,
    max_age: str | None,
    max_events: int | None,
    max_bytes: int | None,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Delete old events, but never any that a subscription has not finished.

    Example: pabal retention trading.db --max-age 30d
    """
    if max_age is None and max_events is None and max_bytes is None:
        fail(t("choose what to delete: --max-age, --max-events or --max-bytes"), WRONG_USAGE)
    age = None if max_age is None else _parse_age(max_age)

    def trim(storage: SqliteEventStorage, progress: Progress | None = None) -> Awaitable[Trimmed]:
        return storage.trim(
            max_age=age,
            max_events=max_events,
            max_bytes=max_bytes,
            dry_run=progress is None,
            progress=progress,
        )

    due = _on_file(target, t("measuring"), lambda storage, _: trim(storage), None)
    total = run(target, lambda operations: operations.overview()).totals.events
    question = t(
        "Delete the {count} oldest of {events}?", count=f"{due.deleted:,}", events=counted(total, "event")
    )
    if dry_run:
        _print_trimmed(due, question, as_json=as_json)
        if not as_json:
            click.echo(t("nothing was changed"))
        return
    if due.deleted:
        confirm(question, yes=yes)
    done = _on_file(
        target,
        t("deleting"),
        lambda storage, progress: _audited(
            storage, "retention", lambda: trim(storage, progress), _describe_trimmed
        ),
    )
    _print_trimmed(done, counted(done.deleted, "event deleted", "events deleted"), as_json=as_json)


def _describe_trimmed(done: Trimmed) -> str:
    held = f", held back by {', '.join(done.held_back_by)}" if done.held_back_by else ""
    return counted_in_english(done.deleted, "event deleted", "events deleted") + held


def _print_trimmed(trimmed: Trimmed, text: str, *, as_json: bool) -> None:
    if as_json:
        print_json(trimmed)
        return
    click.echo(text)
    if trimmed.held_back_by:
        click.echo(readable(t("held back by {names}", names=", ".join(trimmed.held_back_by))))


def _parse_age(text: str) -> timedelta:
    found = re.fullmatch(r"(\d{1,6})([smhdw])", text)
    if found is None:
        fail(t("{text} is not an age; write 12h, 30d or 8w", text=repr(text)), WRONG_USAGE)
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


@click.command(cls=Command)
@target_argument
def vacuum(target: str) -> None:
    """Shrink the file by the space that deleted events left behind.

    Example: pabal vacuum trading.db
    """
    done = _on_file(
        target,
        t("giving space back"),
        lambda storage, _: _audited(
            storage, "vacuum", storage.vacuum, lambda done: f"{done.freed_bytes:,} bytes given back"
        ),
        None,
    )
    click.echo(t("{size} bytes given back", size=f"{done.freed_bytes:,}"))


@click.command(cls=Command)
@target_argument
@compose(limit_option, json_option)
@click.option("--before", type=click.IntRange(1), help="Start before this number.")
def audit(target: str, limit: int, as_json: bool, before: int | None) -> None:
    """List operator actions, newest first: who did what and when, and the result.

    Example: pabal audit trading.db
    """
    found = run(target, lambda operations: operations.audit(before=before, limit=limit))
    if as_json:
        print_json(found)
        return
    entries = table(">number", "time", "who", "action", "subject", "result")
    for entry in found:
        row(entries, entry.id, moment(entry.at), entry.actor, entry.action, entry.subject, _result_of(entry))
    show(entries, "the audit log is empty")


def _result_of(entry: AuditEntry) -> str:
    if entry.succeeded is None:
        return t("not finished")
    return entry.result if language() == "en" else outcome_in_korean(entry.result)
