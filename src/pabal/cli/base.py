"""Code shared by all commands: options, opening the target, errors as exit codes, output."""

from __future__ import annotations

import asyncio
import getpass
import importlib
import os
import re
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, NoReturn, TypeVar

import click
import msgspec
from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from pabal.cli.language import t
from pabal.cli.translation import translate_error
from pabal.errors import PabalError, StorageError, UsageError
from pabal.factory import open_operations
from pabal.operations import Masking, Operations
from pabal.ports.operations import ActionResult, EventFilter
from pabal.ports.records import AttemptFailure

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

REFUSED = 1
"""Exit code: something asked for does not exist, or cannot be done now."""
WRONG_USAGE = 2
"""Exit code: the command line, a filter or a URL is invalid."""
UNAVAILABLE = 3
"""Exit code: the file is not a log, is damaged, or cannot be opened."""
INTERRUPTED = 130
_MIN_COLUMN_WIDTH = 10
"""The average width of columns below which names and times would be cut into pieces too short to read."""
_BEYOND_ASCII = "\x80-\x9f\u2028-\u202e\u2066-\u2069"
_CONTROL_CHARACTERS = re.compile(f"[\x00-\x08\n-\x1f\x7f{_BEYOND_ASCII}]")
"""Characters that control a terminal, begin a line, or change the direction of reading."""
_CONTROLS_IN_JSON = re.compile(f"[{_BEYOND_ASCII}]")
"""Those of them that JSON may contain unescaped."""


def compose(*decorators: Callable[[Any], Any]) -> Callable[[F], F]:
    """Return one decorator that applies several, with the first one outermost."""

    def decorate(function: F) -> F:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


target_argument = click.argument("target", metavar="FILE|URL")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
limit_option = click.option(
    "--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="Show at most this many."
)
payloads_option = click.option(
    "--payloads",
    type=click.Choice(["none", "masked", "full"]),
    default="masked",
    show_default=True,
    help="Hide all payload values, those of fields such as email or token, or nothing; only full shows error "
    "messages and tracebacks.",
)
yes_option = click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
dry_run_option = click.option("--dry-run", is_flag=True, help="Show what would be done, without doing it.")
import_option = click.option(
    "--import",
    "modules",
    multiple=True,
    metavar="MODULE",
    help="Import this module first, to register its event classes.",
)
filter_options = compose(
    click.option("--type", "types", multiple=True, help="Event type, or a pattern such as order.*"),
    click.option("--aggregate", default="", help="Aggregate: type/id, or an id alone."),
    click.option("--correlation", default="", help="Correlation id, or the id of the chain's first event."),
    click.option(
        "--since", default="", help="Age such as 15m, 2h or 3d, or a time such as 2026-05-01T09:30."
    ),
    click.option("--until", default="", help="End of the time range, in the same format."),
)


def event_filter(
    types: Sequence[str], aggregate: str, correlation: str, since: str, until: str
) -> EventFilter:
    """Return the filter that the options describe. Raises InvalidFilterError."""
    from pabal.operations import parse_filter

    return parse_filter(
        {
            "type": tuple(types),
            "aggregate": aggregate,
            "correlation": correlation,
            "since": since,
            "until": until,
        },
        local=True,  # as ``moment`` prints them
    )


def run(
    target: str,
    act: Callable[[Operations], Awaitable[T]],
    *,
    payloads: Any = "full",
    modules: Iterable[str] | None = None,
) -> T:
    """Open the target, run ``act`` on it, and close it; an error ends the process with its exit code.

    A command that needs event classes passes ``modules``, those that the user named.
    """

    async def main() -> T:
        async with open_operations(target, masking=Masking(payloads), actor=actor()) as operations:
            return await act(operations)

    with errors_as_exit_codes():
        if modules is not None:
            import_classes(modules)
        return asyncio.run(main())


@contextmanager
def errors_as_exit_codes() -> Iterator[None]:
    """End the process with a message and an exit code if a known error is raised."""
    try:
        yield
    except UsageError as error:
        fail(translate_error(error), WRONG_USAGE)
    except StorageError as error:
        fail(translate_error(error), UNAVAILABLE)
    except PabalError as error:
        fail(translate_error(error), REFUSED)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def fail(text: str, code: int) -> NoReturn:
    """Print an error message, and exit with the code."""
    click.echo(f"pabal: {readable(text)}", err=True)
    sys.exit(code)


def fail_without_class(error: PabalError) -> NoReturn:
    """Print an error about an event whose class is unknown, and how to name it; exit with code 1."""
    fail(f"{translate_error(error)} ({t('name the module of the event class with --import')})", REFUSED)


def import_classes(modules: Iterable[str]) -> None:
    """Import the user's modules, and the events that pabal itself stores. Raises UsageError."""
    importlib.import_module("pabal.cqrs")  # not at the top: commands that show events need no classes
    for module in modules:
        import_module(module)


def import_module(name: str) -> None:
    """Import a module of the user's, also from the working directory. Raises UsageError."""
    if not name or name.startswith("."):
        raise UsageError(f"cannot import {name!r}: it is not the name of a module")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        importlib.import_module(name)
    except ImportError as error:
        raise UsageError(f"cannot import {name!r}: {error}") from error


