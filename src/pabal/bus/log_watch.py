"""``wait_for`` on a bus with a log: one reader for all calls that wait, which decodes each event once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextvars import Context
from time import perf_counter
from typing import Any, NamedTuple, Protocol

from pabal.bus.waiting import as_settable_error, condition
from pabal.delivery.engine import Engine
from pabal.delivery.matching import EventMatcher
from pabal.delivery.shutdown import end_tasks, is_dead
from pabal.domain.envelope import StoredRecord, decode_event
from pabal.domain.event import DomainEvent, body_of, copy_if_mutable
from pabal.errors import BusNotRunningError, DecodeError
from pabal.ports.storage import EventLog

_PAGE = 256
_TURN = 0.001
"""Seconds for which the reader keeps the event loop before it yields."""


class Found(NamedTuple):
    """What was read: rows, each with the number of its partition, and the places up to which was read."""

    rows: Sequence[tuple[int, StoredRecord]]
    places: list[int]
    is_all: bool
    """Whether the log was known to hold nothing more."""


class Source(Protocol):
    """A log to watch. Places are one position for each of its partitions."""

    async def read(self, places: list[int]) -> Found:
        """Read rows above the places, in the order of each partition."""
        ...

    async def wait(self, places: list[int]) -> None:
        """Return when there may be rows above the places. Raises BusNotRunningError."""
        ...

    def look(self) -> None:
        """End ``wait`` soon, because another call waits."""
        ...


class LocalSource:
    """The log of a bus in one process, or of several that share a file."""

    def __init__(self, engine: Engine, log: EventLog) -> None:
        self._engine = engine
        self._log = log

    async def read(self, places: list[int]) -> Found:
        """Read a page."""
        page = await self._log.read_page(places[0], limit=_PAGE)
        assert self._engine.feed is not None
        return Found([(0, row) for row in page.rows], [page.upto], page.upto >= self._engine.feed.head)

    async def wait(self, places: list[int]) -> None:
        """Return when the log has grown."""
        assert self._engine.feed is not None
        await self._engine.feed.wait_for_growth(places[0])

    def look(self) -> None:
        """Do nothing: growth is noticed at once."""


class _Call(NamedTuple):
    places: list[int]
    """Where it has looked already, by itself."""
    matcher: EventMatcher
    matches: Callable[[DomainEvent], bool]


class LogWatch:
    """Match events that enter a log against the calls that wait for one, during one run of a bus.

    A call looks at earlier events by itself until it has caught up with the reader, which does the rest. The
    reader runs while calls wait.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._calls: dict[asyncio.Future[Any], _Call] = {}
        self._places: list[int] = []
        self._reader: asyncio.Task[None] | None = None

    async def first(
        self,
        event_type: Any,
        where: Callable[[Any], bool] | None,
        places: list[int],
        *,
        has_earlier: bool,
    ) -> Any:
        """Return the first matching event above the places; without ``has_earlier``, the log ends there."""
        matcher = EventMatcher(event_type)
        matches = condition(matcher, where)
        while has_earlier or self._is_ahead_of(places):
            found = await self._source.read(places)
            for _, row in found.rows:
                event = _decode(row) if matcher.matches_name(row.event_type) else None
                if event is not None and matches(event):
                    return body_of(event)
            places, has_earlier = found.places, not found.is_all
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._calls[future] = _Call(places, matcher, matches)
        if self._reader is None or self._reader.done():
            self._places = list(places)
            # In a context of its own: it outlives the call, and the handler that may have made it.
            self._reader = asyncio.create_task(self._read(), name="pabal-watch", context=Context())
        else:
            self._source.look()
        try:
            return await future
        finally:
            del self._calls[future]

    async def stop(self) -> None:
        """Raise BusNotRunningError in all waiting calls, and end the reader."""
        self._fail()
        await end_tasks(self._reader)

    def _is_ahead_of(self, places: list[int]) -> bool:
        """Return whether the reader has passed events that a call at these places has yet to see."""
        if self._reader is None or self._reader.done():
            return False
        return any(mine > its for mine, its in zip(self._places, places, strict=True))

    async def _read(self) -> None:
        try:
            await self._source.wait(self._places)
            while self._calls:
                await self._offer(await self._source.read(self._places))
                await self._source.wait(self._places)
        except BusNotRunningError:
            self._fail()
        except Exception as error:
            self._fail(error)
        except BaseException:
            self._fail()
            raise

    async def _offer(self, found: Found) -> None:
        """Give each row to the calls that it matches; let the event loop run in between."""
        begun = perf_counter()
        for partition, row in found.rows:
            self._offer_row(partition, row)
            self._places[partition] = row.position
            if perf_counter() - begun > _TURN:
                await asyncio.sleep(0)
                begun = perf_counter()
        self._places = found.places

    def _offer_row(self, partition: int, row: StoredRecord) -> None:
        event: DomainEvent | None = None
        for future, call in tuple(self._calls.items()):
            if future.done() or row.position <= call.places[partition]:
                continue
            if event is None:
                if not call.matcher.matches_name(row.event_type):
                    continue
                event = _decode(row)
                if event is None:
                    return
            try:
                if call.matches(event):
                    future.set_result(body_of(copy_if_mutable(event)))  # a copy for each
            except Exception as error:  # ``where`` raised: its caller should know
                future.set_exception(as_settable_error(error))

    def _fail(self, error: Exception | None = None) -> None:
        """Raise an error in all waiting calls; by default, that the bus has stopped."""
        for future in self._calls:
            if not future.done() and not is_dead(future):
                future.set_exception(error or BusNotRunningError(action="wait any longer", state="stopping"))


def _decode(row: StoredRecord) -> DomainEvent | None:
    """Return the event of a row, or None if it cannot be decoded: its subscriptions park and report it."""
    try:
        return decode_event(row)
    except DecodeError:
        return None
