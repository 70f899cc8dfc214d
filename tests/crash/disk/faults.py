"""Make calls to the simulated disk of this process fail for a while."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from struct import Struct

_CONTROL = Struct("<iiiii44s")

WRITE, SYNC, OPEN, TRUNCATE, READ = 1, 2, 4, 8, 16


class Faults:
    """The control page that ``disk.c`` reads before each call; ``prepare`` it before the process starts."""

    def __init__(self, path: str | Path) -> None:
        with open(path, "r+b") as file:
            self._page = mmap.mmap(file.fileno(), _CONTROL.size)

    @staticmethod
    def prepare(path: Path) -> None:
        path.write_bytes(bytes(_CONTROL.size))

    @classmethod
    def of_this_process(cls) -> Faults:
        return cls(os.environ["DISK_CONTROL"])

    @contextmanager
    def failing(
        self, error: int, calls: int, *, suffix: str = "", skip: int = 0, partial: bool = False
    ) -> Iterator[None]:
        """Make ``calls`` on files with a suffix fail inside the block, after ``skip`` of them succeeded."""
        self._page[:] = _CONTROL.pack(0, calls, skip, 0, int(partial), suffix.encode())
        self._page[:4] = error.to_bytes(4, "little")
        try:
            yield
        finally:
            self._page[:4] = bytes(4)

    @property
    def hits(self) -> int:
        """Return how many calls failed in the last block."""
        return int.from_bytes(self._page[12:16], "little")
