"""The writer thread: take all queued jobs, commit them together, then resolve their futures."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any

from pabal.errors import StorageClosedError, StorageError, StorageUnavailableError
from pabal.ports.storage import Committed
from pabal.storage.sqlite import forks
from pabal.storage.sqlite.appender import Appender
from pabal.storage.sqlite.faults import translate
from pabal.storage.sqlite.group_commit import GroupTransaction
from pabal.storage.sqlite.job import Job, resolve
from pabal.storage.sqlite.wal import PAUSE, WalKeeper

_log = logging.getLogger("pabal")

_GROUP_ROWS = 10_000
"""Rows after which a group is committed although more jobs wait, so that no commit takes very long."""

_LARGE_BATCH = 250
"""Rows of one caller that take several times longer to write than to sync: no need to wait for others."""


class Writer:
    """Write the jobs of concurrent callers in as few commits as possible.

    All jobs that arrive while one commit is syncing form the next group: one job, or a hundred. No future is
    resolved before the COMMIT of its group has returned.
    """

    def __init__(
        self, connection: sqlite3.Connection, path: str, notify: Callable[[Committed], None]
    ) -> None:
        self._connection = connection
        self._path = path
        self._notify = notify
        self._queue: SimpleQueue[list[Job] | None] = SimpleQueue()
        self._buffered: dict[asyncio.AbstractEventLoop, list[Job]] = {}
        """Jobs that each event loop submitted in its current iteration."""
        self._last_group = 1
        """How many jobs the last group had."""
        self._lock = threading.Lock()
        """Held while a job is submitted and while jobs are queued: none may get behind the last one."""
        self._closed = self.is_inherited = False
        self._thread = threading.Thread(target=self._run, name=f"pabal-writer {path}", daemon=True)
        self.appender = Appender(connection, path)
        self._transaction = GroupTransaction(connection, self.appender)
        self._wal = WalKeeper(connection, path)
        self.announced = 0
        """The highest position that listeners have been told of, or are about to be."""
        self._file_id: tuple[int, int] | None = None

    def start(self) -> None:
        """Load the appender's state and start the thread."""
        self.appender.open()
        # SQLite's busy handler sleeps longer after each attempt, up to 100 ms, so that later arrivals get
        # ahead: with eight processes some waited two seconds. In 5 ms it tries thrice; `begin` repeats that.
        self._connection.execute("PRAGMA busy_timeout = 5")
        self.announced = self.appender.known
        self._file_id = forks.file_id(self._path)
        self._thread.start()

    @property
    def is_current_thread(self) -> bool:
        """Return whether the current thread is the writer thread, which cannot wait for its own end."""
        return threading.current_thread() is self._thread

    def submit(self, job: Job) -> asyncio.Future[Any]:
        """Queue a job; call it in the job's event loop. Raises StorageClosedError.

        Jobs submitted in one iteration of the loop go to the writer thread together, at the latest when the
        iteration ends. Sent one by one, the first would be committed alone and the others wait for its sync.
        """
        with self._lock:
            if self._closed:
                raise self._refusal()
            buffered = self._buffered.get(job.loop)
            if buffered is None:
                buffered = self._buffered[job.loop] = []
                job.loop.call_soon(self._flush_buffered, job.loop)
            buffered.append(job)
        if len(buffered) >= self._last_group or len(job.records) >= _LARGE_BATCH:
            # As many as in the last group: probably no more are coming, so the writer can start while this
            # loop goes on with its deliveries. A large batch keeps it busy while others are being encoded.
            self._flush_buffered(job.loop)
        return job.future

    def _flush_buffered(self, loop: asyncio.AbstractEventLoop) -> None:
        with self._lock:
            jobs = self._buffered.pop(loop, [])
            if jobs and not self._closed:
                self._queue.put(jobs)
                return
        for job in jobs:  # in a forked child; `finish` leaves none
            job.error = self._refusal()
        resolve(jobs)

    def _refusal(self) -> StorageError:
        if self.is_inherited:
            return forks.refusal(self._path)
        return StorageClosedError(path=self._path, reason="closed")

    def forked(self) -> None:
        """Refuse new jobs in a forked child: the thread runs in the parent, and the lock may be taken."""
        self._closed = self.is_inherited = True
        self._lock = threading.Lock()

    def finish(self) -> None:
        """Finish all submitted jobs and end the thread. Blocks; harmless when it has ended."""
        with self._lock:
            if not self._closed:
                self._closed = True
                for jobs in self._buffered.values():
                    self._queue.put(jobs)
                self._buffered.clear()
                self._queue.put(None)
        self._thread.join()

    def close(self) -> None:
        """Finish, then close the connection."""
        self.finish()
        self._connection.close()

    # -- the thread -----------------------------------------------------------------------------------

    def _run(self) -> None:
        ended = False
        while not ended:
            jobs, ended = self._take()
            if jobs:
                self._write(jobs)
            if self.appender.index_is_due(final=ended):
                self._extend_index()
            self._wal.check()

    def _take(self) -> tuple[list[Job], bool]:
        """Wait for jobs and take all that are queued; return them, and True if they are the last."""
        jobs: list[Job] = []
        rows = 0
        try:
            more = self._queue.get(timeout=PAUSE if self._wal.is_large else None)
        except Empty:
            return [], False
        while more is not None:
            jobs += more
            rows += sum(len(job.records) for job in more)
            if rows >= _GROUP_ROWS:
                break
            try:
                more = self._queue.get_nowait()
            except Empty:
                break
        self._last_group = max(1, len(jobs))
        return jobs, more is None

    def _write(self, jobs: list[Job]) -> None:
        added: list[Committed] = []
        announced = self.announced
        try:
            added = self._transaction.run(jobs)
            self._refuse_if_gone()
            if added:
                # Set before the commit, so that `poll_head` never takes this commit for another process's.
                self.announced = added[-1].first + len(added[-1].events) - 1
            self._connection.execute("COMMIT")
        except BaseException as caught:
            self.announced = announced
            self._abort(jobs, caught)
            added = []
        else:
            self._transaction.note_commit()
        for batch in added:
            self._notify(batch)
        resolve(jobs)

    def _refuse_if_gone(self) -> None:
        """Raise if the file was moved or deleted: a commit would be acknowledged, then lost at close."""
        if forks.file_id(self._path) != self._file_id:
            raise StorageUnavailableError(
                path=self._path,
                reason="the file was moved or deleted while open; put it back, or open this path again",
            )

    def _abort(self, jobs: list[Job], caught: BaseException) -> None:
        """Roll back, and give every job that has no error yet this one."""
        self._transaction.roll_back()
        error: BaseException = caught
        if isinstance(caught, sqlite3.Error):
            error = translate(caught, self._path)
        for job in jobs:
            if job.error is None:
                job.error = error

    def _extend_index(self) -> None:
        """Extend the stream index to the events committed so far."""
        try:
            self._transaction.begin()
            upto = self.appender.index_streams()
            self._connection.execute("COMMIT")
            self._transaction.note_commit()
            self.appender.note_indexed(upto)
        except (sqlite3.Error, StorageError) as error:
            # The index falls further behind; the appender's `tail` still covers the rest, and we try later.
            _log.warning("%s: the index of streams could not be extended: %s", self._path, error)
            self._transaction.roll_back()
            self.appender.note_index_failure()
