"""Record which deliveries are being attempted, in a memory-mapped file that survives the process.

A handler that kills its process leaves no chance to write anything, so each attempt is recorded before it
starts. A row per attempt would cost a commit; a few bytes in a memory-mapped file cost a third of a
microsecond, and the kernel keeps them when the process dies. (A power cut may lose them, but then no handler
was at fault.)

A process keeps its journal locked for as long as it lives, so others can tell whether it is alive.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path
from struct import Struct
from typing import NamedTuple

from pabal.errors import StorageClosedError, StorageUnavailableError
from pabal.storage.sqlite import forks, lifelock

_SLOT = Struct("<qqqq")
"""An ``Attempt``. The subscription's number is written last: once it is set, the others are complete."""
_SIZE = _SLOT.size
_NUMBER_AT = _SIZE - 8
_ZERO = bytes(8)


class Attempt(NamedTuple):
    """An attempt under way: positions ``first`` to ``last`` of one subscription, in one handler call."""

    first: int
    last: int
    attempt: int
    subscription: int


def journal_path(database: Path, owner: str) -> Path:
    """Return the path of an owner's journal: beside the database, named after both."""
    return database.with_name(f"{database.name}-inflight-{owner}")


class MappedJournal:
    """Record attempts in a memory-mapped file, one slot per worker.

    Raises StorageUnavailableError if the file cannot be created.
    """

    def __init__(self, database: Path, owner: str) -> None:
        self.path = journal_path(database, owner)
        self._map: mmap.mmap | None = None
        self._database = str(database)
        self._is_inherited = False
        unlocked = self.path
        if lifelock.can_rename_open_files():
            # Give the file the name that others look for only once it is locked: an unlocked journal counts
            # as a dead process's. Windows cannot rename an open file, but nobody can remove one there either.
            unlocked = database.with_name(f"{database.name}-starting-{owner}")
        try:
            self._file = open(unlocked, "w+b", buffering=0)  # noqa: SIM115 - open while the object lives
        except OSError as error:
            raise StorageUnavailableError(path=str(self.path), reason=_describe_error(error)) from error
        try:
            lifelock.hold(self._file)
            if unlocked != self.path:
                unlocked.rename(self.path)
        except OSError as error:
            self._file.close()
            remove_journal(unlocked)
            raise StorageUnavailableError(path=str(self.path), reason=_describe_error(error)) from error

    def reserve(self, slots: int) -> int:
        """Add this many slots and return the number of the first.

        Raises StorageUnavailableError, StorageClosedError.
        """
        if self._is_inherited:
            raise forks.refusal(self._database)
        if self._file.closed:
            raise StorageClosedError(path=self._database, reason="closed")
        known = 0 if self._map is None else len(self._map)
        size = known + max(slots, 1) * _SIZE
        try:
            # Write real zeros: a hole in the file could not be filled later if the disk is full.
            self._file.seek(known)
            while self._file.tell() < size:
                self._file.write(bytes(size - self._file.tell()))
            grown = mmap.mmap(self._file.fileno(), size)
        except OSError as error:
            raise StorageUnavailableError(path=str(self.path), reason=_describe_error(error)) from error
        if self._map is not None:
            self._map.close()
        self._map = grown
        return known // _SIZE

    def begin(self, slot: int, subscription: int, first: int, last: int, attempt: int) -> None:
        """Record that ``slot`` starts an attempt on positions ``first`` to ``last``."""
        assert self._map is not None
        _SLOT.pack_into(self._map, slot * _SIZE, first, last, attempt, subscription)

    def end(self, slot: int) -> None:
        """Record that the slot's attempt is over."""
        if self._map is None:
            return  # the journal was closed while a handler ran, whose event loop was closed as well
        at = slot * _SIZE + _NUMBER_AT
        self._map[at : at + 8] = _ZERO

    def forked(self) -> None:
        """Give up the lock in a forked child: otherwise the parent would seem alive while the child lives."""
        self._is_inherited = True
        self._file.close()

    def close(self) -> None:
        """Close and remove the file; no attempt is under way any more."""
        if self._map is not None:
            if not self._file.closed:
                # Clear it first, for a process that reads it before it is removed, or if removing it fails.
                self._map[:] = bytes(len(self._map))
            self._map.close()
            self._map = None
        if not self._file.closed:
            # Close before removing: Windows removes no open file.
            self._file.close()
            remove_journal(self.path)


def remove_journal(path: Path) -> None:
    """Remove a journal that is no longer needed."""
    try:
        path.unlink(missing_ok=True)
    except OSError:
        pass  # left behind, it does no harm: nothing in it counts any more


def _describe_error(error: OSError) -> str:
    return error.strerror or str(error)


def dead_journals(database: Path, own: str) -> Iterator[tuple[str, Path, list[Attempt]]]:
    """Iterate over the journals of dead processes: owner, path, and the attempts that were under way."""
    prefix = f"{database.name}-inflight-"
    for path in sorted(database.parent.iterdir()):
        owner = path.name.removeprefix(prefix)
        if owner in (own, path.name):
            continue
        try:
            with open(path, "rb", buffering=0) as file:
                if lifelock.is_held(file):
                    continue
                content = file.readall()
        except OSError:
            continue  # gone by now, or owned by another user
        usable = len(content) - len(content) % _SIZE
        attempts = [Attempt._make(fields) for fields in _SLOT.iter_unpack(content[:usable])]
        yield owner, path, [attempt for attempt in attempts if attempt.subscription]


def remove_silent_journals(database: Path, own: str) -> None:
    """Remove journals of processes that died outside of any attempt: without attempts they say nothing."""
    for _, path, attempts in dead_journals(database, own):
        if not attempts:
            remove_journal(path)


def is_alive(database: Path, owner: str) -> bool:
    """Return whether an owner's process still holds its journal; True if that cannot be determined."""
    try:
        with open(journal_path(database, owner), "rb", buffering=0) as file:
            return lifelock.is_held(file)
    except FileNotFoundError:
        return False
    except OSError:
        return True
