"""An open database file: its writer, readers and leases, and the listeners to its commits."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Literal, Self, TypeVar
from uuid import uuid4

from pabal.errors import StorageUnavailableError, UsageError
from pabal.ports.storage import Capabilities, Committed
from pabal.storage.sqlite import forks
from pabal.storage.sqlite.doorbell import Doorbell
from pabal.storage.sqlite.faults import storable, translated
from pabal.storage.sqlite.job import Job
from pabal.storage.sqlite.journal import MappedJournal, remove_silent_journals
from pabal.storage.sqlite.leases import Leases
from pabal.storage.sqlite.reader import Reader
from pabal.storage.sqlite.schema import connect
from pabal.storage.sqlite.transaction import Transaction
from pabal.storage.sqlite.watch import Watch
from pabal.storage.sqlite.writer import Writer

T = TypeVar("T")
_log = logging.getLogger("pabal")


def _resolve_path(path: str | Path) -> Path:
    """Return a file's real path, links resolved, so that every process finds the journals beside the file."""
    try:
        if b"\0" in os.fsencode(path):
            raise StorageUnavailableError(path=repr(path), reason="not a possible file name")
        if sys.getfilesystemencodeerrors() == "surrogatepass":
            # Windows allows lone surrogates in file names, which SQLite would turn into another name.
            os.fspath(path).encode()
        return Path(path).resolve()
    except UnicodeEncodeError:
        raise StorageUnavailableError(path=repr(path), reason="not a possible file name") from None
    except (OSError, RuntimeError) as error:
        # Before 3.13, Python raises RuntimeError for a loop of links.
        reason = os.strerror(errno.ELOOP) if isinstance(error, RuntimeError) else error.strerror
        raise StorageUnavailableError(path=str(path), reason=reason or str(error)) from error


class DatabaseFile:
    """Open and close a database file; own its writer, readers, leases and journal."""

    capabilities = Capabilities(persistent=True, shared=True, aggregates=True, inspectable=True)

    def __init__(
        self,
        path: str | Path,
        durability: Literal["full", "normal"] = "full",
        *,
        max_payload_bytes: int = 1 << 20,
    ) -> None:
        if durability not in ("full", "normal"):
            raise UsageError(f"durability is {durability!r}; it must be 'full' or 'normal'")
        if str(path) == ":memory:":
            raise UsageError(
                "':memory:' cannot be the file of a log; for a bus with nothing on disk, write memory://"
            )
        self._path = _resolve_path(path)
        self.path = str(self._path)
        self.durability = durability
        self.max_payload_bytes = max_payload_bytes
        self._listeners: list[Callable[[Committed], None]] = []
        self._control_listeners: list[Callable[[], None]] = []
        self._is_open = False
        self._turn = threading.Lock()
        """Held while opening or closing: opening may run on in a thread after its caller was cancelled."""
        self.open()

    def __repr__(self) -> str:
        """Name the file."""
        state = "open" if self._is_open else "closed"
        return f"<{type(self).__name__} {self.path}, {state}, durability {self.durability!r}>"

    def open(self) -> None:
        """Open the file again after ``close()``; harmless while open. Raises what the constructor does."""
        forks.check(self._path)
        with self._turn:
            if not self._is_open:
                self._open()

    def _open(self) -> None:
        owner = uuid4().hex
        connection = connect(self._path, durability=self.durability)
        journal: MappedJournal | None = None
        try:
            writer = Writer(connection, self.path, self._notify)
            writer.appender.max_payload_bytes = self.max_payload_bytes
            journal = MappedJournal(self._path, owner)
            # Taking a subscription removes dead journals too; but processes that only publish, and exit
            # without closing, would otherwise leave more and more of them.
            remove_silent_journals(self._path, owner)
            with translated(self.path):
                writer.start()
        except BaseException:
            if journal is not None:
                journal.close()
            connection.close()
            raise  # a reopened object keeps its old, closed parts: its calls fail instead of waiting for ever
        self._bell, self._writer, self.journal = Doorbell(self._path, owner), writer, journal
        self._reader = Reader(self._path)
        self._leases = Leases(self._writer, self._path, owner)
        self._watch = Watch(self._path)
        self._is_open = True
        forks.register(self._path, self._writer, self._reader, journal)

    def _do(self, action: Callable[[Transaction], T]) -> asyncio.Future[T]:
        def do(tx: Transaction) -> T:
            with storable():
                return action(tx)

        return self._writer.submit(Job(action=do))

    def add_listener(self, listener: Callable[[Committed], None]) -> Callable[[], None]:
        """Call ``listener`` in the writer thread after each commit that added events; return its remover."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def _notify(self, batch: Committed) -> None:
        self._bell.ring()
        for listener in tuple(self._listeners):
            self._call(listener, batch)

    def _notify_controls(self) -> None:
        self._bell.ring()
        for listener in tuple(self._control_listeners):
            self._call(listener)

    def _call(self, listener: Callable[..., None], *arguments: Committed) -> None:
        try:
            listener(*arguments)
        except Exception:
            # It runs in the writer thread, where an exception would end all writing.
            _log.exception("a commit listener of %s failed: %r", self.path, listener)

    def poll_head(self) -> int | None:
        """Return the log's head if another process has moved it since the last call, else None. Cheap."""
        head = self._watch.moved_head()
        return None if head is None or head <= self._writer.announced else head

    def listen_to_others(self, heard: Callable[[], object]) -> Callable[[], None]:
        """Call ``heard`` in the running loop when another process signals a commit; return its remover."""
        return self._bell.listen(heard)

    def close(self) -> None:
        """Finish all accepted work, then end the threads and close the files. Harmless when closed.

        Blocks until the last commit; in a coroutine, use ``aclose``. Stop the buses on this storage first:
        afterwards their calls raise StorageClosedError. ``open`` opens the file again. Raises UsageError
        inside ``transact`` and in a listener to commits.
        """
        if self._writer.is_inherited:
            return  # this is a forked child: everything belongs to the parent
        if self._writer.is_current_thread:
            raise UsageError(
                "close() was called inside transact() or a commit listener; call it outside of them"
            )
        with self._turn:
            self._close()

    def _close(self) -> None:
        self._writer.finish()
        self._is_open = False
        forks.unregister(self._writer, self._reader, self.journal)
        self._reader.close()
        self._watch.close()
        # The writing connection closes last, because SQLite then copies the write-ahead log into the file.
        self._writer.close()
        self._bell.close()
        self.journal.close()

    async def aclose(self) -> None:
        """Close as ``close`` does, without blocking the event loop."""
        await asyncio.get_running_loop().run_in_executor(None, self.close)

    def __enter__(self) -> Self:
        """Return the storage itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close."""
        self.close()

    async def __aenter__(self) -> Self:
        """Return the storage itself."""
        return self

    async def __aexit__(self, *error: object) -> None:
        """Close."""
        await self.aclose()
