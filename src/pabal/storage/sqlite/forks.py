"""Refuse, in a forked child, the database files that were open when its parent forked.

The child inherits SQLite's record of its locks, but not the locks themselves. It would write without locking,
and lose its writes when the parent closes the file: https://sqlite.org/howtocorrupt.html
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol
from weakref import WeakKeyDictionary

from pabal.errors import StorageUnavailableError

_REASON = "this process was forked while the file was open; close it before a fork, or open it after one"


class Forkable(Protocol):
    """An object that holds a file's connections or journal open; in a forked child, ``forked`` is called."""

    def forked(self) -> None:
        """Refuse all calls from now on, and touch nothing that belongs to the parent."""
        ...


_opened: WeakKeyDictionary[Forkable, Path] = WeakKeyDictionary()
_inherited: list[Forkable] = []
"""Kept alive for ever: if a connection were freed in the child, it would touch the parent's file."""
_forked_files: set[tuple[int, int]] = set()
"""Device and inode number of every file that was open at a fork."""


def refusal(path: str) -> StorageUnavailableError:
    """Return the error to raise in a forked child."""
    return StorageUnavailableError(path=path, reason=_REASON)


def register(path: Path, *holders: Forkable) -> None:
    """Register the objects that hold a file open."""
    _opened.update(dict.fromkeys(holders, path))


def unregister(*holders: Forkable) -> None:
    """Unregister objects that have closed their file."""
    for holder in holders:
        _opened.pop(holder, None)


def check(path: Path) -> None:
    """Raise StorageUnavailableError for a file that was open when this process was forked."""
    if _forked_files and file_id(path) in _forked_files:
        raise refusal(str(path))


def file_id(path: str | Path) -> tuple[int, int] | None:
    """Return a file's device and inode number, or None if there is none at this path."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _after_fork_in_child() -> None:
    for holder, path in tuple(_opened.items()):
        holder.forked()
        _inherited.append(holder)
        found = file_id(path)
        if found is not None:
            _forked_files.add(found)
    _opened.clear()


if hasattr(os, "register_at_fork"):  # pragma: no branch - Windows has none
    os.register_at_fork(after_in_child=_after_fork_in_child)
