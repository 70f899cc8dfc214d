"""What Windows does to files, done by another system: for tests of what pabal does there.

It stands in for two habits: the locks of ``msvcrt``, which are those of byte ranges, and that a file which is
open can neither get another name nor be removed. Linux has such locks, too, and tells what is open.
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

needed = pytest.mark.skipif(fcntl is None, reason="needs the locks and the /proc of Linux")


class Msvcrt:
    """The module ``msvcrt``, as far as it is asked."""

    LK_UNLCK, LK_NBLCK, LK_NBRLCK = 0, 2, 4

    def locking(self, fd: int, mode: int, count: int) -> None:
        """Lock or unlock bytes from the file's position. Raises PermissionError where somebody has them."""
        can_write = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY
        kind = fcntl.F_WRLCK if can_write else fcntl.F_RDLCK
        kind = fcntl.F_UNLCK if mode == self.LK_UNLCK else kind
        first = os.lseek(fd, 0, os.SEEK_CUR)
        try:
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", kind, os.SEEK_SET, first, count, 0))
        except OSError as error:
            raise PermissionError(13, "Permission denied") from error


def pretend(patch: pytest.MonkeyPatch) -> None:
    """Have files behave as on Windows until the test ends."""
    patch.setattr(lifelock, "fcntl", None)
    patch.setattr(lifelock, "msvcrt", Msvcrt())
    for name in ("rename", "replace", "unlink", "remove"):
        patch.setattr(os, name, _refusing(getattr(os, name)))


def _refusing(real: Callable[..., Any]) -> Callable[..., Any]:
    def act(path: Any, *arguments: Any, **named: Any) -> Any:
        if is_open(path):
            raise PermissionError(13, "it is being used by another process", str(path))
        return real(path, *arguments, **named)

    return act


def is_open(path: Any) -> bool:
    """Tell whether this process has a file open."""
    wanted = str(Path(path).absolute())
    for fd in os.listdir("/proc/self/fd"):
        try:
            if os.readlink(f"/proc/self/fd/{fd}") == wanted:
                return True
        except OSError:
            continue  # the one that listed them
    return False
