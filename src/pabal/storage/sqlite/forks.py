"""A file that was open when a process forked must not be used in the child: SQLite cannot have that.

The child inherits what SQLite knows of its locks, but not the locks. It would write without any, and what it
wrote would be gone when the parent closes the file: https://sqlite.org/howtocorrupt.html
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol
from weakref import WeakKeyDictionary

from pabal.errors import StorageUnavailableError

_REASON = "this process was forked while the file was open; close it before a fork, or open it after one"


class Opened(Protocol):
    """Hold connections to a file, or its journal, and be told that this is a child now."""

    def forked(self) -> None:
        """Refuse everything from now on, and touch nothing that belongs to the parent."""
        ...


_opened: WeakKeyDictionary[Opened, Path] = WeakKeyDictionary()
_inherited: list[Opened] = []
"""Kept for good: freed in the child, a connection would touch the parent's file."""
_places: set[tuple[int, int]] = set()
"""The device and the number there of every file that was open at a fork."""


def refusal(path: str) -> StorageUnavailableError:
    """Return the error that a child is told."""
    return StorageUnavailableError(path=path, reason=_REASON)


def enter(path: Path, *holders: Opened) -> None:
    """Note who holds something of a file open."""
    _opened.update(dict.fromkeys(holders, path))


def leave(*holders: Opened) -> None:
    """Note that it is closed."""
    for holder in holders:
        _opened.pop(holder, None)


def check(path: Path) -> None:
    """Raise StorageUnavailableError for a file that was open when this process was forked."""
    if _places and _place(path) in _places:
        raise refusal(str(path))


def _place(path: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _in_child() -> None:
    for holder, path in tuple(_opened.items()):
        holder.forked()
        _inherited.append(holder)
        place = _place(path)
        if place is not None:
            _places.add(place)
    _opened.clear()


if hasattr(os, "register_at_fork"):  # pragma: no branch - Windows has none
    os.register_at_fork(after_in_child=_in_child)
