"""``Repository``: aggregates of one class, kept as events."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from inspect import isawaitable, iscoroutine, iscoroutinefunction
from typing import Any, Generic, TypeVar, cast, overload

from pabal.domain.aggregate import Aggregate
from pabal.domain.decider import DecidedAggregate, Decider, aggregate_of
from pabal.domain.envelope import Receipt
from pabal.errors import AggregateNotFoundError, ConcurrencyError, UsageError
from pabal.eventsourcing.appending import Change, receipt_of, refuse_trimmed, storage_of, submit
from pabal.eventsourcing.line import OvertakenError
from pabal.eventsourcing.live import Live, LiveAggregates
from pabal.eventsourcing.loading import Loader
from pabal.eventsourcing.unit_of_work import Edit

A = TypeVar("A", bound=Aggregate)
R = TypeVar("R")


class Repository(Generic[A]):
    """Load aggregates, have them changed, and store what they recorded.

    Storing is publishing: subscribers of a bus on the same storage receive the events from the log, so
    there is no second write and no moment at which one is done and the other is not.

    ``kind`` is a class derived from ``Aggregate``, or a ``Decider``. ``bus_or_storage`` is a bus with
    storage, or the storage. The ``keep`` aggregates used last stay in memory, for ``edit`` and ``update``; 0
    keeps none. A copy in memory does not hear of what others store: its next change raises ConcurrencyError,
    which ``update`` answers by loading anew, as it does where a change raises or records nothing.

    ``snapshot_every=100`` saves a snapshot after ``edit`` or ``update`` once 100 events have come since the
    last one, ``snapshot_when_slower=0.05`` whenever loading took longer than 50 ms (it is in seconds).
    Without either there are none. A snapshot that cannot be used is logged, and the events are replayed.

    Of event loops that run at a time, in threads, each needs a repository of its own: ``edit`` and ``update``
    raise UsageError in another one. Raises UsageError for a bus without storage, for a ``kind`` that is
    neither, and for bad numbers.

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
        self.aggregate_class = cls
        self.storage = storage_of(bus_or_storage)
        self.loader: Loader[A] = Loader(
            cls, self.storage, snapshot_every=snapshot_every, snapshot_when_slower=snapshot_when_slower
        )
        self.lives: LiveAggregates[A] = LiveAggregates(keep)

    # -- reading --------------------------------------------------------------------------------------

    async def load(self, aggregate_id: str) -> A:
        """Return a copy of the aggregate as it is in the log now; it is the caller's own.

        Raises AggregateNotFoundError where the log holds no event of it, CorruptLogError where its first
        events were trimmed, other StorageErrors, DecodeError, AggregateDefinitionError for an empty id.
        """
        return self._existing((await self.loader.load(aggregate_id)).aggregate)

    async def exists(self, aggregate_id: str) -> bool:
        """Tell whether any event was stored for this id. Raises the other errors of ``load``."""
        return (await self.loader.load(aggregate_id)).aggregate.version > 0

    def _existing(self, aggregate: A) -> A:
        if aggregate.version == 0:
            raise AggregateNotFoundError(aggregate_type=aggregate.aggregate_type, aggregate_id=aggregate.id)
        return aggregate

    # -- changing -------------------------------------------------------------------------------------

    def edit(self, aggregate_id: str, *, must_exist: bool = False) -> Edit[A]:
        """Return what ``async with`` takes: it gives the aggregate, and stores what the block recorded.

        An id without events gives a new aggregate at version 0, unless it ``must_exist``. A block that
        raises stores nothing, and neither is stored what is recorded on the aggregate after the block. Keep
        what this returned to read its ``receipt`` afterwards: that of the newest event, or None if the block
        recorded none.

        Entering the block raises AggregateNotFoundError, StorageError or DecodeError. Leaving it raises
        ConcurrencyError if somebody else stored events of the aggregate since it was loaded (the block is
        not repeated: see ``update``), InvalidEventError, StorageError, and SpoiledAggregateError if the block
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

        For one that ``load`` returned, or that was made new. Raises ConcurrencyError unless the log has it at
        the version it was loaded at, InvalidEventError, DuplicateEventError, StorageError. Its events are
        taken out of it before they are stored, so after an error load it again.
        """
        if aggregate.stored_version == aggregate.version:
            aggregate.refuse_if_spoiled()
            return None
        change = Change(aggregate)
        try:
            positions = await submit(self.storage, [change.request])
        except ConcurrencyError as conflict:
            await refuse_trimmed(self.storage, conflict)
            raise
        self.lives.overtaken(aggregate.id, aggregate.version)
        return receipt_of([change], positions)

    # Apart, for of ``R | Awaitable[R]`` mypy cannot tell what an async function returns.
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

        After a ConcurrencyError all of it is done again on the new state, up to ``retries`` times; so
        ``change`` should do nothing that must not happen twice. An exception of ``change`` stores nothing
        and is raised here. An id without events gives a new aggregate at version 0, unless it ``must_exist``.

        Concurrent updates of one aggregate by plain functions do not wait for each other's commit: each sees
        the state that the one before made, and they are committed together, in that order. An async function
        gets an aggregate of its own, as with ``edit``, so concurrent ones may conflict.

        Raises ConcurrencyError after the last retry, AggregateNotFoundError, InvalidEventError, StorageError,
        DecodeError, and UsageError for a plain function that returns something to await.
        """
        pausing = iscoroutinefunction(change)
        once = self._update_alone if pausing else self._update_in_line
        while True:
            try:
                return await once(aggregate_id, change, must_exist)
            except OvertakenError:
                continue
            except ConcurrencyError:
                if retries <= 0:
                    raise
                retries -= 1

    async def _update_alone(self, aggregate_id: str, change: Callable[[A], Any], must_exist: bool) -> Any:
        async with self.edit(aggregate_id, must_exist=must_exist) as aggregate:
            return await change(aggregate)

    async def _update_in_line(self, aggregate_id: str, change: Callable[[A], Any], must_exist: bool) -> Any:
        self._refuse_other_loop()
        kept = self.lives.get(aggregate_id)
        live = kept or self.lives.put(await self.loader.load(aggregate_id))
        aggregate = live.aggregate
        # From here to the append nothing waits: who comes next finds this state, and expects its version.
        try:
            if must_exist:
                self._existing(aggregate)
            result = change(aggregate)
            if isawaitable(result):
                if iscoroutine(result):
                    result.close()
                raise UsageError(f"{change!r} returned something to await; pass an async function instead")
            if aggregate.stored_version != aggregate.version:
                kept = None  # its append hears of what others have stored
                return await self._append(live, result)
            aggregate.refuse_if_spoiled()
        except BaseException as error:
            if aggregate.stored_version != aggregate.version or aggregate.is_spoiled:
                self.lives.discard(live)
            if isinstance(error, Exception):  # a cancellation is no decision
                # It may have decided by events that are not stored yet, and never will be.
                await live.settled()
                await self._refuse_overtaken(kept)
            raise
        await live.settled()
        await self._refuse_overtaken(kept)
        return result

    async def _refuse_overtaken(self, kept: Live[A] | None) -> None:
        """Raise OvertakenError where somebody else has changed an aggregate since its copy was kept.

        For decisions that store nothing: no append hears of it.
        """
        if kept is None:
            return
        aggregate = kept.aggregate
        rows = await self.storage.read_history(
            aggregate.aggregate_type, aggregate.id, aggregate.stored_version
        )
        # Compared with its version by now: what was added meanwhile may be of this very copy.
        if rows and (rows[-1].stream_version or 0) > aggregate.stored_version:
            self.lives.discard(kept)
            raise OvertakenError

    def _refuse_other_loop(self) -> None:
        if not self.lives.belong_here():
            raise UsageError(
                f"the repository of {self.aggregate_class.__name__} is used by another event loop, and "
                "cannot wait for it here; make one for each loop, on the same storage, or give the call to "
                "that loop with asyncio.run_coroutine_threadsafe(…, loop)"
            )

    async def _append(self, live: Live[A], result: R) -> R:
        change = Change(live.aggregate)
        live.last_event_id = change.last_event_id
        line = live.open_line(self.storage, lambda: self.lives.discard(live))
        live.waiting += 1
        try:
            try:
                await asyncio.shield(line.join(change))
            except ConcurrencyError as conflict:
                await refuse_trimmed(self.storage, conflict)
                raise
            # A block may have it by now, and have recorded what is not stored yet.
            if live.is_settled and self.lives.get(live.aggregate.id) is live:
                await self.loader.stored(live)
        finally:
            live.waiting -= 1
            self.lives.shrink()
        return result

    # -- for units of work ----------------------------------------------------------------------------

    async def check_out(self, aggregate_id: str, *, must_exist: bool) -> Live[A]:
        """Return an aggregate that is nobody else's; called by ``UnitOfWork``."""
        self._refuse_other_loop()
        live = await self._take_out(aggregate_id) or await self.loader.load(aggregate_id)
        if must_exist:
            self._existing(live.aggregate)
        return live

    async def _take_out(self, aggregate_id: str) -> Live[A] | None:
        """Return the copy that is kept, to be kept no longer; None unless all of it is stored."""
        live = self.lives.get(aggregate_id)
        if live is None:
            return None
        try:
            await live.settled()
            if not self.lives.discard(live):
                return None
            # Before this task had its turn others may have changed it again; from here on nobody can.
            await live.settled()
        except (ConcurrencyError, OvertakenError):
            return None
        return live if live.is_untouched else None

    async def check_in(self, live: Live[A]) -> None:
        """Take an aggregate back after its events were stored; called by ``UnitOfWork``."""
        # Somebody may have loaded it while it was away.
        self.lives.overtaken(live.aggregate.id, live.aggregate.version)
        self.lives.put(live)
        await self.loader.stored(live)
