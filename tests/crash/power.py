"""Power cuts: run a process on the simulated disk, and check what each cut would leave. Promise 3."""

from __future__ import annotations

import random
import shutil
import sqlite3
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from pabal import SqliteEventStorage
from tests.crash.check import Findings
from tests.crash.child import Settings
from tests.crash.disk.image import WRITTEN, Disk, Image, entries
from tests.crash.laboratory import Child
from tests.crash.record import ACKED

_MEMORY = Path("/dev/shm")


@dataclass
class PowerReport:
    """The power cuts that were checked, and the findings."""

    durability: str
    acked: int = 0
    cuts: int = 0
    images: int = 0
    torn: int = 0
    """Number of images in which some of the unsynced sectors survived."""
    opened: int = 0
    """Number of images that pabal opened and checked."""
    most_lost: int = 0
    """The most acked events that one cut lost."""
    findings: Findings = field(default_factory=Findings)


async def run_on_simulated_disk(
    library: Path, folder: Path, durability: str, acks: int, seed: int = 1
) -> tuple[Path, Path]:
    """Publish and handle until ``acks`` publishes have returned; return the disk's log and the database."""
    disk = folder / "disk"
    disk.mkdir(parents=True)
    log = folder / "disk.log"
    settings = Settings(
        str(disk / "log.db"),
        str(disk / "acks.record"),
        durability=durability,
        publishers=2,
        per_publisher=-(-acks // 2),
        checkpoint_pages=30,
        seed=seed,
    )
    child = await Child.start(settings, preload=library, DISK_ROOT=str(disk), DISK_LOG=str(log))
    assert await child.wait_for_exit() == 0
    return log, disk / "log.db"


class PowerCuts:
    """Go through a disk's log and cut the power after every ack, and at instants in between."""

    def __init__(self, folder: Path, log: Path, database: Path, durability: str, seed: int = 1) -> None:
        self.report = PowerReport(durability)
        # Some thousand images are written, checked and deleted, so do it in memory if possible.
        self._folder = Path(tempfile.mkdtemp(dir=_MEMORY if _MEMORY.is_dir() else folder))
        self._log = log
        self._name = database.name
        self._chance = random.Random(seed)
        self._expected = _positions(database)
        self._acked: set[int] = set()
        self._last_checked = (-1, -1)

    async def all(
        self, *, between: float = 0.02, torn: float = 0.1, open_every: int = 50, most: int | None = None
    ) -> PowerReport:
        """Cut after each ack and at a share of the instants in between, and open some of the images.

        ``torn`` is the share of cuts that are checked a second time, with some unsynced sectors in place. The
        run ends after ``most`` cuts.
        """
        disk = Disk()
        records: set[int] = set()
        rest = b""
        for entry in entries(self._log):
            disk.apply(entry)
            if entry.kind in (1, 2) and entry.data.endswith(b".record"):
                records.add(entry.file)
            acked = False
            if entry.kind == WRITTEN and entry.file in records:
                *lines, rest = (rest + entry.data).split(b"\n")
                acked = self._record_acks(lines)
            if acked or self._chance.random() < between:
                await self._cut(disk, torn, open_every)
            if self.report.cuts == most:
                break
        shutil.rmtree(self._folder)
        self.report.acked = len(self._acked)
        return self.report

    def _record_acks(self, lines: list[bytes]) -> bool:
        acks = [line.split()[1] for line in lines if line.startswith(ACKED.encode() + b" ")]
        self._acked.update(map(int, acks))
        return bool(acks)

    async def _cut(self, disk: Disk, torn: float, open_every: int) -> None:
        self.report.cuts += 1
        if self._last_checked != (disk.changes, len(self._acked)):
            # If nothing was synced or acked since the last image, it would be the same.
            self._last_checked = (disk.changes, len(self._acked))
            self.report.images += 1
            await self._check_image(disk.after_power_cut(), open_it=self.report.images % open_every == 0)
        if self._chance.random() < torn:
            self.report.torn += 1
            image = disk.after_power_cut(self._chance)
            await self._check_image(image, open_it=self.report.torn % open_every == 0)

    async def _check_image(self, image: Image, *, open_it: bool) -> None:
        for old in self._folder.iterdir():
            old.unlink()
        for name, content in image.items():
            if not name.endswith(".record"):
                (self._folder / name).write_bytes(content)
        path = self._folder / self._name
        where = f"cut {self.report.cuts} ({len(self._acked)} acked)"
        if open_it:
            await self._open(path, where)
        left = self._read(path, where) if path.exists() else 0
        lost = sum(position > left for position in self._acked)
        self.report.most_lost = max(self.report.most_lost, lost)
        if lost and self.report.durability == "full":
            self.report.findings.add("lost", f"{where}: {lost} acked events")

    def _read(self, path: Path, where: str) -> int:
        """Return how many events are left; they must be the first ones, intact, and no cursor beyond them."""
        findings = self.report.findings
        connection = sqlite3.connect(path, isolation_level=None)
        try:
            connection.execute("PRAGMA synchronous = OFF")  # this copy is thrown away
            for (text,) in connection.execute("PRAGMA integrity_check"):
                if text != "ok":
                    findings.add("corrupt", f"{where}: {text}")
            if not connection.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'events'").fetchone()[
                0
            ]:
                return 0
            rows = connection.execute("SELECT position, event_id, payload FROM events ORDER BY 1").fetchall()
            (ahead,) = connection.execute("SELECT coalesce(max(frontier), 0) FROM subscriptions").fetchone()
        except sqlite3.DatabaseError as error:
            findings.add("corrupt", f"{where}: {error}")
            return 0
        finally:
            connection.close()
        if rows != self._expected[: len(rows)]:
            findings.add("hole", f"{where}: the {len(rows)} events left are not the first ones")
        if ahead > len(rows):
            findings.add("skipped", f"{where}: a cursor stands at {ahead}, the log ends at {len(rows)}")
        return len(rows)

    async def _open(self, path: Path, where: str) -> None:
        """Open the image with pabal, and check it."""
        self.report.opened += 1
        async with SqliteEventStorage(path) as storage:
            for problem in await storage.check():
                self.report.findings.add("corrupt", f"{where}: {problem}")


def _positions(database: Path) -> list[tuple[int, bytes, bytes]]:
    connection = sqlite3.connect(database)
    try:
        return connection.execute("SELECT position, event_id, payload FROM events ORDER BY 1").fetchall()
    finally:
        connection.close()
