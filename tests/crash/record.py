"""What a process says of itself before it goes on: one line per fact, in a file that outlives it.

A line is written with one ``write`` to a file opened for appending, so it is in the kernel's hands when the
call returns, and the death of the process cannot take it back. (Where power cuts are simulated, the position
of a line among the writes to the database is what counts; see ``power``.)
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ACKED = "a"
"""position, event id, key, number: ``publish`` has returned."""
BEGUN = "b"
"""position, key, number, attempt: a handler has been called."""
DONE = "d"
"""position, key, number, attempt: it is about to return."""
FAILED = "f"
"""position, key, number, attempt: it is about to raise."""
SAVING = "s"
"""Progress is about to be saved."""
SAVED = "S"
"""It was saved."""
STARTED = "r"
"""round: a process begins."""
STOPPED = "x"
"""A process ends by itself, with nothing left to do."""


class Line(NamedTuple):
    kind: str
    fields: tuple[str, ...]


class Record:
    """Append lines to a file."""

    def __init__(self, path: str | Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def note(self, kind: str, *fields: object) -> None:
        os.write(self._file, " ".join((kind, *map(str, fields))).encode() + b"\n")

    def close(self) -> None:
        os.close(self._file)


def lines(path: Path) -> Iterator[Line]:
    """Iterate over what was recorded; a last line that was cut off was never noted."""
    if not path.exists():
        return
    for text in path.read_text("ascii").split("\n")[:-1]:
        kind, *fields = text.split(" ")
        yield Line(kind, tuple(fields))
