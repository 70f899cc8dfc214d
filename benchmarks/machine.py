"""Describe the machine of a measurement: CPU, Python, disk, versions."""

from __future__ import annotations

import os
import platform
import sqlite3
import statistics
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from benchmarks.harness import installed

_SYNCS = 200
_BLOCK = b"\0" * 4096

DISTRIBUTIONS = (
    "pabal",
    "msgspec",
    "uvloop",
    "pyee",
    "blinker",
    "nautilus_trader",
    "bubus",
    "abxbus",
    "eventsourcing",
    "persist-queue",
    "litequeue",
    "huey",
)


class Environment(msgspec.Struct, frozen=True):
    """The properties of a machine, without its name."""

    cpu: str
    cores: int
    memory_gib: float
    system: str
    python: str
    sqlite: str
    filesystem: str
    sync_us: float
    sync_low_us: float
    sync_high_us: float
    load: float
    """The average number of processes that wanted a core in the minute before."""
    date: str
    versions: dict[str, str]

    @property
    def line(self) -> str:
        """Return the line below every table."""
        return (
            f"{self.cpu}, {self.cores} cores · {self.python} · SQLite {self.sqlite} · disk sync "
            f"{self.sync_us:.0f} µs ({self.sync_low_us:.0f}–{self.sync_high_us:.0f}), {self.filesystem} · "
            f"load before {self.load:.1f} · {self.date}"
        )

    def is_like(self, other: Environment) -> bool:
        """Return whether figures of both machines may be in one report."""
        return (self.cpu, self.cores, self.python) == (other.cpu, other.cores, other.python)


def describe(data: Path) -> Environment:
    """Describe this machine; the latency of its disk is measured in ``data``."""
    data.mkdir(parents=True, exist_ok=True)
    syncs = sync_latencies(data)
    return Environment(
        cpu=_cpu(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory_gib=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        system=f"{platform.system()} {platform.release().partition('-')[0]}",
        python=f"{platform.python_implementation()} {platform.python_version()}",
        sqlite=sqlite3.sqlite_version,
        filesystem=_filesystem(data),
        sync_us=statistics.median(syncs),
        sync_low_us=min(syncs),
        sync_high_us=max(syncs),
        load=os.getloadavg()[0],
        date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        versions={name: installed(name) or "not installed" for name in DISTRIBUTIONS},
    )


def sync_latencies(folder: Path) -> list[float]:
    """Return the microseconds of many writes of 4 KiB, each followed by a sync to disk."""
    path = folder / f"sync-{os.getpid()}"
    sync = getattr(os, "fdatasync", os.fsync)
    file = os.open(path, os.O_CREAT | os.O_RDWR)
    try:
        latencies: list[float] = []
        for number in range(_SYNCS):
            start = time.perf_counter()
            os.pwrite(file, _BLOCK, number * len(_BLOCK))
            sync(file)
            latencies.append((time.perf_counter() - start) * 1e6)
        return latencies
    finally:
        os.close(file)
        path.unlink()


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return " ".join(line.partition(":")[2].split())
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _filesystem(folder: Path) -> str:
    """Return the type of file system that holds a folder (Linux), or the platform's name."""
    best, kind = "", sys.platform
    try:
        mounts = Path("/proc/mounts").read_text().splitlines()
    except OSError:
        return kind
    place = str(folder.resolve())
    for line in mounts:
        _, point, filesystem, *_ = line.split()
        inside = point == "/" or place == point or place.startswith(point + "/")
        if inside and len(point) >= len(best):
            best, kind = point, filesystem
    return kind
