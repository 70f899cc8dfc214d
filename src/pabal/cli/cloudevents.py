"""CloudEvents on the command line: a format of ``pabal events export``, and ``pabal events import``."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import nullcontext
from itertools import islice
from typing import Any, TextIO

import click
import msgspec

from pabal.cli.base import (
    errors_as_exit_codes,
    fail_without_class,
    import_classes,
    import_option,
    json_text,
    progress,
    target_argument,
)
from pabal.cli.command import Command
from pabal.cli.language import counted, t
from pabal.errors import InvalidEventError, PabalError, UnknownEventTypeError
from pabal.factory import open_log
from pabal.integrations.cloudevents import from_cloudevent, view_to_cloudevent
from pabal.ports.operations import EventView
from pabal.storage.sqlite.storage import SqliteEventStorage

_BATCH = 500
_TEXT_FILE = click.File(encoding="utf-8-sig")  # files from Windows may begin with a byte order mark

format_option = click.option(
    "--format",
    "form",
    type=click.Choice(["json", "cloudevents"]),
    default="json",
    show_default=True,
    help="pabal's own JSON lines, or CloudEvents 1.0.",
)
source_option = click.option(
    "--source",
    default="/pabal",
    show_default=True,
    help="Source of the CloudEvents: a URI reference that names the application.",
)


def line_of(event: EventView, form: str, source: str) -> str:
    """Return an event as one line of JSON in the chosen format."""
    value: Any = view_to_cloudevent(event, source) if form == "cloudevents" else event
    return json_text(value, indent=-1)


@click.command("import", cls=Command)
@target_argument
@click.option("--input", "-i", "lines", type=_TEXT_FILE, default="-", help="File to read from.")
@import_option
def import_events(target: str, lines: TextIO, modules: tuple[str, ...]) -> None:
    """Import CloudEvents from JSON lines; events that are already stored are left unchanged.

    Each line is a CloudEvent 1.0 whose type is an event type of a module named by --import. They are stored
    500 at a time. An invalid line stops the import and is reported; the batches before it stay stored.

    Example: pabal events import trading.db --import trading.events
    """
    with errors_as_exit_codes():
        import_classes(modules)
        # No progress bar while the user types the lines: it would be drawn over them.
        with nullcontext() if lines.isatty() else progress(t("importing"), None):
            stored, existing = asyncio.run(_store(target, lines))
    text = counted(stored, "event stored", "events stored")
    click.echo(f"{text}, {t('{count} were there already', count=existing)}" if existing else text, err=True)


async def _store(target: str, lines: TextIO) -> tuple[int, int]:
    """Store the events that are new; return how many were stored, and how many were there already."""
    stored = existing = 0
    storage = open_log(target) if "://" in target else SqliteEventStorage(target)
    async with storage:
        head = await storage.head()
        events = _parse_events(lines)
        while batch := list(islice(events, _BATCH)):
            positions = await storage.store_events(batch)
            new = len({position for position in positions if position > head})
            stored += new
            existing += len(batch) - new
            head = max(head, *positions)
    return stored, existing


def _parse_events(lines: TextIO) -> Iterator[Any]:
    number = 0
    while True:
        number += 1
        try:
            line = lines.readline()
        except UnicodeDecodeError as error:
            raise InvalidEventError(f"line {number}: not UTF-8 text") from error
        if not line:
            return
        if not line.strip():
            continue
        try:
            yield from_cloudevent(msgspec.json.decode(line, type=dict[str, Any]))
        except UnknownEventTypeError as error:
            fail_without_class(InvalidEventError(f"line {number}: {error}"))
        except (PabalError, msgspec.MsgspecError) as error:
            raise InvalidEventError(f"line {number}: {error}") from error
