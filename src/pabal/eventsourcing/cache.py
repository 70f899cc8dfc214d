"""Cache the most recently used aggregates in memory, with their changes that are not stored yet."""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from itertools import pairwise
from typing import Generic, TypeVar

from pabal.domain.aggregate import Aggregate
from pabal.errors import DuplicateEventError, InvalidEventError
from pabal.eventsourcing.pending import OvertakenError, PendingChanges
from pabal.ports.storage import AggregateStorage

A = TypeVar("A", bound=Aggregate)


class CachedAggregate(Generic[A]):
    """Hold one cached aggregate and its changes that are not stored yet."""

    __slots__ = (
        "_position",
        "aggregate",
        "last_event_id",
        "may_be_stale",
        "pending",
        "snapshot_at",
        "waiting",
    )

    def __init__(self, aggregate: A, last_event_id: str | None, snapshot_at: int, position: int) -> None:
        self.aggregate = aggregate
        self.last_event_id = last_event_id
        """The id of the newest event in the state; None before the first."""
        self._position = position
        self.snapshot_at = snapshot_at
        """The version of the newest snapshot."""
        self.may_be_stale = False
        """Whether it comes from the cache: another process may have stored events since it was loaded."""
        self.pending: PendingChanges | None = None
        self.waiting = 0
        """The number of updates that wait for their changes to be stored, to take a snapshot then if due."""

    @property
    def is_in_use(self) -> bool:
        """Return whether part of the state is not stored, or an update has yet to learn that it is."""
        return self.waiting > 0 or not self.is_settled

    @property
    def is_settled(self) -> bool:
        """Return whether everything in the state is stored."""
        return self.pending is None or self.pending.newest is None

    @property
    def is_untouched(self) -> bool:
        """Return whether nothing was recorded since its events were last taken to be stored."""
        aggregate = self.aggregate
        return aggregate.stored_version == aggregate.version and not aggregate.is_spoiled

    async def settled(self) -> None:
        """Wait until everything in the state is stored.

        Raises ConcurrencyError, StorageError, or OvertakenError if a change in it could not be stored.
        """
        newest = None if self.pending is None else self.pending.newest
        if newest is not None:
            try:
                await asyncio.shield(newest)
            except (InvalidEventError, DuplicateEventError) as error:
                raise OvertakenError from error  # that change's own caller gets the error

    def note_positions(self, positions: Sequence[int]) -> bool:
        """Note the positions of its newest events; return False if the log already held one of them.

        An event whose id is already stored is not appended again, but the state has applied it twice.
        """
        previous, self._position = self._position, positions[-1]
        return all(earlier < later for earlier, later in pairwise((previous, *positions)))

    def open_pending(self, storage: AggregateStorage, on_failure: Callable[[], object]) -> PendingChanges:
        """Return its pending changes; ``on_failure`` is called once if the state differs from the log."""
        if self.pending is None:
            self.pending = PendingChanges(storage, self.note_positions, on_failure)
        return self.pending


class AggregateCache(Generic[A]):
    """Cache the ``size`` most recently used aggregates; with 0, keep each only while it is in use."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._cached: OrderedDict[str, CachedAggregate[A]] = OrderedDict()
        self._loading: Counter[str] = Counter()
        """How many loads of each aggregate are under way; no aggregate without any."""
        self._loop: asyncio.AbstractEventLoop | None = None

    def bind_to_running_loop(self) -> bool:
        """Return whether the running event loop may use them, that is, no other running loop does."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            if self._loop is not None and self._loop.is_running():
                return False
            self._loop = loop
        return True

    def __len__(self) -> int:
        return len(self._cached)

    def get(self, aggregate_id: str) -> CachedAggregate[A] | None:
        """Return a cached aggregate and mark it as used most recently.

        One with leftover recorded events is dropped instead: code that kept a reference after its change
        ended recorded them, and they must not be stored with the next change.
        """
        cached = self._cached.get(aggregate_id)
        if cached is None:
            return None
        if not cached.is_untouched:
            del self._cached[aggregate_id]
            return None
        self._cached.move_to_end(aggregate_id)
        return cached

    async def load(
        self, aggregate_id: str, load: Callable[[str], Awaitable[CachedAggregate[A]]]
    ) -> CachedAggregate[A]:
        """Load an aggregate and cache it unless a copy is cached by then; return the cached one.

        Until then, a copy is not evicted: one loaded at the same time may lack the events it has stored.
        """
        self._loading[aggregate_id] += 1
        try:
            return self.put(await load(aggregate_id))
        finally:
            self._loading[aggregate_id] -= 1
            if not self._loading[aggregate_id]:
                del self._loading[aggregate_id]

    def put(self, cached: CachedAggregate[A]) -> CachedAggregate[A]:
        """Cache an aggregate unless a copy is cached already; return the cached one."""
        existing = self.get(cached.aggregate.id)
        if existing is None:
            self.shrink(room=1)
            existing = self._cached[cached.aggregate.id] = cached
        return existing

    def shrink(self, *, room: int = 0) -> None:
        """Evict the least recently used aggregates, until there is ``room`` for more within the size.

        Called when an aggregate is put and when its change is done. The loop stops at the first one that is
        still in use and leaves the rest to the next call, so each call looks at few, however many are cached.
        """
        while len(self._cached) > max(0, self._size - room):
            aggregate_id, oldest = next(iter(self._cached.items()))
            if oldest.is_in_use or aggregate_id in self._loading:
                # Evicting it would let a load decide without its newest events. Move it to the end.
                self._cached.move_to_end(aggregate_id)
                return
            del self._cached[aggregate_id]

    def evict_older(self, aggregate_id: str, version: int) -> None:
        """Drop a copy that is older than what was just stored of its aggregate.

        A copy with unsaved events is dropped later, when its own append is refused.
        """
        cached = self._cached.get(aggregate_id)
        if cached is not None and cached.is_settled and cached.aggregate.version < version:
            del self._cached[aggregate_id]

    def discard(self, cached: CachedAggregate[A]) -> bool:
        """Drop exactly this copy, whose state may differ from the log; return False if it is not cached."""
        if self._cached.get(cached.aggregate.id) is not cached:
            return False
        del self._cached[cached.aggregate.id]
        return True
