"""``Repository``: load and store aggregates of one class, kept as events."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from inspect import isawaitable, iscoroutine, iscoroutinefunction
from typing import Any, Generic, TypeVar, cast, overload

from pabal.domain.aggregate import Aggregate, refuse_dataclass
from pabal.domain.decider import DecidedAggregate, Decider, aggregate_of
from pabal.domain.envelope import Receipt
from pabal.errors import AggregateNotFoundError, ConcurrencyError, UsageError
from pabal.eventsourcing.appending import Change, refuse_trimmed, storage_of
from pabal.eventsourcing.cache import AggregateCache, CachedAggregate
from pabal.eventsourcing.loading import Loader
from pabal.eventsourcing.pending import OvertakenError
from pabal.eventsourcing.unit_of_work import Edit

A = TypeVar("A", bound=Aggregate)
R = TypeVar("R")


class Repository(Generic[A]):
    """Load aggregates, let callers change them, and store the events they record.

    Storing an event publishes it: subscribers of a bus on the same storage receive it from the log. There is
    no second write, so one cannot succeed while the other fails.

    ``kind`` is a class derived from ``Aggregate``, or a ``Decider``. ``bus_or_storage`` is a bus with
    storage, or the storage. The ``keep`` most recently used aggregates are cached in memory for ``edit`` and
    ``update``; 0 caches none. A cached copy does not see what other writers store: its next change raises
    ConcurrencyError. ``update`` handles this by loading the aggregate again, also if a change based on a
    stale copy raises or records nothing.

    ``snapshot_every=100`` saves a snapshot after ``edit`` or ``update`` once 100 events were stored since the
    last one; ``snapshot_when_slower=0.05`` saves one whenever loading took longer than 50 ms (it is in
    seconds). Without either, none are taken. If a snapshot cannot be used, that is logged and the events are
    replayed.

    Event loops that run at the same time, in threads, need a repository each: ``edit`` and ``update`` raise
    UsageError in a second loop. Raises UsageError for a bus without storage, for any other ``kind``, and for
    numbers out of range.

    >>> import asyncio
    >>> from pabal import DomainEvent, InMemoryEventStorage
    >>> from pabal.domain import applies
    >>> class CupFilled(DomainEvent):
    ...     aggregate_type = "cup"
    ...     cup: str
    ...     @property
    ...     def aggregate_id(self) -> str:
    ...         return self.cup
    >>> class Cup(Aggregate):
    ...     fills: int = 0
    ...     def fill(self) -> int:
    ...         self.record(CupFilled(self.id))
    ...         return self.fills
    ...     @applies(CupFilled)
    ...     def _filled(self, event: CupFilled) -> None:
    ...         self.fills += 1
    >>> async def main() -> int:
    ...     cups = Repository(Cup, InMemoryEventStorage())
    ...     async with cups.edit("blue") as cup:
    ...         cup.fill()
    ...     return await cups.update("blue", Cup.fill)
    >>> asyncio.run(main())
    2
    """

    @overload
    def __init__(
        self: Repository[DecidedAggregate],
        kind: Decider[Any, Any, Any],
        bus_or_storage: Any,
        *,
        keep: int = ...,
        snapshot_every: int | None = ...,
        snapshot_when_slower: float | None = ...,
    ) -> None: ...

    @overload
    def __init__(
        self,
        kind: type[A],
        bus_or_storage: Any,
        *,
        keep: int = ...,
        snapshot_every: int | None = ...,
        snapshot_when_slower: float | None = ...,
    ) -> None: ...

    def __init__(
        self,
        kind: Any,
        bus_or_storage: Any,
        *,
        keep: int = 1000,
        snapshot_every: int | None = None,
        snapshot_when_slower: float | None = None,
    ) -> None:
        if snapshot_every is not None and not (isinstance(snapshot_every, int) and snapshot_every >= 1):
            raise UsageError(
                f"snapshot_every is {snapshot_every!r}; it must be an int of at least 1, or None"
            )
        if not (isinstance(keep, int) and keep >= 0):
            raise UsageError(f"keep is {keep!r}; it must be an int of 0 or more")
        if snapshot_when_slower is not None and not isinstance(snapshot_when_slower, (int, float)):
            raise UsageError(f"snapshot_when_slower is {snapshot_when_slower!r}; give seconds, or None")
        cls: type[A] = cast("type[A]", aggregate_of(kind)) if isinstance(kind, Decider) else kind
        if not (isinstance(cls, type) and issubclass(cls, Aggregate)):
            raise UsageError(f"{kind!r} is neither an Aggregate class nor a Decider")
        refuse_dataclass(cls)
        self.aggregate_class = cls
        self.storage = storage_of(bus_or_storage)
        self.loader: Loader[A] = Loader(
            cls, self.storage, snapshot_every=snapshot_every, snapshot_when_slower=snapshot_when_slower
        )
        self.cache: AggregateCache[A] = AggregateCache(keep)

    # -- reading --------------------------------------------------------------------------------------

    async def load(self, aggregate_id: str) -> A:
        """Return the aggregate as it is in the log now; the caller owns this copy.

        Raises AggregateNotFoundError if the log holds no event of it, CorruptLogError if its first events
        were trimmed, other StorageErrors, DecodeError, AggregateDefinitionError for an empty id.
        """
        return self._require_existing((await self.loader.load(aggregate_id)).aggregate)

    async def exists(self, aggregate_id: str) -> bool:
        """Return whether any event is stored for this id. Raises the other errors of ``load``."""
        return (await self.loader.load(aggregate_id)).aggregate.version > 0

    def _require_existing(self, aggregate: A) -> A:
        if aggregate.version == 0:
            raise AggregateNotFoundError(aggregate_type=aggregate.aggregate_type, aggregate_id=aggregate.id)
        return aggregate

    # -- changing -------------------------------------------------------------------------------------

    def edit(self, aggregate_id: str, *, must_exist: bool = False) -> Edit[A]:
        """Return a context manager that gives the aggregate and stores what the block records.

        An id without events gives a new aggregate at version 0, unless it ``must_exist``. If the block
        raises, nothing is stored; nor is anything recorded on the aggregate after the block. Keep the
        returned object to read its ``receipt`` afterwards: that of the newest event, or None if the block
        recorded none.

        Entering the block raises AggregateNotFoundError, StorageError or DecodeError. Leaving it raises
        ConcurrencyError if another writer stored events of the aggregate since it was loaded (the block is
        not retried: see ``update``), InvalidEventError, StorageError, and SpoiledAggregateError if the block
        caught the error of a command method that had recorded events.

        >>> import asyncio
        >>> from pabal import DomainEvent, InMemoryEventStorage
        >>> from pabal.domain import applies
        >>> class LampLit(DomainEvent):
        ...     aggregate_type = "lamp"
        ...     lamp: str
        ...     @property
        ...     def aggregate_id(self) -> str:
        ...         return self.lamp
        >>> class Lamp(Aggregate):
        ...     is_lit: bool = False
        ...     def light(self) -> None:
        ...         self.record(LampLit(self.id))
        ...     @applies(LampLit)
        ...     def _lit(self, event: LampLit) -> None:
        ...         self.is_lit = True
        >>> async def main() -> int:
        ...     edit = Repository(Lamp, InMemoryEventStorage()).edit("hall")
        ...     async with edit as lamp:
        ...         lamp.light()
        ...     return edit.receipt.position
        >>> asyncio.run(main())
        1
        """
        return Edit(self, aggregate_id, must_exist=must_exist)

    async def save(self, aggregate: A) -> Receipt | None:
        """Store what an aggregate recorded and return the newest event's receipt; None if it recorded none.

        Takes an aggregate that ``load`` returned, or a new one. Raises ConcurrencyError unless the log has it
        at the version it was loaded at, InvalidEventError, DuplicateEventError, StorageError. Its events are
        removed from it before they are stored, so load it again after an error.
        """
        if aggregate.stored_version == aggregate.version:
            aggregate.refuse_if_spoiled()
            return None
        change = Change(aggregate)
        try:
            positions = await self.storage.append_streams([change.request])
        except ConcurrencyError as conflict:
            await refuse_trimmed(self.storage, conflict)
            raise
        self.cache.evict_older(aggregate.id, aggregate.version)
        return Receipt(change.last_event_id, positions[-1])

    # Two overloads, because mypy cannot infer an async function's result from ``R | Awaitable[R]``.
    @overload
    async def update(
        self,
        aggregate_id: str,
        change: Callable[[A], Awaitable[R]],
        *,
        retries: int = ...,
        must_exist: bool = ...,
    ) -> R: ...
    @overload
    async def update(
        self, aggregate_id: str, change: Callable[[A], R], *, retries: int = ..., must_exist: bool = ...
    ) -> R: ...
    async def update(
        self,
        aggregate_id: str,
        change: Callable[[A], Any],
        *,
        retries: int = 3,
        must_exist: bool = False,
    ) -> Any:
        """Call ``change(aggregate)``, store what it recorded, and return its result.

        After a ConcurrencyError, ``change`` is called again with the new state, up to ``retries`` times, so
        it should do nothing that must not happen twice. If ``change`` raises, nothing is stored and the
        exception is raised here. An id without events gives a new aggregate at version 0, unless it
        ``must_exist``.

        Concurrent updates of one aggregate with plain functions do not wait for each other's commit: each
        sees the state left by the one before, and they are committed together, in that order. An async
        function gets its own copy of the aggregate, as with ``edit``, so concurrent ones may conflict.

        Raises ConcurrencyError after the last retry, AggregateNotFoundError, InvalidEventError, StorageError,
        DecodeError, and UsageError if a plain function returns an awaitable.
        """
        is_async = iscoroutinefunction(change)
        attempt = self._update_own_copy if is_async else self._update_cached
        while True:
            try:
                return await attempt(aggregate_id, change, must_exist)
            except OvertakenError:
                continue
            except ConcurrencyError:
                if retries <= 0:
                    raise
                retries -= 1
            finally:
                self.cache.shrink()

    async def _update_own_copy(self, aggregate_id: str, change: Callable[[A], Any], must_exist: bool) -> Any:
        async with self.edit(aggregate_id, must_exist=must_exist) as aggregate:
            return await change(aggregate)

    async def _update_cached(self, aggregate_id: str, change: Callable[[A], Any], must_exist: bool) -> Any:
        self._refuse_other_loop()
        from_cache = self.cache.get(aggregate_id)
        cached = from_cache or await self.cache.load(aggregate_id, self.loader.load)
        aggregate = cached.aggregate
        # No await from here to the append: the next update must find this state and expect its version.
        try:
            if must_exist:
                self._require_existing(aggregate)
            result = change(aggregate)
            if isawaitable(result):
                if iscoroutine(result):
                    result.close()
                raise UsageError(f"{change!r} returned an awaitable; pass an async function instead")
            if aggregate.stored_version != aggregate.version:
                from_cache = None  # the append itself detects concurrent changes
                await self._append(cached)
                return result
            aggregate.refuse_if_spoiled()
        except BaseException as error:
            if not cached.is_untouched:
                self.cache.discard(cached)
            if isinstance(error, Exception):  # not a cancellation
                # The error may rest on events that are not stored yet and, if refused, never will be.
                await cached.settled()
                await self._refuse_overtaken(from_cache)
            raise
        await cached.settled()
        await self._refuse_overtaken(from_cache)
        return result

    async def _refuse_overtaken(self, cached: CachedAggregate[A] | None) -> None:
        """Raise OvertakenError if another writer has changed an aggregate since its copy was cached.

        For decisions that store nothing, and so have no append that would detect it.
        """
        if cached is not None and await self._version_if_stale(cached):
            self.cache.discard(cached)
            raise OvertakenError

    async def _version_if_stale(self, cached: CachedAggregate[A]) -> int | None:
        """Return the version in the log if that is newer than a copy, else None."""
        aggregate = cached.aggregate
        rows = await self.storage.read_history(
            aggregate.aggregate_type, aggregate.id, aggregate.stored_version
        )
        newest = (rows[-1].stream_version or 0) if rows else 0
        # Compare with its current version: events stored meanwhile may come from this very copy.
        return newest if newest > aggregate.stored_version else None

    def _refuse_other_loop(self) -> None:
        if not self.cache.bind_to_running_loop():
            raise UsageError(
                f"the repository of {self.aggregate_class.__name__} is used by another event "
                "loop and cannot be awaited here; make one for each loop, on the same storage, or run the "
                "call on that loop with asyncio.run_coroutine_threadsafe(…, loop)"
            )

    async def _append(self, cached: CachedAggregate[A]) -> None:
        change = Change(cached.aggregate)
        cached.last_event_id = change.last_event_id
        pending = cached.open_pending(self.storage, lambda: self.cache.discard(cached))
        cached.waiting += 1
        try:
            try:
                await asyncio.shield(pending.add(change))
            except ConcurrencyError as conflict:
                await refuse_trimmed(self.storage, conflict)
                raise
            # By now an edit may hold the aggregate and have recorded events that are not stored yet.
            if cached.is_settled and self.cache.get(cached.aggregate.id) is cached:
                await self.loader.snapshot_if_due(cached)
        finally:
            cached.waiting -= 1

    # -- for units of work ----------------------------------------------------------------------------

    async def check_out(self, aggregate_id: str, *, must_exist: bool) -> CachedAggregate[A]:
        """Return an aggregate that nothing else uses; called by ``UnitOfWork``."""
        self._refuse_other_loop()
        cached = await self._take_from_cache(aggregate_id) or await self.loader.load(aggregate_id)
        if must_exist:
            self._require_existing(cached.aggregate)
        return cached

    async def _take_from_cache(self, aggregate_id: str) -> CachedAggregate[A] | None:
        """Remove the cached copy and return it; None unless it has events and all of them are stored."""
        cached = self.cache.get(aggregate_id)
        if cached is None:
            return None
        try:
            await cached.settled()
            if not self.cache.discard(cached):
                return None
            # Other tasks may have changed it before this one resumed; from here on none can reach it.
            await cached.settled()
        except (ConcurrencyError, OvertakenError):
            return None
        if not cached.is_untouched or not cached.aggregate.version:
            return None
        cached.may_be_stale = True
        return cached

    async def refuse_stale(self, cached: CachedAggregate[A]) -> None:
        """Raise ConcurrencyError if the log is newer than a checked out copy; called by ``UnitOfWork``."""
        newest = await self._version_if_stale(cached)
        if newest is not None:
            aggregate = cached.aggregate
            raise ConcurrencyError(
                aggregate_type=aggregate.aggregate_type,
                aggregate_id=aggregate.id,
                expected_version=aggregate.stored_version,
                actual_version=newest,
            )

    async def check_in(self, cached: CachedAggregate[A]) -> None:
        """Cache an aggregate again after its events were stored; called by ``UnitOfWork``."""
        # Another task may have loaded and cached an older copy meanwhile.
        self.cache.evict_older(cached.aggregate.id, cached.aggregate.version)
        self.cache.put(cached)
        self.cache.shrink()
        await self.loader.snapshot_if_due(cached)
