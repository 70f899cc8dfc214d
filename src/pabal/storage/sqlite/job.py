"""Jobs: what callers submit to the writer thread, and how their futures are resolved."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from pabal.domain.envelope import EventRecord
from pabal.domain.event import DomainEvent
from pabal.storage.sqlite.appender import Expected
from pabal.storage.sqlite.transaction import Transaction

Action = Callable[[Transaction], Any]


class Job:
    """One piece of work for the writer thread, and the future of the caller that waits for it.

    It either calls ``action`` with the transaction, or appends ``events`` (encoded in ``records``) if the
    streams have the ``expected`` versions. ``runs_once`` marks a function that ``transact`` was given.
    """

    __slots__ = ("action", "error", "events", "expected", "future", "loop", "records", "result", "runs_once")

    def __init__(
        self,
        *,
        action: Action | None = None,
        events: Sequence[DomainEvent] = (),
        records: Sequence[EventRecord] = (),
        expected: Sequence[Expected] = (),
        runs_once: bool = False,
    ) -> None:
        self.action = action
        self.runs_once = runs_once
        self.events = events
        self.records = records
        self.expected = expected
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Any] = self.loop.create_future()
        self.result: Any = None
        self.error: BaseException | None = None

    @property
    def is_plain_append(self) -> bool:
        """Return whether the job only appends, so that it can share INSERT statements with its neighbours."""
        return self.action is None and not self.expected


def resolve(jobs: list[Job]) -> None:
    """Resolve the futures of all jobs, waking each event loop once."""
    by_loop: dict[asyncio.AbstractEventLoop, list[Job]] = {}
    for job in jobs:
        by_loop.setdefault(job.loop, []).append(job)
    for loop, theirs in by_loop.items():
        try:
            loop.call_soon_threadsafe(_finish, theirs)
        except RuntimeError:
            pass  # the loop is closed and its callers are gone; the commit stands


def _finish(jobs: list[Job]) -> None:
    for job in jobs:
        if job.future.done():
            continue
        if job.error is not None:
            job.future.set_exception(job.error)
        else:
            job.future.set_result(job.result)
