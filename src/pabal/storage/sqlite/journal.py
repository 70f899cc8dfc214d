"""Which deliveries are being attempted right now, in shared memory that outlives the process.

A handler that kills its process can write nothing any more, so the attempt is noted before it starts. A
row for each would cost a commit; a few bytes in a memory-mapped file cost a third of a microsecond. The
kernel keeps them when the process dies. (A power cut may take them: then no handler was at fault.)

The file is locked for as long as its process lives, which is how others know that it does.
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
# The subscription's number comes last: a slot whose number is set has its other fields complete.
_NUMBER_AT = 24
_ZERO = bytes(8)


class Attempt(NamedTuple):
    """Name the deliveries of one attempt that was under way."""

    first: int
    last: int
    attempt: int
    subscription: int


def journal_path(database: Path, owner: str) -> Path:
    """Return where the journal of an owner lies: beside the database."""
    return database.with_name(f"{database.name}-inflight-{owner}")


class MappedJournal:
    """Note attempts in a memory-mapped file, one slot for each worker.

    Raises StorageUnavailableError where the file cannot be made.
    """

    def __init__(self, database: Path, owner: str) -> None:
        self.path = journal_path(database, owner)
        self._map: mmap.mmap | None = None
        self._database = str(database)
        self._is_inherited = False
        unlocked = self.path
        if lifelock.can_rename_open_files():
            # It gets the name that others look for when it is locked: unlocked, it would be a dead one's.
            # Windows gives what is open no other name, but keeps others from removing it, too.
            unlocked = database.with_name(f"{database.name}-starting-{owner}")
        try:
            self._file = open(unlocked, "w+b", buffering=0)  # noqa: SIM115 - open while the object lives
        except OSError as error:
            raise StorageUnavailableError(path=str(self.path), reason=_said(error)) from error
        try:
            lifelock.hold(self._file)
            if unlocked != self.path:
                unlocked.rename(self.path)
        except OSError as error:
            self._file.close()
            remove_journal(unlocked)
            raise StorageUnavailableError(path=str(self.path), reason=_said(error)) from error

    def reserve(self, slots: int) -> int:
        """Make room for this many more slots and return the first.

        Raises StorageUnavailableError, StorageClosedError.
        """
        if self._is_inherited:
            raise forks.refusal(self._database)
        if self._file.closed:
            raise StorageClosedError(path=self._database, reason="closed")
        known = 0 if self._map is None else len(self._map)
        size = known + max(slots, 1) * _SLOT.size
        try:
            # Zeros are really written: a hole could not be filled any more once the disk is full.
            self._file.seek(known)
            while self._file.tell() < size:
                self._file.write(bytes(size - self._file.tell()))
            grown = mmap.mmap(self._file.fileno(), size)
        except OSError as error:
            raise StorageUnavailableError(path=str(self.path), reason=_said(error)) from error
        if self._map is not None:
            self._map.close()
        self._map = grown
        return known // _SLOT.size

    def begin(self, slot: int, subscription: int, first: int, last: int, attempt: int) -> None:
        """Note that ``slot`` starts an attempt on ``first`` … ``last``."""
        assert self._map is not None
        _SLOT.pack_into(self._map, slot * 32, first, last, attempt, subscription)

    def end(self, slot: int) -> None:
        """Note that the slot's attempt is over."""
        if self._map is None:
            return  # closed under a handler whose event loop was closed, too
        at = slot * 32 + _NUMBER_AT
        self._map[at : at + 8] = _ZERO

    def forked(self) -> None:
        """Let go of the lock in a child: with it, the child would pass for its parent when that has died."""
        self._is_inherited = True
        self._file.close()

    def close(self) -> None:
        """Remove the file: nothing is under way any more."""
        if self._map is not None:
            if not self._file.closed:
                # It says so by itself to whoever comes between, or finds it when it could not be removed.
                self._map[:] = bytes(len(self._map))
            self._map.close()
            self._map = None
        if not self._file.closed:
            # In this order, for Windows removes nothing that is open.
            self._file.close()
            remove_journal(self.path)


def remove_journal(path: Path) -> None:
    """Remove a journal that is of no use any more."""
    try:
        path.unlink(missing_ok=True)
    except OSError:
        pass  # whoever opens the database next finds nothing in it that still counts


def _said(error: OSError) -> str:
    return error.strerror or str(error)


def dead_journals(database: Path, own: str) -> Iterator[tuple[str, Path, list[Attempt]]]:
    """Iterate over the journals whose processes have died: owner, path, attempts that were under way."""
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
            continue  # gone meanwhile, or another user's
        usable = len(content) - len(content) % _SLOT.size
        attempts = [Attempt._make(fields) for fields in _SLOT.iter_unpack(content[:usable])]
        yield owner, path, [attempt for attempt in attempts if attempt.subscription]


def remove_silent_journals(database: Path, own: str) -> None:
    """Remove journals of processes that died in no attempt: their absence tells the same."""
    for _, path, attempts in dead_journals(database, own):
        if not attempts:
            remove_journal(path)


def is_alive(database: Path, owner: str) -> bool:
    """Tell whether an owner's process still holds its journal (True where that cannot be known)."""
    try:
        with open(journal_path(database, owner), "rb", buffering=0) as file:
            return lifelock.is_held(file)
    except FileNotFoundError:
        return False
    except OSError:
        return True
