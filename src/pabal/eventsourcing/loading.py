"""Load an aggregate's current state from its events, or from a snapshot and the events after it."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Generic, TypeVar

from pabal.delivery.turns import iter_slices
from pabal.domain.aggregate import Aggregate
from pabal.domain.envelope import StoredRecord, decode_event, id_to_bytes, id_to_text
from pabal.domain.event import body_of
from pabal.errors import CorruptLogError, SnapshotError, StorageError
from pabal.eventsourcing.cache import CachedAggregate
from pabal.eventsourcing.snapshots import read_snapshot, restore, take_snapshot
from pabal.ports.storage import AggregateStorage

_log = logging.getLogger("pabal")
A = TypeVar("A", bound=Aggregate)


class Loader(Generic[A]):
    """Load aggregates of one class, and take snapshots of them when due.

    Snapshots are only a cache: if one cannot be used, that is logged and the events are replayed instead.
    """

    def __init__(
        self,
        cls: type[A],
        storage: AggregateStorage,
        *,
        snapshot_every: int | None,
        snapshot_when_slower: float | None,
    ) -> None:
        self._cls = cls
        self._storage = storage
        self._snapshot_every = snapshot_every
        self._snapshot_when_slower = snapshot_when_slower
        self._uses_snapshots = snapshot_every is not None or snapshot_when_slower is not None

    async def load(self, aggregate_id: str) -> CachedAggregate[A]:
        """Return the aggregate as stored in the log, at version 0 if it has no events."""
        began = time.perf_counter()
        aggregate = self._cls(aggregate_id)  # first, so that an invalid id is reported as such
        cached = await self._from_snapshot(aggregate_id) if self._uses_snapshots else None
        if cached is None:
            rows = await self._storage.read_history(self._cls.aggregate_type, aggregate_id)
            if rows and rows[0].stream_version != 1:
                raise CorruptLogError(
                    path=self._storage.path,
                    position=rows[0].position,
                    reason=f"the history of {self._cls.aggregate_type}/{aggregate_id} begins with version "
                    f"{rows[0].stream_version}: its first events were trimmed",
                )
            await _replay(aggregate, rows)
            cached = CachedAggregate(aggregate, _last_id(rows), 0, rows[-1].position if rows else 0)
        if (
            self._snapshot_when_slower is not None
            and time.perf_counter() - began > self._snapshot_when_slower
        ):
            await self._save_snapshot(cached)
        return cached

    async def _from_snapshot(self, aggregate_id: str) -> CachedAggregate[A] | None:
        data = await self._storage.load_snapshot(self._cls.aggregate_type, aggregate_id)
        if data is None:
            return None
        try:
            snapshot = read_snapshot(self._cls, data)
            aggregate = restore(self._cls, aggregate_id, snapshot)
            # Read its own last event again: the snapshot may be newer than a log restored from a backup.
            rows = await self._storage.read_history(
                self._cls.aggregate_type, aggregate_id, snapshot.version - 1
            )
            if not rows or (rows[0].stream_version, rows[0].event_id) != (
                snapshot.version,
                snapshot.event_id,
            ):
                raise SnapshotError(reason=f"the log has other events up to version {snapshot.version}")
        except SnapshotError as error:
            _log.warning("%s/%s: %s; replaying its events", self._cls.aggregate_type, aggregate_id, error)
            return None
        await _replay(aggregate, rows[1:])
        return CachedAggregate(aggregate, _last_id(rows), snapshot.version, rows[-1].position)

    async def snapshot_if_due(self, cached: CachedAggregate[A]) -> None:
        """Take a snapshot if enough events were stored since the last one."""
        if (
            self._snapshot_every is not None
            and cached.aggregate.version - cached.snapshot_at >= self._snapshot_every
        ):
            await self._save_snapshot(cached)

    async def _save_snapshot(self, cached: CachedAggregate[A]) -> None:
        aggregate = cached.aggregate
        if cached.last_event_id is None or cached.snapshot_at == aggregate.version or not cached.is_untouched:
            return  # the state may hold events recorded outside of its changes, which are never stored
        cached.snapshot_at = aggregate.version
        try:
            data = take_snapshot(aggregate, id_to_bytes(cached.last_event_id))
        except SnapshotError as error:
            _log.warning("%s/%s: no snapshot is taken: %s", aggregate.aggregate_type, aggregate.id, error)
            return
        try:
            await self._storage.save_snapshot(aggregate.aggregate_type, aggregate.id, aggregate.version, data)
        except StorageError as error:
            # The events are stored, so the caller's change succeeded: do not raise.
            _log.warning("%s/%s: no snapshot is saved: %s", aggregate.aggregate_type, aggregate.id, error)


async def _replay(aggregate: Aggregate, rows: Sequence[StoredRecord]) -> None:
    async for part in iter_slices(rows):
        aggregate.replay(body_of(decode_event(row)) for row in part)


def _last_id(rows: list[StoredRecord]) -> str | None:
    return id_to_text(rows[-1].event_id) if rows else None
