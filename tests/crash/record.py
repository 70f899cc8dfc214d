"""The record of a process: one line for each thing it has done, in a file that outlives it.

Each line is a single ``write`` to a file opened for appending, so the kernel has it when the call returns,
and the death of the process cannot undo it. (Where power cuts are simulated, the order of these lines among
the writes to the database matters; see ``power``.)
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ACKED = "a"
"""``publish`` has returned; with position, event id, key, number."""
BEGUN = "b"
"""A handler was called; with position, key, number, attempt."""
DONE = "d"
"""The handler is about to return; with position, key, number, attempt."""
FAILED = "f"
"""The handler is about to raise; with position, key, number, attempt."""
SAVING = "s"
"""Progress is about to be saved."""
SAVED = "S"
"""Progress was saved."""
STARTED = "r"
"""A process begins; with its round."""
STOPPED = "x"
"""A process ends by itself, with all work done."""


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
    """Iterate over the recorded lines; an incomplete last line does not count."""
    if not path.exists():
        return
    for text in path.read_text("ascii").split("\n")[:-1]:
        kind, *fields = text.split(" ")
        yield Line(kind, tuple(fields))
