"""Queue the changes of one aggregate, so that they need not wait for each other and are stored in batches."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from pabal.domain.envelope import encode_event
from pabal.errors import DuplicateEventError, InvalidEventError, PabalError, StorageClosedError
from pabal.eventsourcing.appending import Change, merge
from pabal.ports.storage import AggregateStorage


class OvertakenError(Exception):
    """Raised when a change was based on another that was refused, so it has to be decided again."""


class _Batch:
    __slots__ = ("changes", "futures")

    def __init__(self) -> None:
        self.changes: list[Change] = []
        self.futures: list[asyncio.Future[None]] = []


class PendingChanges:
    """Hold the changes of one aggregate that are decided but not stored yet.

    One batch is being stored at a time while the next one gathers. The next is not sent before the first is
    stored: if another writer appended as many events in its place, the expected version alone would not
    reveal it.
    """

    def __init__(
        self,
        storage: AggregateStorage,
        note_positions: Callable[[Sequence[int]], bool],
        on_failure: Callable[[], object],
    ) -> None:
        self._storage = storage
        self._note_positions = note_positions
        self._on_failure = on_failure
        self._next: _Batch | None = None
        self._in_flight: _Batch | None = None

    @property
    def newest(self) -> asyncio.Future[None] | None:
        """Return the future that completes when the newest change is stored, or None if all are stored."""
        batch = self._next or self._in_flight
        return None if batch is None else batch.futures[-1]

    def add(self, change: Change) -> asyncio.Future[None]:
        """Queue a change and return a future that completes when it is stored.

        The future raises ConcurrencyError or StorageError, an error of this change itself
        (InvalidEventError, DuplicateEventError), or OvertakenError.
        """
        loop = asyncio.get_running_loop()
        batch = self._next
        if batch is None:
            batch = self._next = _Batch()
            if self._in_flight is None:
                # Sent at the end of this turn of the loop, so that changes made during it share the batch.
                loop.call_soon(self._send)
        future: asyncio.Future[None] = loop.create_future()
        batch.changes.append(change)
        batch.futures.append(future)
        return future

    def _send(self) -> None:
        batch, self._next = self._next, None
        if batch is None:
            return
        self._in_flight = batch
        try:
            appended = asyncio.ensure_future(self._storage.append_streams(merge(batch.changes)))
        except PabalError as error:
            self._fail(batch, error)
        else:
            appended.add_done_callback(lambda done: self._finish(batch, done))

    def _finish(self, batch: _Batch, appended: asyncio.Future[list[int]]) -> None:
        if appended.cancelled():
            self._fail(batch, StorageClosedError(path=self._storage.path, reason="cancelled"))
            return
        error = appended.exception()
        if error is not None:
            self._fail(batch, error)
            return
        self._in_flight = None
        if not self._note_positions(appended.result()):
            self._on_failure()
        for future in batch.futures:
            future.set_result(None)
        self._send()

    def _fail(self, batch: _Batch, error: BaseException) -> None:
        self._on_failure()
        self._in_flight = None
        later, self._next = self._next, None
        invalid: int | None = None
        others = error
        if isinstance(error, (InvalidEventError, DuplicateEventError)):
            # One change is to blame; the others were refused with it, and have to be decided again.
            invalid, others = self._index_of_invalid(batch, error), OvertakenError()
        for index, future in enumerate(batch.futures):
            _raise_in(future, error if index == invalid else others)
        for future in () if later is None else later.futures:
            _raise_in(future, others)

    def _index_of_invalid(self, batch: _Batch, error: PabalError) -> int:
        """Return the index of the change in the batch that could not be stored."""
        if len(batch.changes) > 1:
            for index, change in enumerate(batch.changes):
                try:
                    for event in change.request.events:
                        if isinstance(error, DuplicateEventError) and event.event_id == error.event_id:
                            return index
                        encode_event(event, self._storage.max_payload_bytes)
                except InvalidEventError:
                    return index
        return 0


def _raise_in(future: asyncio.Future[None], error: BaseException) -> None:
    future.set_exception(error)
    future.exception()  # mark it as retrieved: its caller may have been cancelled
