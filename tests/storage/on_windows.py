"""Imitate on Linux how Windows treats files, to test how pabal deals with it.

Two things are imitated: the byte-range locks of ``msvcrt``, and that an open file can neither be renamed nor
removed. Linux has byte-range locks, too, and shows which files are open.
"""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pabal.storage.sqlite import lifelock

fcntl: Any = None
if sys.platform == "linux":
    import fcntl

needs_linux = pytest.mark.skipif(fcntl is None, reason="needs the locks and the /proc of Linux")


class Msvcrt:
    """The part of the module ``msvcrt`` that pabal uses."""

    LK_UNLCK, LK_NBLCK, LK_NBRLCK = 0, 2, 4

    def locking(self, fd: int, mode: int, count: int) -> None:
        """Lock or unlock bytes from the file's position. Raises PermissionError if they are locked."""
        can_write = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY
        kind = fcntl.F_WRLCK if can_write else fcntl.F_RDLCK
        kind = fcntl.F_UNLCK if mode == self.LK_UNLCK else kind
        first = os.lseek(fd, 0, os.SEEK_CUR)
        try:
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", kind, os.SEEK_SET, first, count, 0))
        except OSError as error:
            raise PermissionError(13, "Permission denied") from error


def imitate_windows(patch: pytest.MonkeyPatch) -> None:
    """Make files behave as on Windows until the test ends."""
    patch.setattr(lifelock, "fcntl", None)
    patch.setattr(lifelock, "msvcrt", Msvcrt())
    for name in ("rename", "replace", "unlink", "remove"):
        patch.setattr(os, name, _unless_open(getattr(os, name)))


def _unless_open(real: Callable[..., Any]) -> Callable[..., Any]:
    def act(path: Any, *arguments: Any, **named: Any) -> Any:
        if is_open(path):
            raise PermissionError(13, "it is being used by another process", str(path))
        return real(path, *arguments, **named)

    return act


def is_open(path: Any) -> bool:
    """Return whether this process has a file open."""
    wanted = str(Path(path).absolute())
    for fd in os.listdir("/proc/self/fd"):
        try:
            if os.readlink(f"/proc/self/fd/{fd}") == wanted:
                return True
        except OSError:
            continue  # the descriptor that listed the folder
    return False