def actor() -> str:
    """Return the name for the audit log: the operating system's user."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # before Python 3.13 it imports pwd, missing on Windows
        return f"uid {os.getuid()}" if hasattr(os, "getuid") else "unknown"


# -- output ---------------------------------------------------------------------------------------------


def readable(text: str) -> str:
    """Return a text from elsewhere as one line, with the characters that control the terminal escaped."""
    return _CONTROL_CHARACTERS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def verbatim(text: str) -> str:
    """Return a text so that a console prints it as it is: markup and control characters are escaped."""
    return escape(readable(text))


def console(*, err: bool = False) -> Console:
    """Return a console; without a terminal, or with NO_COLOR, it prints plain text."""
    return Console(highlight=False, emoji=False, soft_wrap=True, stderr=err)


def json_text(value: Any, *, indent: int = 2) -> str:
    """Return a value as JSON, indented or (with ``indent`` -1) on one line, that is safe on a terminal."""
    encoded = msgspec.json.encode(value)
    text = (encoded if indent < 0 else msgspec.json.format(encoded, indent=indent)).decode()
    if text.isascii():
        return text
    return _CONTROLS_IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def print_json(value: Any) -> None:
    """Print a value as indented JSON."""
    click.echo(json_text(value))


def table(*columns: str) -> Table:
    """Return a table with translated headings; ``>`` before a heading aligns its column to the right."""
    new_table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        justify: Any = "right" if column.startswith(">") else "left"
        new_table.add_column(t(column.removeprefix(">")), justify=justify, overflow="fold")
    return new_table


def row(filled: Table, *cells: Any) -> None:
    """Add a row of plain values."""
    filled.add_row(*(Text(readable("" if cell is None else str(cell))) for cell in cells))


def show(filled: Table, empty: str) -> None:
    """Print a table, or the sentence ``empty`` if it has no rows."""
    out = Console(highlight=False, emoji=False)
    if not filled.row_count:
        click.echo(t(empty))
    elif not out.is_terminal:
        _print_lines(filled)
    else:
        out.print(filled if out.width >= _MIN_COLUMN_WIDTH * len(filled.columns) else _transposed(filled))


def _print_lines(filled: Table) -> None:
    """Print each row on one line, however long it is: for files, and for programs such as grep."""
    columns = [[str(column.header), *map(str, column.cells)] for column in filled.columns]
    for column, cells in zip(filled.columns, columns, strict=True):
        width = max(map(cell_len, cells))
        for number, cell in enumerate(cells):
            gap = " " * (width - cell_len(cell))
            cells[number] = gap + cell if column.justify == "right" else cell + gap
    for line in zip(*columns, strict=True):
        print("  ".join(line).rstrip())  # not click.echo, which ignores how the stream encodes


def _transposed(original: Table) -> Table:
    """Return a table with one line per cell, after its heading, and an empty line between rows."""
    transposed = Table(box=None, pad_edge=False, show_header=False)
    transposed.add_column(style="bold", no_wrap=True)
    transposed.add_column(overflow="fold")
    for number, cells in enumerate(zip(*(column.cells for column in original.columns), strict=True)):
        if number:
            transposed.add_row()
        for column, cell in zip(original.columns, cells, strict=True):
            transposed.add_row(column.header, cell)
    return transposed


def moment(at: datetime | None) -> str:
    """Format a time in the local time zone."""
    return "" if at is None else at.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def print_hidden(payloads: str, failures: Sequence[AttemptFailure]) -> None:
    """Say how to see the messages and tracebacks of failed attempts, if they were hidden."""
    if failures and payloads != "full":
        click.echo(t("error messages and tracebacks are hidden: --payloads full shows them"), err=True)


def print_result(result: ActionResult, *, as_json: bool = False) -> None:
    """Print the result of an action."""
    if as_json:
        print_json(result)
        return
    text = t("{count} done", count=result.count)
    if result.skipped:
        text += ", " + t("{count} left unchanged", count=result.skipped)
    if result.position is not None:
        text += ", " + t("now at position {position}", position=result.position)
    if result.pending and result.count:
        text += "; " + t("takes effect when the subscription is handled next")
    click.echo(text)


def confirm(question: str, *, yes: bool) -> None:
    """Ask for confirmation unless ``yes``; if the user declines, exit with code 1 and change nothing."""
    question = readable(question)
    while not yes:
        answer = _ask(f"{question} [y/N]: ")
        match answer.strip().lower():
            case "" | "n" | "no":
                fail(t("nothing was changed"), REFUSED)
            case "y" | "yes":
                return
        click.echo(t("Error: {message}", message=t("answer y or n")), err=True)


def _ask(question: str) -> str:
    """Ask on standard error and return the answer; standard output is for results.

    Not click.confirm, whose message for an invalid answer is always English, nor click.prompt: some versions
    of that write a part of the question to standard output.
    """
    try:
        click.echo(question, nl=False, err=True)
        answer = sys.stdin.readline()
        if not answer:
            raise EOFError
    except (KeyboardInterrupt, EOFError):
        click.echo(err=True)  # start a new line for the message that follows
        raise click.Abort from None  # its context still tells which of the two it was
    return answer


def print_dry_run(question: str, plan: Any, *, as_json: bool) -> None:
    """Print the plan as JSON, or the question and that nothing was changed, without waiting for an answer."""
    if as_json:
        print_json(plan)
        return
    click.echo(readable(question))
    click.echo(t("nothing was changed"))


@contextmanager
def progress(text: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Show a progress bar on a terminal; yield the function that updates it."""
    out = console(err=True)
    if not out.is_terminal:
        yield lambda done: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

    columns: list[Any] = [SpinnerColumn(), TextColumn("{task.description}")]
    if total is not None:
        columns += [BarColumn(), MofNCompleteColumn()]
    with Progress(*columns, console=out, transient=True) as bar:
        task = bar.add_task(text, total=total)
        yield lambda done: bar.update(task, completed=done)
