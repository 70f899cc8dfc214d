"""Run rivals in turn, A B C A B C …, so that disturbances of the machine affect all of them."""

from __future__ import annotations

import asyncio
import gc
import importlib
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from benchmarks.model import Entry, Series

T = TypeVar("T")
ROOT = Path(__file__).resolve().parent.parent
_TERMINAL = 100


class Settings(msgspec.Struct, frozen=True):
    """How much to measure, and where to put files."""

    runs: int = 5
    quick: bool = False
    data: Path = Path("build/benchmarks")
    rivals: tuple[str, ...] = ()
    """Names of the rivals to measure; empty for all."""

    def size(self, full: int, quick: int) -> int:
        """Return the number of events (or whatever is counted) for this run."""
        return quick if self.quick else full

    def wants(self, rival: str) -> bool:
        """Return whether a rival is to be measured."""
        return not self.rivals or rival in self.rivals


@contextmanager
def fresh_folder(settings: Settings) -> Iterator[Path]:
    """Yield an empty folder on the disk under test, and remove it afterwards."""
    settings.data.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=settings.data))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def say(text: str, *, end: str = "\n") -> None:
    """Print progress for the user on stderr; results go to stdout."""
    print(text, end=end, file=sys.stderr, flush=True)


def progress(text: str) -> None:
    """Overwrite the terminal's current line; '' clears it. Prints nothing if stderr is not a terminal."""
    if sys.stderr.isatty():
        say(f"\r{text[:_TERMINAL].ljust(_TERMINAL)}" + ("" if text else "\r"), end="")


def installed(distribution: str) -> str | None:
    """Return the version of an installed distribution, or None."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def interleave(entries: Sequence[Entry], runs: int, *, warm_up: bool = True) -> list[Series]:
    """Measure every entry once per round, ``runs`` rounds, and return their series.

    A first round warms caches and is discarded. An entry that raises is not measured again; its series have
    no samples, and say what happened.
    """
    collected: dict[int, list[dict[str, float]]] = {index: [] for index in range(len(entries))}
    failed: dict[int, str] = {}
    rounds = range(-1 if warm_up else 0, runs)
    try:
        for number in rounds:
            # Keep the collector from traversing the objects of all imported libraries during a measurement.
            gc.collect()
            gc.freeze()
            for index, entry in enumerate(entries):
                if entry.missing or index in failed:
                    continue
                progress(f"round {number + 1}/{runs}  {entry.case} · {entry.rival}")
                gc.collect()
                try:
                    figures = dict(entry.measure())
                except Exception as error:
                    failed[index] = f"failed: {type(error).__name__}: {error}".replace(f"{ROOT}/", "")
                    progress("")
                    traceback.print_exc()
                    continue
                if number >= 0:
                    collected[index].append(figures)
    finally:
        gc.unfreeze()
        progress("")
    return [
        _series(entry, metric, collected[index], failed.get(index, ""))
        for index, entry in enumerate(entries)
        for metric in entry.metrics
    ]


def _series(entry: Entry, metric: str, rounds: list[dict[str, float]], failure: str) -> Series:
    samples = () if failure else tuple(figures[metric] for figures in rounds)
    return Series(
        case=entry.case,
        rival=entry.rival,
        metric=metric,
        samples=samples,
        version=entry.version,
        durability=entry.durability,
        events=entry.events,
        note=entry.missing or failure or entry.note,
    )


LoopFactory = Callable[[], asyncio.AbstractEventLoop]


def loop_factory(name: str) -> LoopFactory | None:
    """Return a factory for event loops of a kind, or None if uvloop is not installed."""
    if name == "asyncio":
        return asyncio.new_event_loop
    try:
        factory: LoopFactory = importlib.import_module("uvloop").new_event_loop
    except ImportError:
        return None
    return factory


def run(work: Coroutine[Any, Any, T], factory: LoopFactory | None = None) -> T:
    """Run a coroutine on a fresh event loop."""
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(work)


class IncompleteError(Exception):
    """A rival did not handle every event, so its figure would be meaningless."""


def expect_handled(rival: str, seen: int, expected: int) -> None:
    """Raise IncompleteError unless every event was handled."""
    if seen != expected:
        raise IncompleteError(f"{rival} handled {seen} of {expected} events")
