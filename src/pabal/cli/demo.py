"""``pabal demo``: a small trading application on the durable bus, fed from a tape."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click
import msgspec
from rich.console import Console

from pabal import PabalError, SqliteEventStorage
from pabal.cli.command import Command
from pabal.cli.demo_files import fresh_path, latest_path, resume_command
from pabal.cli.demo_summary import print_summary
from pabal.cli.demo_view import LiveView, PlainView, View
from pabal.cli.language import t
from pabal.cli.translation import translate_error
from pabal.demo.app import TradingDemo
from pabal.demo.errors import RunError
from pabal.demo.events import RunStarted
from pabal.demo.report import Summary
from pabal.demo.runs import find_run, load_tape, plan, tape_of
from pabal.demo.tape import Tape

DEFAULT_SEED = 7
SIMULATED_SPEED = 3000.0
"""Default events per second for the simulated tape: slow enough to watch."""

_INTERRUPTED = 130
_TERMINATED = 143


class Options(msgspec.Struct, frozen=True):
    """The command's options; None for those not given."""

    tape: Path | None
    resume: bool
    new: bool
    file: Path | None
    speed: str | None
    events: int | None
    seed: int | None
    durability: Literal["full", "normal"]
    json: bool
    plain: bool


if TYPE_CHECKING:
    _Text = click.ParamType[str]
else:
    _Text = click.ParamType  # it is not generic in older releases of Click


