"""Keep the aggregates used last in memory, together with what is on its way to the log."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Generic, TypeVar

from pabal.domain.aggregate import Aggregate
from pabal.errors import DuplicateEventError, InvalidEventError
from pabal.eventsourcing.line import Line, OvertakenError
from pabal.ports.storage import AggregateStorage

A = TypeVar("A", bound=Aggregate)


class Live(Generic[A]):
    """Hold one aggregate, and the line of its events that are not stored yet."""

    __slots__ = ("_position", "aggregate", "last_event_id", "line", "snapshot_at", "waiting")

    def __init__(self, aggregate: A, last_event_id: str | None, snapshot_at: int, position: int) -> None:
        self.aggregate = aggregate
        self.last_event_id = last_event_id
        """The id of the newest event in the state; None while there is none."""
        self._position = position
        self.snapshot_at = snapshot_at
        """The version of the newest snapshot."""
        self.line: Line | None = None
        self.waiting = 0
        """How many wait for their changes of it to be stored, to take a snapshot of it then."""

    @property
    def is_in_use(self) -> bool:
        """Tell whether some of the state is not stored, or somebody waits who has not heard that it is."""
        return self.waiting > 0 or not self.is_settled

    @property
    def is_settled(self) -> bool:
        """Tell whether everything in the state is stored."""
        return self.line is None or self.line.newest is None

    @property
    def is_untouched(self) -> bool:
        """Tell whether nothing was recorded on it since its events were taken to be stored."""
        aggregate = self.aggregate
        return aggregate.stored_version == aggregate.version and not aggregate.is_spoiled

    async def settled(self) -> None:
        """Wait until everything in the state is stored.

        Raises ConcurrencyError, StorageError, or OvertakenError where a change in it could not be stored.
        """
        newest = None if self.line is None else self.line.newest
        if newest is not None:
            try:
                await asyncio.shield(newest)
            except (InvalidEventError, DuplicateEventError) as error:
                raise OvertakenError from error  # that is for the caller of the change to hear

    def took_place(self, positions: Sequence[int]) -> bool:
        """Note where its newest events are stored; False if the log had one of them before.

        An event of an id that is stored already is not appended again, but the state has seen it twice.
        """
        before, self._position = self._position, positions[-1]
        return all(one < next_one for one, next_one in pairwise((before, *positions)))

    def open_line(self, storage: AggregateStorage, failed: Callable[[], object]) -> Line:
        """Return the line; ``failed`` is called once should the state turn out to differ from the log."""
        if self.line is None:
            self.line = Line(storage, self.took_place, failed)
        return self.line


class LiveAggregates(Generic[A]):
    """Keep the ``size`` aggregates used last; 0 keeps none beyond its use."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._lives: OrderedDict[str, Live[A]] = OrderedDict()
        self._loop: asyncio.AbstractEventLoop | None = None

    def belong_here(self) -> bool:
        """Tell whether the running event loop may use them: only where no other one does that still runs."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            if self._loop is not None and self._loop.is_running():
                return False
            self._loop = loop
        return True

    def __len__(self) -> int:
        return len(self._lives)

    def get(self, aggregate_id: str) -> Live[A] | None:
        """Return a live aggregate and take it as used just now.

        One on which somebody has recorded who had it no longer is let go of: what no change decided is not
        stored with the next one.
        """
        live = self._lives.get(aggregate_id)
        if live is None:
            return None
        if not live.is_untouched:
            del self._lives[aggregate_id]
            return None
        self._lives.move_to_end(aggregate_id)
        return live

    def put(self, live: Live[A]) -> Live[A]:
        """Keep an aggregate unless a copy is kept already; return the one kept."""
        kept = self.get(live.aggregate.id)
        if kept is None:
            kept = self._lives[live.aggregate.id] = live
        self.shrink()
        return kept

    def shrink(self) -> None:
        """Let go of what was used longest ago, down to the size.

        Called when one is put, and when the events of one are stored: who finds one whose events are on their
        way leaves the rest to that call. So each is looked at a few times, however many there are.
        """
        while len(self._lives) > max(1, self._size):
            aggregate_id, oldest = next(iter(self._lives.items()))
            if oldest.is_in_use:
                # Whoever loads it now would decide without them. And so it is not the oldest.
                self._lives.move_to_end(aggregate_id)
                return
            del self._lives[aggregate_id]

    def overtaken(self, aggregate_id: str, version: int) -> None:
        """Let go of a copy that is older than what was stored of its aggregate just now.

        One whose events are on their way is let go of by whoever hears that they were refused.
        """
        kept = self._lives.get(aggregate_id)
        if kept is not None and kept.is_settled and kept.aggregate.version < version:
            del self._lives[aggregate_id]

    def discard(self, live: Live[A]) -> bool:
        """Let go of exactly this copy, as its state may differ from the log; False if it is not kept."""
        if self._lives.get(live.aggregate.id) is not live:
            return False
        del self._lives[live.aggregate.id]
        return True
