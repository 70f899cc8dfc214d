"""The report of a full run, in Markdown."""

from __future__ import annotations

import os
import platform
import sqlite3
import subprocess
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from pabal import __version__
from tests.crash.check import Findings

WORDS = ("lost", "duplicate", "hole", "non-monotonic", "corrupt", "unseen", "out of order", "skipped")


_HEAD = """\
# Reliability of the SQLite storage

[한국어](reliability.ko.md) · [README](../README.md) · [Guide](guide.md)

What `make test-crash` found. It starts processes and kills them with `kill -9`, cuts the power of a
simulated disk, and lets processes share one file; then it compares what publishers were told, and handlers
saw, with what the file holds. `make test` does the same in a short form, and fills the disk."""

_WORDS_MEAN = """\
The words: *lost* – acked and not in the log; *duplicate* – stored twice, or handled again after that was
saved; *hole* – a position without an event; *non-monotonic* – positions that contradict the order of
publishing; *corrupt* – found by SQLite's integrity check; *unseen* – stored and never handled; *out of
order* – handled before an earlier event of its key; *skipped* – the cursor and what was handled differ."""


class Report:
    """Collect sections, tables and failures; print them as they come."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self.failures: list[str] = []

    def section(self, title: str, text: str) -> None:
        self._parts.append(f"## {title}\n\n{text}")
        print(f"\n## {title}\n\n{text}\n", flush=True)

    def table(self, head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        numbers = "|".join(["---", *["---:"] * (len(head) - 1)])
        lines = [f"| {' | '.join(head)} |", f"|{numbers}|"]
        lines += [f"| {' | '.join(map(_shown, row))} |" for row in rows]
        self._parts.append("\n".join(lines))
        print("\n".join(lines), flush=True)

    def add_failure(self, what: str) -> None:
        self.failures.append(what)
        print(f"FAILED: {what}", flush=True)

    def add_findings(self, name: str, findings: Findings) -> list[object]:
        """Record what was found wrong, and return its counts as the columns of WORDS."""
        if findings.wrong:
            self.add_failure(f"{name}: {findings}")
        return [findings.wrong[word] for word in WORDS]

    def text(self, folder: Path, seconds: float) -> str:
        outcome = (
            "Nothing that must not happen did."
            if not self.failures
            else "**This did not hold:**\n\n" + "\n".join(f"- {one}" for one in self.failures)
        )
        facts = (
            f"- {datetime.now(UTC):%Y-%m-%d}, {seconds / 60:.0f} minutes, {os.cpu_count()} cores\n"
            f"- pabal {__version__}, Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, "
            f"{platform.system()} {platform.release().partition('-')[0]}\n"
            f"- disk: {_disk(folder)}"
        )
        head = [_HEAD, outcome, facts, _WORDS_MEAN]
        return "\n\n".join([*head, *self._parts]) + "\n"


FUZZED = "Damaged bytes for the decoder and the opener of files"
"""Title of the section that ``make test-fuzz`` writes; a full run keeps that section."""


def section_in(page: Path, title: str) -> str:
    """Return a section of a page with its heading, or ''."""
    text = page.read_text("utf-8") if page.exists() else ""
    _, found, rest = text.partition(f"\n## {title}\n")
    return f"## {title}\n{rest.partition(chr(10) + '## ')[0]}".rstrip() if found else ""


def put_section(page: Path, title: str, text: str) -> None:
    """Write a section into a page, replacing the one with that title or at the end."""
    whole = page.read_text("utf-8").rstrip()
    known = section_in(page, title)
    new = f"## {title}\n\n{text}"
    page.write_text((whole.replace(known, new) if known else f"{whole}\n\n{new}") + "\n", "utf-8")


def _shown(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def _disk(folder: Path) -> str:
    """Describe the file system of the databases."""
    shown = subprocess.run(
        ["df", "--output=fstype", str(folder)], capture_output=True, text=True, check=False
    )
    kind = (shown.stdout.split() or ["", "unknown"])[-1]
    return f"{kind}, {_sync_time(folder) * 1000:.2f} ms for a synced write of 4 KiB (median)"


def _sync_time(folder: Path) -> float:
    times = []
    file = os.open(folder / "sync.probe", os.O_RDWR | os.O_CREAT)
    try:
        for number in range(101):
            os.pwrite(file, b"x" * 4096, number * 4096)
            begun = time.perf_counter()
            os.fdatasync(file)
            times.append(time.perf_counter() - begun)
    finally:
        os.close(file)
    return sorted(times)[50]
