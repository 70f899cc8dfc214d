"""Rebuild what a disk holds after a power cut, from the log of its writes and syncs.

The model is a strict reading of POSIX. Data is safe once a sync of its file has returned that began after the
write. A new name, a new length or a removal is safe once its directory was synced. Any sectors that are not
safe may or may not have survived, in any combination.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from struct import Struct
from typing import NamedTuple

_ENTRY = Struct("<IIqq")
_SECTOR = 512

OPENED, CREATED, WRITTEN, TRUNCATED, SYNC_BEGUN, SYNC_ENDED, REMOVED, RENAMED = range(1, 9)

Image = dict[str, bytes]
"""The content of each file by name."""


class Entry(NamedTuple):
    kind: int
    file: int
    offset: int
    data: bytes


def entries(log: Path) -> Iterator[Entry]:
    """Iterate over the log of the simulated disk."""
    content = log.read_bytes()
    at = 0
    while at + _ENTRY.size <= len(content):
        kind, length, file, offset = _ENTRY.unpack_from(content, at)
        at += _ENTRY.size
        yield Entry(kind, file, offset, content[at : at + length])
        at += length


class Node:
    """A file's safe content, and the later changes that are not safe yet."""

    def __init__(self) -> None:
        self.safe = bytearray()
        self.pending: list[tuple[int, bytes | None]] = []
        """(offset, data) of a write, or (length, None) of a truncation."""
        self._covered = 0

    def sync_begun(self) -> None:
        self._covered = len(self.pending)

    def sync_ended(self) -> None:
        for offset, data in self.pending[: self._covered]:
            _apply(self.safe, offset, data)
        del self.pending[: self._covered]
        self._covered = 0

    def survived(self, chance: random.Random | None) -> bytes:
        """Return the content after a power cut; with ``chance``, some of the pending changes survive."""
        if chance is None or not self.pending:
            return bytes(self.safe)
        content = bytearray(self.safe)
        share = chance.random()
        for offset, data in self.pending:
            if data is None:
                if chance.random() < share:
                    _apply(content, offset, None)
                continue
            for start in range(0, len(data), _SECTOR):
                if chance.random() < share:
                    _apply(content, offset + start, data[start : start + _SECTOR])
        return bytes(content)


def _apply(content: bytearray, offset: int, data: bytes | None) -> None:
    if data is None:
        if offset < len(content):
            del content[offset:]
        else:
            content.extend(bytes(offset - len(content)))
        return
    if len(content) < offset:
        content.extend(bytes(offset - len(content)))
    content[offset : offset + len(data)] = data


class Disk:
    """The state of the disk, updated with each entry of its log."""

    def __init__(self) -> None:
        self.names: dict[str, Node] = {}
        self._safe_names: dict[str, Node] = {}
        self._names_at_sync: dict[str, Node] = {}
        self._nodes: dict[int, Node] = {}
        self._directories: set[int] = set()
        self.changes = 0
        """Number of changes that can make one image differ from the next."""

    def apply(self, entry: Entry) -> None:
        if entry.kind in (OPENED, CREATED):
            self._open(entry)
        elif entry.kind == WRITTEN:
            self._nodes[entry.file].pending.append((entry.offset, entry.data))
        elif entry.kind == TRUNCATED:
            self._nodes[entry.file].pending.append((entry.offset, None))
        elif entry.kind in (SYNC_BEGUN, SYNC_ENDED):
            self._sync(entry)
        elif entry.kind == REMOVED:
            self.names.pop(_name(entry.data), None)
        elif entry.kind == RENAMED:
            source, _, target = entry.data.partition(b"\0")
            if _name(source) in self.names:
                self.names[_name(target)] = self.names.pop(_name(source))

    def _open(self, entry: Entry) -> None:
        if entry.offset:
            self._directories.add(entry.file)
        elif entry.kind == CREATED:
            # An inode number may be reused; then this is another file.
            self.names[_name(entry.data)] = self._nodes[entry.file] = Node()
        elif entry.file not in self._nodes:
            raise AssertionError(f"{entry.data!r} was there before the log began")

    def _sync(self, entry: Entry) -> None:
        if entry.file in self._directories:
            if entry.kind == SYNC_BEGUN:
                self._names_at_sync = dict(self.names)
            else:
                self._safe_names = self._names_at_sync
                self.changes += 1
        elif entry.kind == SYNC_BEGUN:
            self._nodes[entry.file].sync_begun()
        else:
            self._nodes[entry.file].sync_ended()
            self.changes += 1

    def after_power_cut(self, chance: random.Random | None = None) -> Image:
        """Return what is left: only what is safe, or with ``chance`` some of the rest, too."""
        names = dict(self._safe_names)
        if chance is not None:
            for name in self.names.keys() | self._safe_names.keys():
                source = chance.choice((self.names, self._safe_names))
                names.pop(name, None)
                if name in source:
                    names[name] = source[name]
        return {name: node.survived(chance) for name, node in names.items()}


def _name(path: bytes) -> str:
    return Path(path.decode()).name
