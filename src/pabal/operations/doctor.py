"""Examine a log without changing it: the file, SQLite itself, every subscription, every checksum."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal, Protocol

import msgspec

from pabal.delivery.tracebacks import storable
from pabal.errors import StorageError
from pabal.ports.inspection import LogFigures
from pabal.ports.storage import SubscriptionRecord
from pabal.ports.views import lag_in

Level = Literal["ok", "warning", "problem"]

_LARGE_WAL = 64 * 1024 * 1024
_LONG_AGO = timedelta(days=7)

_FIXED_IN = ((3, 51, 3), (3, 50, 7), (3, 44, 6))
"""Releases of SQLite with the fix for the WAL-reset bug; older ones of 3.7.0 and later have it.

Source: the release history at https://sqlite.org/changes.html
"""


class Finding(msgspec.Struct, frozen=True):
    """Say one thing about a log: how grave it is, what it is, and what to do (empty if nothing)."""

    level: Level
    text: str
    advice: str = ""


class Diagnosis(msgspec.Struct, frozen=True):
    """Hold everything found, in the order it was looked at."""

    path: str
    findings: tuple[Finding, ...]

    @property
    def level(self) -> Level:
        """Return the gravest level among the findings."""
        levels = {finding.level for finding in self.findings}
        return "problem" if "problem" in levels else "warning" if "warning" in levels else "ok"


class Examined(Protocol):
    """Be a storage as far as the doctor needs it."""

    async def measure(self) -> LogFigures:
        """Return the extent of the log."""
        ...

    async def noted_durability(self) -> str | None:
        """Return that of the process that was last to begin appending; None where it is not written down."""
        ...

    async def check(self, *, progress: Callable[[int, int], None] | None = None) -> list[str]:
        """Return what is wrong with the file, in sentences; tell ``progress`` how far it is."""
        ...

    async def list_subscriptions(self) -> list[SubscriptionRecord]:
        """Return every durable subscription."""
        ...

    async def aclose(self) -> None:
        """Let go of the file."""
        ...


def has_wal_reset_bug(version: tuple[int, int, int]) -> bool:
    """Tell whether this SQLite can damage a WAL file when two connections write or checkpoint at once.

    >>> has_wal_reset_bug((3, 40, 1)), has_wal_reset_bug((3, 50, 7)), has_wal_reset_bug((3, 51, 2))
    (True, False, True)
    """
    if version < (3, 7, 0) or version >= _FIXED_IN[0]:
        return False
    return not any(version[:2] == fixed[:2] and version >= fixed for fixed in _FIXED_IN)


async def examine(
    path: str | Path, storage: Examined, *, progress: Callable[[int, int], None] | None = None
) -> Diagnosis:
    """Examine an open log and return the diagnosis; nothing is written.

    ``progress`` is called with the position up to which events are verified, and the last one.
    """
    where = await asyncio.to_thread(Path(path).absolute)
    findings = [*look_at_sqlite(sqlite3.sqlite_version_info), await asyncio.to_thread(_look_at_wal, where)]
    try:
        extent = await storage.measure()
        findings.append(Finding("ok", f"the log has {extent.head:,} positions"))
        findings += look_at_durability(await storage.noted_durability())
        findings += look_at_subscriptions(await storage.list_subscriptions(), extent, datetime.now(UTC))
        findings += look_at_damage(await storage.check(progress=progress))
    except StorageError as error:
        findings.append(Finding("problem", str(error), "restore a backup, or copy what is intact"))
    return Diagnosis(storable(str(where)), tuple(findings))


def look_at_sqlite(version: Sequence[int]) -> list[Finding]:
    """Judge the SQLite library that this Python uses."""
    major, minor, patch = version[:3]
    text = f"SQLite {major}.{minor}.{patch}"
    if not has_wal_reset_bug((major, minor, patch)):
        return [Finding("ok", text)]
    return [
        Finding(
            "warning",
            f"{text} can damage a write-ahead log when two connections write or checkpoint at once",
            "pabal lets one connection of a process write and checkpoint, so this concerns several processes "
            "on one file: use a Python with SQLite 3.51.3, 3.50.7, 3.44.6 or later for that",
        )
    ]


def look_at_durability(noted: str | None) -> list[Finding]:
    """Say what the mode in which events are written can lose; nothing where it is not known."""
    if noted == "full":
        return [Finding("ok", "durability 'full': an event is on the disk before its publish returns")]
    if noted == "normal":
        return [
            Finding(
                "ok",
                "durability 'normal': a power cut may take the newest events",
                "open the log with durability 'full' where none may be lost",
            )
        ]
    return []


def look_at_subscriptions(
    records: Sequence[SubscriptionRecord], extent: LogFigures, now: datetime
) -> list[Finding]:
    """Judge how far each subscription has come."""
    if not records:
        return [Finding("ok", "no durable subscription yet")]
    return [_look_at(record, extent, now) for record in records]


def _look_at(record: SubscriptionRecord, extent: LogFigures, now: datetime) -> Finding:
    lag = lag_in(record, extent.first, extent.head)
    text = (
        f"subscription {record.name!r}: lag {lag:,}, {record.retries} retries, {record.parked} dead letters"
    )
    if record.queued:
        text += f", {record.queued} events queued behind a dead letter of their key"
    if record.halted:
        return Finding(
            "problem",
            f"subscription {record.name!r} {record.halted}",
            "pabal subscriptions resume lets it go on, too",
        )
    if record.parked:
        return Finding("warning", text, "look at bus.dead_letters, fix the cause, then retry or discard them")
    if lag and record.owner is None:
        silent = now - record.updated_at
        if silent > _LONG_AGO:
            return Finding(
                "warning",
                f"{text}; nobody has handled it for {silent.days} days",
                "subscribe under this name again, or the events wait for ever",
            )
        return Finding("ok", f"{text}; nobody handles it now")
    return Finding("ok", text)


def look_at_damage(problems: Sequence[str]) -> list[Finding]:
    """Judge what the scan of structure and checksums found."""
    if not problems:
        return [Finding("ok", "structure and every checksum are right")]
    return [
        Finding("problem", text, "restore a backup; what is intact can still be read and copied")
        for text in problems
    ]


def _look_at_wal(path: Path) -> Finding:
    wal = Path(f"{path}-wal")
    size = wal.stat().st_size if wal.exists() else 0
    text = f"write-ahead log {size / 1024 / 1024:.1f} MiB"
    if size <= _LARGE_WAL:
        return Finding("ok", text)
    return Finding(
        "warning",
        text,
        "a reader holds an old snapshot, or a process died: close readers, then open the log once",
    )
