"""Show how far a projection is built: a bar on a terminal (extra ``cli``), occasional lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, TextIO

from pabal.domain.counting import counted
from pabal.eventsourcing.pace import BuildProgress, Pace

__all__ = ["show_progress"]

Display = Callable[[BuildProgress], object]


def describe(measured: BuildProgress) -> str:
    """Return how far a build has come, in English.

    >>> describe(BuildProgress(120_000, 1_000_000, 28_000.0))
    '120,000 of 1,000,000 events, 28,000/s, 0:00:31 left'
    """
    text = f"{measured.position:,} of {counted(measured.head, 'event')}"
    if measured.per_second is None:
        return text
    return f"{text}, {measured.per_second:,.0f}/s, {measured.left} left"


@contextmanager
def show_progress(
    label: str,
    *,
    stream: TextIO | None = None,
    every: float = 5.0,
    formatter: Callable[[BuildProgress], str] = describe,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Callable[[int, int], None]]:
    """Yield a ``progress`` callback for a projection's ``start`` or ``rebuild``; clear the display after.

    On a terminal, with ``pabal[cli]`` installed, it shows a bar with events per second and the time left;
    otherwise it prints a line every ``every`` seconds. It shows nothing if nothing is built, or if the build
    ends before the first line is due. ``stream`` defaults to standard error; ``formatter`` makes the
    text, and ``clock`` returns seconds.

    >>> with show_progress("open_orders") as progress:
    ...     pass  # await open_orders.start(progress=progress)
    """
    out: TextIO | None = sys.stderr if stream is None else stream
    pace = Pace(clock)
    with ExitStack() as stack:
        show: Display | None = None

        def progress(position: int, head: int) -> None:
            nonlocal show
            if out is None:
                return  # a program without a console on Windows has no standard error
            if show is None:
                bar = _make_bar_display(label, out, formatter, stack) if out.isatty() else None
                show = bar or _make_line_display(label, out, every, formatter, clock)
            show(pace.measure(position, head))

        yield progress


def _make_line_display(
    label: str,
    stream: TextIO,
    every: float,
    formatter: Callable[[BuildProgress], str],
    clock: Callable[[], float],
) -> Display:
    next_at = clock() + every

    def show(measured: BuildProgress) -> None:
        nonlocal next_at
        now = clock()
        if now >= next_at:
            next_at = now + every
            print(f"{label}: {formatter(measured)}", file=stream, flush=True)

    return show


def _make_bar_display(
    label: str, stream: TextIO, formatter: Callable[[BuildProgress], str], stack: ExitStack
) -> Display | None:
    try:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn
    except ImportError:
        return None
    label_column = TextColumn("{task.description}", markup=False)  # nor emoji: a name may contain both
    columns: list[Any] = [label_column, BarColumn(), TextColumn("{task.fields[text]}")]
    console = Console(file=stream, highlight=False)
    bar = stack.enter_context(Progress(*columns, console=console, transient=True))
    task = bar.add_task(label, total=None, text="")

    def show(measured: BuildProgress) -> None:
        bar.update(task, total=measured.head, completed=measured.position, text=formatter(measured))

    return show
