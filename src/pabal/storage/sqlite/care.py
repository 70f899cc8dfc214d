"""The storage's methods that take care of its file: backup, check, trim, vacuum and rebuild."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pabal.storage.sqlite import maintenance, rebuild, retention
from pabal.storage.sqlite.maintenance import Progress
from pabal.storage.sqlite.retention import Trimmed, Vacuumed

if TYPE_CHECKING:
    from pabal.storage.sqlite.reader import Reader
    from pabal.storage.sqlite.transaction import Transaction

T = TypeVar("T")


class SqliteCare:
    """Copy, verify and shrink the file; a part of ``SqliteEventStorage``, which owns reader and writer."""

    if TYPE_CHECKING:
        path: str
        _reader: Reader

        def _do(self, action: Callable[[Transaction], T]) -> asyncio.Future[T]: ...

    async def backup(self, path: str | Path, *, progress: Progress | None = None) -> None:
        """Copy the database, as it is at this moment, to a new file; the original stays in use meanwhile.

        ``progress(copied_bytes, all_bytes)`` is called from time to time. A backup that fails or is cancelled
        leaves no file. Raises StorageUnavailableError if the new file exists or cannot be written.
        """
        told = _in_the_loop(progress)
        await self._reader.run_long(lambda c, cancelled: maintenance.copy(c, Path(path), told, cancelled))

    async def check(self, *, progress: Progress | None = None) -> list[str]:
        """Verify the file's structure and every event's checksum; return a sentence for each problem.

        An empty list means that nothing is wrong. Reads the whole file, which stays in use meanwhile.
        ``progress(position, head)`` is called from time to time once the structure has been verified.
        """
        told = _in_the_loop(progress)
        return await self._reader.run_long(lambda c, cancelled: maintenance.check(c, self.path, told))

    async def trim(
        self,
        *,
        max_age: timedelta | None = None,
        max_events: int | None = None,
        max_bytes: int | None = None,
        dry_run: bool = False,
        progress: Progress | None = None,
    ) -> Trimmed:
        """Delete events older than ``max_age``, beyond the newest ``max_events``, or beyond ``max_bytes``.

        An event that exceeds any of the limits is deleted; its age counts from when it was stored. Raises
        UsageError if no limit is given or one is negative. Deletes in small commits, so that publishers can
        continue, and returns when all is done. Whatever the limits say, it keeps the newest event, events
        that a subscription has not finished or is to replay, and events not yet in a projection's tables;
        ``held_back_by`` names those subscriptions and projections. Dead letters have their own copies. The
        history of aggregates is deleted too: do not trim a log from which aggregates are loaded, nor the
        last step of a process manager that may continue, because that step is its state. ``max_bytes``
        counts the used part of the file, indexes included. The file keeps its size and new events fill the
        free space; ``vacuum`` returns it. ``dry_run`` only reports what would be deleted.
        ``progress(deleted, all_due)`` is called after each commit. A cancelled trim keeps its commits.
        """
        retention.check_limits(max_age, max_events, max_bytes)
        bound = await self._do(lambda tx: retention.find_bound(tx, max_age, max_events, max_bytes))
        if dry_run:
            return Trimmed(bound.events, bound.held_back_by)

        def on_deleted(deleted: int) -> None:
            if progress is not None:
                progress(deleted, max(deleted, bound.events))

        deleted = await retention.delete_upto(bound.upto, self._do, on_deleted)
        return Trimmed(deleted, bound.held_back_by)

    async def vacuum(self) -> Vacuumed:
        """Return free space in the file to the file system, in small commits; return how many bytes it was.

        Publishers can continue meanwhile, and no second copy of the file is needed. The file itself becomes
        shorter at the next checkpoint, when SQLite copies its write-ahead log into it.
        """
        freed = 0
        while gone := await self._do(retention.vacuum_slice):
            freed += gone
            await asyncio.sleep(retention.SLICE_SECONDS)
        return Vacuumed(freed, await self._do(retention.used_bytes))

    async def rebuild(self, path: str | Path) -> int:
        """Copy the log into a new file, event by event, with new indexes; return the number of events.

        Use it to repair damaged indexes or to compact the file. Subscriptions, dead letters, scheduled
        events, the audit log and projections are copied too, and a projection's rebuild continues where it
        was. If the tables of a projection cannot be read completely, they are left out with a warning and
        built again at its next start. The application's own tables are not copied. Every checksum is
        verified: raises CorruptLogError at the first damaged event and leaves no file. Raises
        StorageUnavailableError if the new file exists or cannot be written.
        """
        return await self._reader.run_long(
            lambda c, cancelled: rebuild.rebuild(c, self.path, Path(path), cancelled)
        )


def _in_the_loop(progress: Progress | None) -> Progress:
    """Wrap ``progress`` so that a reader thread can call it: it then runs in the current event loop."""
    if progress is None:
        return lambda done, total: None
    loop = asyncio.get_running_loop()
    return lambda done, total: loop.call_soon_threadsafe(progress, done, total)
