"""Keep the aggregates used last in memory, together with what is on its way to the log."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

from pabal.domain.aggregate import Aggregate
from pabal.eventsourcing.line import Line
from pabal.ports.storage import AggregateStorage

A = TypeVar("A", bound=Aggregate)


class Live(Generic[A]):
    """Hold one aggregate, and the line of its events that are not stored yet."""

    __slots__ = ("aggregate", "last_event_id", "line", "snapshot_at")

    def __init__(self, aggregate: A, last_event_id: str | None, snapshot_at: int) -> None:
        self.aggregate = aggregate
        self.last_event_id = last_event_id
        """The id of the newest event in the state; None while there is none."""
        self.snapshot_at = snapshot_at
        """The version of the newest snapshot."""
        self.line: Line | None = None

    @property
    def is_settled(self) -> bool:
        """Tell whether everything in the state is stored."""
        return self.line is None or self.line.newest is None

    async def settled(self) -> None:
        """Wait until everything in the state is stored. Raises what joining the line would raise."""
        newest = None if self.line is None else self.line.newest
        if newest is not None:
            await asyncio.shield(newest)

    def open_line(self, storage: AggregateStorage, failed: Callable[[], None]) -> Line:
        """Return the line, ``failed`` being called once should the state turn out never to be stored."""
        if self.line is None:
            self.line = Line(storage, failed)
        return self.line


class LiveAggregates(Generic[A]):
    """Keep the ``size`` aggregates used last; 0 keeps none beyond its use."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._lives: OrderedDict[str, Live[A]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._lives)

    def get(self, aggregate_id: str) -> Live[A] | None:
        """Return a live aggregate and take it as used just now."""
        live = self._lives.get(aggregate_id)
        if live is not None:
            self._lives.move_to_end(aggregate_id)
        return live

    def put(self, live: Live[A]) -> Live[A]:
        """Keep an aggregate unless a copy is kept already; return the one kept."""
        kept = self._lives.setdefault(live.aggregate.id, live)
        self._lives.move_to_end(live.aggregate.id)
        # Never one whose events are on their way: whoever loads it then would decide without them.
        for aggregate_id in list(self._lives)[: max(0, len(self._lives) - max(1, self._size))]:
            if self._lives[aggregate_id].is_settled:
                del self._lives[aggregate_id]
        return kept

    def discard(self, live: Live[A]) -> None:
        """Let go of exactly this copy: its state may differ from the log."""
        if self._lives.get(live.aggregate.id) is live:
            del self._lives[live.aggregate.id]
