"""Lock a file for as long as its process lives: however that ends, the system lets go of the lock.

POSIX has ``flock``. Windows locks ranges of bytes, keeps what is locked from being read by others, and knows
no shared lock that Python could ask for. So the range lies far behind the file's end, and whoever looks locks
a single byte of it, chosen at random: two who look at once do not take one another for the owner.
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
    """Tell whether a file can get its name after it was locked."""
    return fcntl is not None


def hold(file: FileIO) -> None:
    """Lock an open file until it is closed. Raises OSError where that cannot be done."""
    if fcntl is not None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return
    for left in reversed(range(_TRIES)):
        try:
            _lock_bytes(file, msvcrt.LK_NBLCK, _FROM, _BYTES)
        except OSError:
            if not left:
                raise
            time.sleep(0.001)  # somebody looks whether it is locked
        else:
            return


def is_held(file: FileIO) -> bool:
    """Tell whether the process that locked a file lives; ``file`` is another opening of it, for reading."""
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
    """Lock or unlock ``count`` bytes from ``first``; the file's position stays as it was."""
    position = os.lseek(file.fileno(), 0, os.SEEK_CUR)
    os.lseek(file.fileno(), first, os.SEEK_SET)
    try:
        msvcrt.locking(file.fileno(), mode, count)
    finally:
        os.lseek(file.fileno(), position, os.SEEK_SET)