class Speed(_Text):
    """Accept a positive number of events per second, or ``max``."""

    name = "N|max"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the text if it is valid. Raises BadParameter."""
        text = str(value)
        try:
            is_valid = text == "max" or 0 < float(text) < float("inf")
        except ValueError:
            is_valid = False
        if not is_valid:
            problem = t("{text} is neither a positive number of events per second nor 'max'", text=repr(text))
            self.fail(problem, param, ctx)
        return text


@click.command(cls=Command)
@click.option(
    "--tape",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Play recorded data: a CSV of trades or candles, optionally gzipped. Without it, a simulated tape.",
)
@click.option("--resume", is_flag=True, help="Continue an interrupted run, even one ended by kill -9.")
@click.option("--new", is_flag=True, help="Start a new file beside an unfinished run.")
@click.option(
    "--file",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Path of the log.  [default: pabal-demo.db]",
)
@click.option(
    "--speed",
    type=Speed(),
    help=f"Events per second of the feed.  [default: {SIMULATED_SPEED:.0f} simulated, else max]",
)
@click.option(
    "--events",
    type=click.IntRange(1, 10_000_000),
    metavar="N",
    help="Play only the first N rows; the length of a simulated tape.",
)
@click.option(
    "--seed",
    type=click.IntRange(0),
    metavar="N",
    help=f"Seed of the simulated tape and of the exchange's outages.  [default: {DEFAULT_SEED}]",
)
@click.option(
    "--durability",
    type=click.Choice(["full", "normal"]),
    default="full",
    show_default=True,
    help="full: synced to disk before a publish returns.",
)
@click.option("--json", is_flag=True, help="Print the summary as JSON; progress goes to stderr.")
@click.option("--plain", is_flag=True, help="Print plain lines, as when the output is not a terminal.")
def demo(**arguments: Any) -> None:
    """Run a small trading application on the durable bus.

    Ticks go in; candles, signals, orders, fills and positions are derived from one another over the bus.
    Kill it with kill -9 at any time, and continue with --resume: it ends with the same orders, fills and
    positions as a run that was not killed.
    """
    options = Options(**arguments)
    if options.resume and options.new:
        raise click.UsageError(t("--resume continues an old run, --new starts a new one; use one of them"))
    try:
        summary = asyncio.run(_run_until_terminated(_play(options)))
    except PabalError as error:
        click.echo(f"pabal demo: {translate_error(error)}", err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(_report_stopped(options, _INTERRUPTED))
    except _TerminatedError:
        sys.exit(_report_stopped(options, _TERMINATED))
    if options.json:
        click.echo(msgspec.json.format(msgspec.json.encode(summary), indent=2).decode())
    else:
        print_summary(Console(), summary)
    # A dead letter that the demo did not cause on purpose is a failure.
    sys.exit(0 if all(letter.injected for letter in summary.dead_letters) else 1)


class _TerminatedError(Exception):
    """SIGTERM ended the run."""


async def _run_until_terminated(work: Coroutine[Any, Any, Summary]) -> Summary:
    """Run ``work`` so that SIGTERM stops it as cleanly as Ctrl-C."""
    task = asyncio.ensure_future(work)
    is_terminated = False

    def terminate() -> None:
        nonlocal is_terminated
        is_terminated = True
        task.cancel()

    try:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, terminate)
    except NotImplementedError:
        pass  # not supported on Windows, where closing the console ends the process at once
    try:
        return await task
    except asyncio.CancelledError:
        if is_terminated:
            raise _TerminatedError from None
        raise


def _report_stopped(options: Options, code: int) -> int:
    resume = resume_command(options.file)
    click.echo(
        t("Stopped; all published events are stored. Continue with: {resume}", resume=resume), err=True
    )
    return code


async def _play(options: Options) -> Summary:
    if options.resume:
        path = options.file or latest_path()
        if not path.exists():
            raise RunError(path=str(path), reason="there is nothing to resume; start without --resume")
        storage = SqliteEventStorage(path, durability=options.durability)
        async with storage:
            stored, _ = await find_run(storage)
            run, tape = _new_run(options) if stored is None else _stored_run(options, stored, str(path))
            return await _play_and_show(options, storage, run, tape, path)
    # Read the tape first, so that an invalid one leaves no file behind.
    run, tape = _new_run(options)
    path = await fresh_path(options.file, options.new)
    async with SqliteEventStorage(path, durability=options.durability) as storage:
        return await _play_and_show(options, storage, run, tape, path)


def _new_run(options: Options) -> tuple[RunStarted, Tape]:
    seed = DEFAULT_SEED if options.seed is None else options.seed
    tape = load_tape(options.tape, seed, options.events)
    return plan(tape, seed, options.events), tape


def _stored_run(options: Options, run: RunStarted, path: str) -> tuple[RunStarted, Tape]:
    """Return a stored run with its tape. Raises RunError if the given options contradict it."""
    for name, option, stored in (
        ("seed", options.seed, run.settings.seed),
        ("events", options.events, run.row_limit),
    ):
        if option is not None and option != stored:
            original = "without it" if stored is None else f"with --{name} {stored}"
            raise RunError(
                path=path, reason=f"its run was started {original}; leave --{name} out to resume it"
            )
    return run, tape_of(run, path, options.tape)


async def _play_and_show(
    options: Options, storage: SqliteEventStorage, run: RunStarted, tape: Tape, path: Path
) -> Summary:
    """Play the run, and show it meanwhile."""
    if options.speed is None:
        speed = SIMULATED_SPEED if tape.simulated else None
    else:
        speed = None if options.speed == "max" else float(options.speed)
    trading = TradingDemo(storage, run, tape, speed)
    view = _make_view(options, run, path)
    play_task = asyncio.create_task(trading.play())
    try:
        with view:
            while not play_task.done():
                view.show(trading.snapshot())
                await asyncio.wait({play_task}, timeout=view.interval)
            if play_task.exception() is None:
                view.show(trading.snapshot())
    finally:
        play_task.cancel()
        await asyncio.wait({play_task})
    return msgspec.structs.replace(play_task.result(), file=str(path))


def _make_view(options: Options, run: RunStarted, path: Path) -> View:
    stream = sys.stderr if options.json else sys.stdout
    console = Console(file=stream)
    resume = resume_command(options.file)
    if options.plain or not stream.isatty() or console.is_dumb_terminal:
        return PlainView(Console(file=stream, soft_wrap=True), run, path, os.getpid(), resume)
    return LiveView(console, run, os.getpid(), resume)
