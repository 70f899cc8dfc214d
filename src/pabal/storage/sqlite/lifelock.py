"""Lock a file for as long as its process lives; however the process ends, the system releases the lock.

On POSIX this is ``flock``. Windows locks ranges of bytes, others cannot read a locked range, and Python has
no access to shared locks there. So the locked range lies far behind the end of the file, and a process that
checks the lock tries a single random byte of it: two that check at once do not take each other for the owner.
"""

from __future__ import annotations

import os
import random
import sys
import time
from io import FileIO
from typing import Any

fcntl: Any = None
msvcrt: Any = None
if sys.platform == "win32":  # pragma: no cover - tested with a stand-in for the module
    import msvcrt
else:  # pragma: no branch
    import fcntl

_FROM = 1 << 30
_BYTES = 1 << 20
_TRIES = 100


def can_rename_open_files() -> bool:
    """Return whether an open, locked file can be renamed (not on Windows)."""
    return fcntl is not None


def hold(file: FileIO) -> None:
    """Lock an open file until it is closed. Raises OSError if it cannot be locked."""
    if fcntl is not None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return
    for left in reversed(range(_TRIES)):
        try:
            _lock_bytes(file, msvcrt.LK_NBLCK, _FROM, _BYTES)
        except OSError:
            if not left:
                raise
            time.sleep(0.001)  # another process is checking the lock in `is_held`
        else:
            return


def is_held(file: FileIO) -> bool:
    """Return whether the process that locked a file is alive; ``file`` is that file, opened for reading."""
    try:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        else:
            byte = _FROM + random.randrange(_BYTES)
            _lock_bytes(file, msvcrt.LK_NBRLCK, byte, 1)
            _lock_bytes(file, msvcrt.LK_UNLCK, byte, 1)
    except OSError:
        return True
    return False


def _lock_bytes(file: FileIO, mode: int, first: int, count: int) -> None:
    """Lock or unlock ``count`` bytes from ``first``; keep the file's position."""
    position = os.lseek(file.fileno(), 0, os.SEEK_CUR)
    os.lseek(file.fileno(), first, os.SEEK_SET)
    try:
        msvcrt.locking(file.fileno(), mode, count)
    finally:
        os.lseek(file.fileno(), position, os.SEEK_SET)
