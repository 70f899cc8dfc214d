"""Examine a log without changing it: the file, the SQLite release, every subscription, every checksum."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal, Protocol

import msgspec

from pabal.delivery.tracebacks import storable
from pabal.domain.counting import counted
from pabal.errors import StorageError
from pabal.ports.inspection import LogFigures
from pabal.ports.storage import SubscriptionRecord
from pabal.ports.views import lag_in

Level = Literal["ok", "warning", "problem"]

_WAL_WARNING_BYTES = 64 * 1024 * 1024
_UNHANDLED_WARNING_AGE = timedelta(days=7)

_FIXED_IN = ((3, 51, 3), (3, 50, 7), (3, 44, 6))
"""Releases with the fix for the WAL-reset bug, which older ones since 3.7.0 have.

Source: the release history at https://sqlite.org/changes.html
"""


class Finding(msgspec.Struct, frozen=True):
    """One finding about a log: its level, a description, and advice (empty if there is nothing to do)."""

    level: Level
    text: str
    advice: str = ""


class Diagnosis(msgspec.Struct, frozen=True):
    """All findings, in the order of the checks."""

    path: str
    findings: tuple[Finding, ...]

    @property
    def level(self) -> Level:
        """Return the most severe level among the findings."""
        levels = {finding.level for finding in self.findings}
        return "problem" if "problem" in levels else "warning" if "warning" in levels else "ok"


class Examined(Protocol):
    """The methods of a storage that the doctor needs."""

    async def measure(self) -> LogFigures:
        """Return the size of the log."""
        ...

    async def noted_durability(self) -> str | None:
        """Return the durability mode of the last process to begin appending; None if it is not stored."""
        ...

    async def check(self, *, progress: Callable[[int, int], None] | None = None) -> list[str]:
        """Return what is wrong with the file, as sentences; report to ``progress`` how far the scan is."""
        ...

    async def list_subscriptions(self) -> list[SubscriptionRecord]:
        """Return every durable subscription."""
        ...

    async def aclose(self) -> None:
        """Close the file."""
        ...


def has_wal_reset_bug(version: tuple[int, int, int]) -> bool:
    """Return whether this SQLite can damage a WAL file when two connections write or checkpoint at once.

    >>> has_wal_reset_bug((3, 40, 1)), has_wal_reset_bug((3, 50, 7)), has_wal_reset_bug((3, 51, 2))
    (True, False, True)
    """
    if version < (3, 7, 0) or version >= _FIXED_IN[0]:
        return False
    return not any(version[:2] == fixed[:2] and version >= fixed for fixed in _FIXED_IN)


async def examine(
    path: str | Path, storage: Examined, *, progress: Callable[[int, int], None] | None = None
) -> Diagnosis:
    """Examine an open log and return the diagnosis. Writes nothing.

    ``progress`` is called with the position up to which events are verified, and the last position.
    """
    where = await asyncio.to_thread(Path(path).absolute)
    findings = [*check_sqlite(sqlite3.sqlite_version_info), await asyncio.to_thread(_check_wal, where)]
    try:
        extent = await storage.measure()
        findings.append(Finding("ok", f"the log has {counted(extent.head, 'position')}"))
        findings += check_durability(await storage.noted_durability())
        findings += check_subscriptions(await storage.list_subscriptions(), extent, datetime.now(UTC))
        findings += report_damage(await storage.check(progress=progress))
    except StorageError as error:
        findings.append(Finding("problem", str(error), "restore a backup, or copy the intact events"))
    return Diagnosis(storable(str(where)), tuple(findings))


def check_sqlite(version: Sequence[int]) -> list[Finding]:
    """Check the SQLite library that this Python uses for known bugs."""
    major, minor, patch = version[:3]
    text = f"SQLite {major}.{minor}.{patch}"
    if not has_wal_reset_bug((major, minor, patch)):
        return [Finding("ok", text)]
    return [
        Finding(
            "warning",
            f"{text} can damage a write-ahead log when two connections write or checkpoint at once",
            "within a process, pabal writes and checkpoints on one connection, so only several processes "
            "on one file are at risk: for these, use a Python with SQLite 3.51.3, 3.50.7, 3.44.6 or later",
        )
    ]


def check_durability(noted: str | None) -> list[Finding]:
    """Describe what the log's durability mode can lose; return nothing if the mode is not known."""
    if noted == "full":
        return [Finding("ok", "durability 'full': an event is on disk before publish() returns")]
    if noted == "normal":
        return [
            Finding(
                "ok",
                "durability 'normal': a power failure may lose the newest events",
                "open the log with durability 'full' if no event may be lost",
            )
        ]
    return []


def check_subscriptions(
    records: Sequence[SubscriptionRecord], extent: LogFigures, now: datetime
) -> list[Finding]:
    """Check the lag, dead letters and state of each subscription."""
    if not records:
        return [Finding("ok", "no durable subscription yet")]
    return [_check_subscription(record, extent, now) for record in records]


def _check_subscription(record: SubscriptionRecord, extent: LogFigures, now: datetime) -> Finding:
    lag = lag_in(record, extent.first, extent.head)
    retries = counted(record.retries, "retry", "retries")
    text = f"subscription {record.name!r}: lag {lag:,}, {retries}, {counted(record.parked, 'dead letter')}"
    if record.queued:
        text += f", {counted(record.queued, 'event')} queued behind a dead letter of the same key"
    if record.halted:
        return Finding(
            "problem",
            f"subscription {record.name!r} {record.halted}",
            "or run pabal subscriptions resume",
        )
    if record.parked:
        return Finding(
            "warning",
            text,
            "list them with pabal dead-letters list, fix the cause, then retry or discard them",
        )
    if lag and record.owner is None:
        unhandled_for = now - record.updated_at
        if unhandled_for > _UNHANDLED_WARNING_AGE:
            return Finding(
                "warning",
                f"{text}; no process has handled it for {unhandled_for.days} days",
                "subscribe under this name again, otherwise its events are never handled",
            )
        return Finding("ok", f"{text}; no process handles it now")
    return Finding("ok", text)


def report_damage(problems: Sequence[str]) -> list[Finding]:
    """Report what the scan of structure and checksums found."""
    if not problems:
        return [Finding("ok", "structure and all checksums are correct")]
    return [
        Finding("problem", text, "restore a backup; intact events can still be read and copied")
        for text in problems
    ]


def _check_wal(path: Path) -> Finding:
    wal = Path(f"{path}-wal")
    size = wal.stat().st_size if wal.exists() else 0
    text = f"write-ahead log {size / 1024 / 1024:.1f} MiB"
    if size <= _WAL_WARNING_BYTES:
        return Finding("ok", text)
    return Finding(
        "warning",
        text,
        "a reader holds an old snapshot, or a process died: close readers, then open the log once",
    )
