"""Run the jobs of a group in one transaction, in which a failing job does not fail its neighbours."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from itertools import groupby
from operator import attrgetter

from pabal.errors import ConflictError, UsageError
from pabal.ports.storage import Committed
from pabal.storage.sqlite.appender import Appender
from pabal.storage.sqlite.faults import is_busy, is_fault
from pabal.storage.sqlite.job import Action, Job
from pabal.storage.sqlite.transaction import Transaction

_LONGEST_WAIT = 10.0
"""Seconds to wait while other processes write, before callers get an error."""


class TransactionEndedError(Exception):
    """A job ended the transaction that it shares with other jobs; ``job.error`` is the reason."""

    def __init__(self, job: Job) -> None:
        self.job = job


class GroupTransaction:
    """Begin transactions, run jobs in them and undo what failed; used by the writer thread, which commits."""

    def __init__(self, connection: sqlite3.Connection, appender: Appender) -> None:
        self._connection = connection
        self._appender = appender
        self._after_commit: list[Callable[[], object]] = []

    def begin(self) -> None:
        """Begin a transaction, waiting while other processes write."""
        deadline = time.monotonic() + _LONGEST_WAIT
        while True:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                break
            except sqlite3.OperationalError as error:
                if not is_busy(error) or time.monotonic() > deadline:
                    raise
        self._appender.begin()

    def run(self, jobs: list[Job]) -> list[Committed]:
        """Run the jobs in one transaction, first without savepoints, which few groups need.

        If a job fails, the group is rolled back and run again with a savepoint around each job. Savepoints
        are avoided because every statement may have to wait for the interpreter's lock. A function given to
        ``transact`` must run only once, so its group has savepoints from the start.
        """
        use_savepoints = any(job.runs_once for job in jobs)
        while True:
            self.begin()
            try:
                return self._run_jobs(jobs, use_savepoints)
            except TransactionEndedError as ended:
                jobs = [job for job in jobs if job is not ended.job]
                self._prepare_retry(jobs)
            except Exception as error:
                if use_savepoints or is_fault(error):
                    raise
                use_savepoints = True
                self._prepare_retry(jobs)

    def note_commit(self) -> None:
        """Do what jobs have deferred until after the commit, which has returned."""
        self._appender.note_commit()
        for follow_up in self._after_commit:
            follow_up()
        self._after_commit.clear()

    def roll_back(self) -> None:
        """Undo everything since ``begin``; harmless if that is undone already."""
        if self._connection.in_transaction:
            try:
                self._connection.execute("ROLLBACK")
            except sqlite3.Error:
                pass  # SQLite has already rolled back, and the caller has the error that caused it
        self._appender.note_rollback()
        self._after_commit.clear()

    def _prepare_retry(self, jobs: list[Job]) -> None:
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")
        self._appender.note_rollback()
        self._after_commit.clear()
        for job in jobs:
            job.error = None

    def _run_jobs(self, jobs: list[Job], use_savepoints: bool) -> list[Committed]:
        run_alone = self._run_in_savepoint if use_savepoints else self._run_without_savepoint
        added: list[Committed] = []
        for are_plain_appends, part in groupby(jobs, attrgetter("is_plain_append")):
            if are_plain_appends:
                added += self._append_together(list(part), use_savepoints)
            else:
                for job in part:
                    added += run_alone(job)
        return _joined(added)

    def _append_together(self, jobs: list[Job], use_savepoints: bool) -> list[Committed]:
        records = [record for job in jobs for record in job.records]
        if not records:
            for job in jobs:
                job.result = []
            return []
        if use_savepoints:
            self._connection.execute("SAVEPOINT part")
        try:
            first = self._appender.insert(records)
        except Exception as error:
            if is_fault(error) or not use_savepoints:
                raise
            # An id is already stored or occurs twice, or a value does not fit: append one job at a time.
            self._roll_back_savepoint()
            return [batch for job in jobs for batch in self._run_in_savepoint(job)]
        if use_savepoints:
            self._connection.execute("RELEASE part")
        self._appender.note_savepoint_release()
        position = first
        for job in jobs:
            job.result = list(range(position, position + len(job.records)))
            position += len(job.records)
        return [Committed(first, tuple(event for job in jobs for event in job.events))]

    def _run_without_savepoint(self, job: Job) -> list[Committed]:
        try:
            added = self._run_job(job)
        except ConflictError as error:
            if job.action is not None:
                raise
            job.error = error  # raised before anything was written, so there is nothing to undo
            return []
        self._appender.note_savepoint_release()
        return added

    def _run_in_savepoint(self, job: Job) -> list[Committed]:
        self._connection.execute("SAVEPOINT part")
        try:
            added = self._run_job(job)
        except BaseException as error:
            if is_fault(error):
                raise  # the file or disk is in trouble, so the whole group fails
            job.error = error
            if isinstance(error, StopIteration):
                # A future does not accept StopIteration; it would raise, and the jobs after it never resolve.
                job.error = RuntimeError("the function given to transact() raised StopIteration")
            if not self._connection.in_transaction:
                raise TransactionEndedError(job) from error
            self._roll_back_savepoint()
            return []
        self._connection.execute("RELEASE part")
        self._appender.note_savepoint_release()
        return added

    def _run_job(self, job: Job) -> list[Committed]:
        if job.action is not None:
            return self._run_action(job, job.action)
        job.result, added = self._appender.append(job.events, job.records, job.expected)
        return added

    def _run_action(self, job: Job, action: Action) -> list[Committed]:
        transaction = Transaction(self._connection, self._appender, is_users=job.runs_once)
        try:
            job.result = action(transaction)
        finally:
            transaction.end()
        if not self._connection.in_transaction:
            raise UsageError("the function ended the transaction; leave COMMIT and ROLLBACK to pabal")
        self._after_commit += transaction.after_commit
        return transaction.added

    def _roll_back_savepoint(self) -> None:
        self._connection.execute("ROLLBACK TO part")
        self._connection.execute("RELEASE part")
        self._appender.note_savepoint_rollback()


def _joined(batches: list[Committed]) -> list[Committed]:
    """Join batches with consecutive positions, so that listeners are called once per commit."""
    joined: list[Committed] = []
    for batch in batches:
        if joined and joined[-1].first + len(joined[-1].events) == batch.first:
            last = joined.pop()
            joined.append(Committed(last.first, last.events + batch.events))
        else:
            joined.append(batch)
    return joined
