"""Change several aggregates in one atomic append."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from pabal.domain.aggregate import Aggregate
from pabal.domain.envelope import Receipt
from pabal.errors import ConcurrencyError, UsageError
from pabal.eventsourcing.appending import Change, refuse_trimmed, storage_of
from pabal.eventsourcing.cache import CachedAggregate
from pabal.ports.storage import AggregateStorage, StreamAppend

if TYPE_CHECKING:
    from pabal.eventsourcing.repository import Repository

A = TypeVar("A", bound=Aggregate)


class UnitOfWork:
    """Append the events that several aggregates recorded in one step: all of them, or none.

    Use it with ``async with``: leaving the block commits; an exception in the block discards everything.
    Afterwards ``receipt`` is that of the newest event, or None if nothing was recorded. All repositories must
    use the storage passed here, directly or through its bus.

    Leaving the block raises what ``commit`` raises; the block is not retried. Raises UsageError for a bus
    without storage.

    >>> import asyncio
    >>> from pabal import DomainEvent, InMemoryEventStorage
    >>> from pabal.domain import applies
    >>> from pabal.eventsourcing import Repository
    >>> class Moved(DomainEvent):
    ...     aggregate_type = "account"
    ...     account: str
    ...     amount: int
    ...     @property
    ...     def aggregate_id(self) -> str:
    ...         return self.account
    >>> class Account(Aggregate):
    ...     balance: int = 0
    ...     def move(self, amount: int) -> None:
    ...         self.record(Moved(self.id, amount))
    ...     @applies(Moved)
    ...     def _moved(self, event: Moved) -> None:
    ...         self.balance += event.amount
    >>> async def main() -> int:
    ...     storage = InMemoryEventStorage()
    ...     accounts = Repository(Account, storage)
    ...     async with UnitOfWork(storage) as work:
    ...         (await work.edit(accounts, "kim")).move(-10)
    ...         (await work.edit(accounts, "lee")).move(10)
    ...     return (await accounts.load("lee")).balance
    >>> asyncio.run(main())
    10
    """

    def __init__(self, bus_or_storage: Any) -> None:
        self._storage = storage_of(bus_or_storage)
        self._checked_out: dict[tuple[str, str], tuple[Repository[Any], CachedAggregate[Any]]] = {}
        self._extra_requests: list[StreamAppend] = []
        self.receipt: Receipt | None = None

    @property
    def storage(self) -> AggregateStorage:
        """Return the storage to which the events are appended."""
        return self._storage

    def append(self, request: StreamAppend) -> None:
        """Add events of a stream that has no repository; they are stored last in the same append.

        ``request`` is a ``pabal.ports.storage.StreamAppend`` of at least one event.
        """
        self._extra_requests.append(request)

    async def edit(self, repository: Repository[A], aggregate_id: str, *, must_exist: bool = False) -> A:
        """Return an aggregate whose events are stored at the end; the same object for the same id.

        An id without events gives a new aggregate at version 0, unless it ``must_exist``. Raises UsageError
        for a repository on another storage, AggregateNotFoundError, StorageError, DecodeError.
        """
        if repository.storage is not self._storage:
            raise UsageError(
                f"the repository of {repository.aggregate_class.__name__} is on another storage; "
                "a unit of work writes to one log"
            )
        key = (repository.aggregate_class.aggregate_type, aggregate_id)
        if key not in self._checked_out:
            cached = await repository.check_out(aggregate_id, must_exist=must_exist)
            # Another task may have checked it out meanwhile.
            self._checked_out.setdefault(key, (repository, cached))
        found: A = self._checked_out[key][1].aggregate
        if not isinstance(found, repository.aggregate_class):
            raise UsageError(f"{found!r} is already in this unit of work, as another class")
        return found

    async def commit(self) -> Receipt | None:
        """Store everything recorded so far, all or none, and return the newest event's receipt.

        Returns None if nothing was ever recorded. The aggregates are released: call ``edit`` again to
        continue. Raises ConcurrencyError, with both versions, for the first aggregate that was changed
        elsewhere since it was loaded, InvalidEventError, DuplicateEventError, StorageError,
        SpoiledAggregateError.
        """
        checked_out, self._checked_out = list(self._checked_out.values()), {}
        extra_requests, self._extra_requests = self._extra_requests, []
        changed: list[tuple[Change, CachedAggregate[Any]]] = []
        for _, cached in checked_out:
            cached.aggregate.refuse_if_spoiled()
        for _, cached in checked_out:
            if cached.aggregate.stored_version != cached.aggregate.version:
                changed.append((Change(cached.aggregate), cached))
        requests = [*(change.request for change, _ in changed), *extra_requests]
        stale: set[CachedAggregate[Any]] = set()
        if requests:
            positions = await self._submit(requests, changed)
            self.receipt = Receipt(requests[-1].events[-1].event_id, positions[-1])
            stale = _note_stored(changed, positions)
        for repository, cached in checked_out:
            if cached not in stale:
                await repository.check_in(cached)
        return self.receipt

    async def refuse_stale(self, *, changed: bool) -> None:
        """Raise ConcurrencyError if a cached copy was older than the log; called by ``Idempotency``.

        Copies that recorded events are checked only if ``changed``: the append would detect that by itself.
        """
        for repository, cached in list(self._checked_out.values()):
            if cached.may_be_stale and (changed or cached.is_untouched):
                await repository.refuse_stale(cached)

    async def _submit(
        self, requests: list[StreamAppend], changed: list[tuple[Change, CachedAggregate[Any]]]
    ) -> list[int]:
        try:
            return await self._storage.append_streams(requests)
        except ConcurrencyError as conflict:
            refused = (conflict.aggregate_type, conflict.aggregate_id)
            if any((one.aggregate.aggregate_type, one.aggregate.id) == refused for one, _ in changed):
                await refuse_trimmed(self._storage, conflict)
            raise

    async def __aenter__(self) -> Self:
        """Return the unit of work itself."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Store everything, unless the block raised."""
        if kind is None:
            await self.commit()
        self._checked_out.clear()
        self._extra_requests.clear()


def _note_stored(
    changed: Iterable[tuple[Change, CachedAggregate[Any]]], positions: Iterable[int]
) -> set[CachedAggregate[Any]]:
    """Note the positions of the changes in their aggregates; return those that now differ from the log."""
    stale: set[CachedAggregate[Any]] = set()
    remaining = iter(positions)
    for change, cached in changed:
        cached.last_event_id = change.last_event_id
        if not cached.note_positions(list(islice(remaining, len(change.request.events)))):
            stale.add(cached)
    return stale


class Edit(Generic[A]):
    """The context manager that ``Repository.edit`` returns: it changes one aggregate."""

    def __init__(self, repository: Repository[A], aggregate_id: str, *, must_exist: bool) -> None:
        self._repository = repository
        self._id = aggregate_id
        self._must_exist = must_exist
        self._work = UnitOfWork(repository.storage)

    @property
    def receipt(self) -> Receipt | None:
        """Return the receipt of the newest stored event; None before the end, or if there was none."""
        return self._work.receipt

    async def __aenter__(self) -> A:
        """Return the aggregate."""
        return await self._work.edit(self._repository, self._id, must_exist=self._must_exist)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Store the recorded events, unless the block raised."""
        await self._work.__aexit__(kind, error, trace)
