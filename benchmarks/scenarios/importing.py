"""What does the first line of a program cost?"""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial

from benchmarks.harness import Settings, installed, interleave
from benchmarks.model import PABAL, Entry, Metrics, Outcome, Table

NAME = "import"
CASE = "import"
METRIC = "ms"
HEAVY = "event loop or database modules"
DOMAIN = "pabal.domain"
_HEAVY_MODULES = {
    "asyncio",
    "selectors",
    "ssl",
    "concurrent.futures",
    "sqlite3",
    "_sqlite3",
    "asyncpg",
    "redis",
    "uvloop",
}

# (name, statement, distribution)
_STATEMENTS = (
    (PABAL, "import pabal", "pabal"),
    (DOMAIN, "import pabal.domain", "pabal"),
    ("pabal, everything for a durable bus", "from pabal import DomainEvent, EventBusFactory", "pabal"),
    ("asyncio", "import asyncio", None),
    ("sqlite3", "import sqlite3", None),
    ("msgspec", "import msgspec", "msgspec"),
    ("pyee", "import pyee.asyncio", "pyee"),
    ("blinker", "import blinker", "blinker"),
    ("huey", "import huey", "huey"),
    ("litequeue", "import litequeue", "litequeue"),
    ("persist-queue", "import persistqueue", "persist-queue"),
    ("eventsourcing", "import eventsourcing.application", "eventsourcing"),
    ("bubus", "import bubus", "bubus"),
    ("abxbus", "import abxbus", "abxbus"),
    ("nautilus_trader", "import nautilus_trader.common.component", "nautilus_trader"),
)


_PROGRAM = """
import json, sys, time
before = set(sys.modules)
start = time.perf_counter()
{statement}
seconds = time.perf_counter() - start
print(json.dumps([seconds, sorted(set(sys.modules) - before)]))
"""


def timed_import(statement: str) -> Metrics:
    """Import in a fresh interpreter; return the time, and the number of heavy modules that were loaded."""
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM.format(statement=statement)],
        capture_output=True,
        text=True,
        check=True,
    )
    seconds, loaded = json.loads(done.stdout)
    return {METRIC: seconds * 1000, HEAVY: float(len(_HEAVY_MODULES & set(loaded)))}


def measure(settings: Settings) -> Outcome:
    """Measure in fresh interpreters."""
    entries: list[Entry] = []
    for name, statement, distribution in _STATEMENTS:
        version = installed(distribution) if distribution else ""
        if settings.wants(name):
            entries.append(
                Entry(
                    CASE,
                    name,
                    (METRIC, HEAVY),
                    partial(timed_import, statement),
                    version or "",
                    "–",
                    missing="not installed" if version is None else "",
                )
            )
    return Outcome(
        scenario=NAME,
        title="Importing",
        text=(
            "Each import runs in a fresh interpreter, with compiled files present. The second column counts "
            "the event loop and database modules that the import loads. `import pabal` loads names when they "
            "are first used; the third line shows what a program with a durable bus pays."
        ),
        tables=(Table("Time to import", (METRIC, HEAVY), "", NAME, lower_is_better=True),),
        series=tuple(interleave(entries, max(settings.runs, 5))),
    )
