"""``Projection``: a read model in SQLite tables that follows the log and applies each event exactly once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Any, ClassVar, Self

from pabal.domain.envelope import Receipt
from pabal.domain.marking import snake_case
from pabal.errors import (
    CorruptLogError,
    ProjectionDefinitionError,
    ProjectionError,
    StorageClosedError,
    StorageError,
    UsageError,
)
from pabal.eventsourcing.advancing import Advance, TableStorage, tables_of
from pabal.eventsourcing.generations import (
    Generation,
    MovedOnError,
    live_of,
    read_generations,
    refuse_other_tables,
    swap,
)
from pabal.eventsourcing.read_model import Handler, Model, handlers_of, model_of
from pabal.eventsourcing.stored_projections import drop
from pabal.eventsourcing.waiters import PositionWaiters
from pabal.ports.arguments import at_least_one
from pabal.ports.storage import Committed

Progress = Callable[[int, int], object]
_POLL_INTERVAL = 0.5
"""Seconds between checks of the log when no other process signals an event, and after a disk error."""
_log = logging.getLogger("pabal")


class Projection:
    """Base class of an application's read models: tables, and a method for each event that changes them.

    ``tables`` is the SQL that creates them, each name in braces; begin the name of an index or trigger with
    its table's, as in ``{stock}_by_article``. A method marked with ``@projects`` is a plain ``def`` that gets
    the event and the transaction in which the projection's position is saved, so both are committed or
    neither. ``name`` is the durable name; it defaults to the class name in snake case. Raise ``version`` when
    tables or methods change: the next start then rebuilds the tables from the log.

    It needs a bus or storage with tables (SQLite) and projects up to ``batch`` events per transaction.
    ``failure`` is the exception that stopped it, None while it runs. Raises ProjectionDefinitionError when a
    class is defined that cannot work, UsageError for a storage without tables.

    An event is known if it has a method or is listed in ``ignores`` (classes or type names). Any other event
    is unknown if its class is not registered or, if ``matches`` is a pattern for type names, if its type
    matches. Unknown events are skipped with a warning while following the log, and fail a rebuild.

    >>> from pabal import DomainEvent
    >>> from pabal.eventsourcing import InMemoryProjection, projects
    >>> class GoodsArrived(DomainEvent):
    ...     event_type: ClassVar[str] = "goods.arrived"
    ...     article: str
    ...     pieces: int
    >>> class Stock(Projection):
    ...     tables = "CREATE TABLE {stock} (article TEXT PRIMARY KEY, pieces INTEGER NOT NULL)"
    ...     @projects(GoodsArrived)
    ...     def _arrived(self, event, tx):
    ...         tx.execute(
    ...             "INSERT INTO {stock} VALUES (?, ?) "
    ...             "ON CONFLICT DO UPDATE SET pieces = pieces + excluded.pieces",
    ...             (event.article, event.pieces),
    ...         )
    >>> stock = InMemoryProjection(Stock, [GoodsArrived("nut", 5), GoodsArrived("nut", 2)])
    >>> stock.rows("SELECT * FROM {stock}")
    [('nut', 7)]
    """

    name: ClassVar[str] = ""
    version: ClassVar[int] = 1
    tables: ClassVar[str] = ""
    matches: ClassVar[str] = ""
    ignores: ClassVar[tuple[type | str, ...]] = ()
    _handlers: ClassVar[dict[type, Handler]] = {}
    model: ClassVar[Model]
    """The declarations of the class, collected."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "name" not in vars(cls):
            cls.name = snake_case(cls.__name__)
        cls._handlers = handlers_of(cls, cls._handlers)
        if not cls._handlers:
            raise ProjectionDefinitionError(
                "it has no method marked with @projects", projection=cls.__qualname__
            )
        cls.model = model_of(cls, cls._handlers)

    def __init__(self, bus_or_storage: Any, *, batch: int = 1000) -> None:
        at_least_one("batch", batch)
        self._storage: TableStorage = tables_of(bus_or_storage)
        self._advance = Advance(self, self.model, self._storage, batch)
        self._live: Generation | None = None
        self._stop_count = 0
        """Counts the calls of ``stop``: a ``start`` gives up if the number has changed since it began."""
        self._step_lock = asyncio.Lock()
        self._lifecycle_lock = asyncio.Lock()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._waiters = PositionWaiters()
        self.failure: Exception | None = None
        """The error that stopped it; None while it runs."""
        self._failure_traceback: TracebackType | None = None

    # -- life -----------------------------------------------------------------------------------------

    async def start(self, *, progress: Progress | None = None) -> None:
        """Start following the log from the tables' position. Does nothing if already running.

        Tables that are missing, or were made by a lower ``version``, are built first, while the old ones stay
        readable; ``progress(position, head)`` is called after each batch. Raises EventNotProjectedError and
        ProjectionHandlerError during a build, ProjectionError for other reasons (the stored tables are of a
        higher ``version`` or differ at the same one, events were trimmed), StorageError, and UsageError if
        ``stop`` was called meanwhile.

        After the start, disk errors are logged and retried. A handler that raises, an event that cannot be
        decoded, and a damaged or closed log stop the projection: see ``failure``.
        """
        check_stopped = partial(self._refuse_stopped, self._stop_count)
        async with self._lifecycle_lock:
            check_stopped()
            if self.is_running:
                return
            self.failure = None
            self._wake = asyncio.Event()  # the old one may be bound to another event loop
            self._live = await self._open(progress, check_stopped)
            end = self._listen()
            self._task = asyncio.create_task(self._follow(), name=f"pabal-{self.name}")
            self._task.add_done_callback(lambda done: end())

    async def stop(self) -> None:
        """Stop following the log. The tables stay, and the next start continues there. Harmless when stopped.

        A ``start`` that is building stops after its current batch, and so do starts that wait for it.
        """
        self._stop_count += 1
        async with self._lifecycle_lock:
            if self._task is not None:
                self._task.cancel()
                await asyncio.wait([self._task])
                self._task = None
            self._waiters.release(UsageError(f"projection {self.name!r} was stopped"))

    def _refuse_stopped(self, stops: int) -> None:
        if self._stop_count != stops:
            raise UsageError(
                f"projection {self.name!r} was stopped before it had started; the tables built so far are "
                "kept, and the next start() continues with them"
            )

    async def __aenter__(self) -> Self:
        """Start."""
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        await self.stop()

    @property
    def is_running(self) -> bool:
        """Return whether it is following the log."""
        return self._task is not None and not self._task.done()

    # -- reading --------------------------------------------------------------------------------------

    @property
    def position(self) -> int:
        """Return the log position up to which the tables are complete; 0 before the start."""
        return 0 if self._live is None else self._live.position

    async def reached(self, receipt: Receipt | int | None, timeout: float | None = None) -> None:
        """Wait until the tables include an event, given its receipt or position, to read your own writes.

        For None, the receipt of an edit that recorded nothing, it returns at once. ``timeout`` is in seconds;
        None waits forever. Raises TimeoutError, UsageError (for a receipt without a position, before
        ``start``, after ``stop``, or in another event loop), and ``failure`` if the projection has failed.
        """
        if receipt is None:
            return
        wanted = receipt if isinstance(receipt, int) else receipt.position
        if wanted is None:
            raise UsageError("that receipt has no position: its event is not in the log yet")
        if self.position >= wanted:
            return
        if self.failure is not None:
            # Without this, each call would add its frames, and the objects they hold, to the same error.
            raise self.failure.with_traceback(self._failure_traceback)
        if self._task is None or self._task.done():
            raise UsageError(f"projection {self.name!r} does not run: start() it first")
        if self._task.get_loop() is not asyncio.get_running_loop():
            raise UsageError(f"projection {self.name!r} runs in another event loop: wait in that one")
        await self._waiters.wait(wanted, timeout)

    async def rows(self, sql: str, parameters: Any = ()) -> list[Any]:
        """Return the rows of a SELECT as tuples; ``{table}`` stands for a live table.

        It works whether or not the projection is running, once the first ``start`` has made the tables.
        Raises UsageError if SQLite refuses the statement (no such table, for example) or it writes,
        StorageError.
        """
        return await self._storage.query(self.model.tables.translate(sql, ""), parameters)

    # -- building -------------------------------------------------------------------------------------

    async def rebuild(self, *, progress: Progress | None = None) -> None:
        """Rebuild the tables from the whole log, beside the live ones, and swap them in one transaction.

        The projection may be running or stopped. The live tables stay readable and, while it is running, up
        to date. ``progress(position, head)`` is called after each batch. If the rebuild fails or is
        cancelled, the live tables stay and the partial ones are dropped. Raises EventNotProjectedError,
        ProjectionHandlerError, ProjectionError (events were trimmed, or another process is rebuilding it
        too), StorageError.
        """
        try:
            await self._build(progress, anew=True)
        except MovedOnError:
            raise ProjectionError(projection=self.name, reason="another rebuild of it has started") from None

    async def remove(self) -> None:
        """Drop its tables and its position for good, so that it no longer holds back ``trim``.

        Raises UsageError while it is running, StorageError. If another process is running it, that one stops
        with a ProjectionError.
        """
        async with self._lifecycle_lock:
            if self.is_running:
                raise UsageError(f"projection {self.name!r} runs: stop() it first")
            await self._advance.transact(lambda tx: drop(tx, self.name))
            self._live = None

    async def _open(self, progress: Progress | None, check_stopped: Callable[[], None]) -> Generation:
        while True:
            live = live_of(await self._storage.transact(lambda tx: read_generations(tx, self.name)))
            if live is not None and live.version == self.version:
                known = {table.lower() for table in live.tables}
                if not all(table.lower() in known for table in self.model.tables.names):
                    refuse_other_tables(self.name, live, self.model.tables.names)
                return live
            if live is not None and live.version > self.version:
                self._refuse_newer(live)
            try:
                return await self._build(progress, anew=False, check_stopped=check_stopped)
            except MovedOnError:
                continue

    def _refuse_newer(self, live: Generation) -> None:
        raise ProjectionError(
            projection=self.name,
            reason=f"its tables were built by version {live.version}, this class is version {self.version}; "
            "raise its version, or call rebuild()",
        )

    async def _build(
        self, progress: Progress | None, *, anew: bool, check_stopped: Callable[[], None] = lambda: None
    ) -> Generation:
        """Build the tables: ``anew`` for a rebuild; for a start, from where an earlier one was interrupted.

        ``check_stopped`` is called after each batch and raises to end the build.
        """
        built = await self._advance.begin(anew=anew)
        try:
            while not await self._build_once(built, progress, check_stopped):
                pass
        except MovedOnError:
            raise  # the tables belong to another builder now
        except (Exception, asyncio.CancelledError) as error:
            # The next start continues an interrupted build; the next rebuild would start over.
            if anew or isinstance(error, ProjectionError):
                await self._advance.abandon(built)
            raise
        self._waiters.notify(self.position)
        return built

    async def _build_once(
        self, built: Generation, progress: Progress | None, check_stopped: Callable[[], None]
    ) -> bool:
        """Project up to the log's head and try to swap. Return False if the live tables were ahead."""
        head = await self._storage.head()
        while built.position < head and await self._advance.step(built, strict=True):
            newest = await self._storage.head()
            # The follower takes the last batch: as publishers go on appending, the end may never come.
            if newest - built.position > self._advance.batch:
                head = newest
            if progress is not None:
                progress(built.position, max(built.position, head))
            check_stopped()
        async with self._step_lock:
            # The follower holds still, so the events it has projected are all that is left.
            while built.position < self.position and await self._advance.step(built, strict=True):
                pass
            if not await self._advance.transact(lambda tx: swap(tx, self.name, built)):
                return False
            built.is_live, built.saved = True, built.position
            built.translated.clear()
            self._live = built
        return True

    # -- following ------------------------------------------------------------------------------------

    def _listen(self) -> Callable[[], None]:
        """Have commits of this and other processes wake the follower. Return a function that ends this."""
        loop = asyncio.get_running_loop()

        def committed(batch: Committed) -> None:
            try:
                loop.call_soon_threadsafe(self._wake.set)
            except RuntimeError:
                pass  # the loop is closed, and the follower with it; the event is in the log

        own = self._storage.add_listener(committed)
        others = self._storage.listen_to_others(self._wake.set)

        def end() -> None:
            own()
            others()

        return end

    async def _follow(self) -> None:
        try:
            while True:
                self._wake.clear()
                if not await self._project_next():
                    await self._wait_for_events()
        except Exception as error:
            _log.error("projection %r stopped: %s", self.name, error)
            self.failure, self._failure_traceback = error, error.__traceback__
            self._waiters.release(error)

    async def _project_next(self) -> bool:
        """Project the next batch. Return False if there is nothing to do right now."""
        assert self._live is not None
        try:
            try:
                async with self._step_lock:
                    has_moved = await self._advance.step(self._live, strict=False)
            except MovedOnError:
                await self._reload()
                return True
        except (CorruptLogError, StorageClosedError):
            raise
        except StorageError as error:
            _log.warning("projection %r tries again: %s", self.name, error)
            return False
        if has_moved:
            self._waiters.notify(self.position)
        return has_moved

    async def _reload(self) -> None:
        """Reload the generation after another process has changed it."""
        async with self._step_lock:
            live = live_of(await self._storage.transact(lambda tx: read_generations(tx, self.name)))
            if live is None:
                raise ProjectionError(projection=self.name, reason="its tables were removed")
            if live.version > self.version:
                self._refuse_newer(live)
            if live.version < self.version:
                raise ProjectionError(
                    projection=self.name,
                    reason=f"its tables were rebuilt by version {live.version}, this class is version "
                    f"{self.version}; start it again to build its own",
                )
            self._live = live
        self._waiters.notify(self.position)

    async def _wait_for_events(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(_POLL_INTERVAL):
                await self._wake.wait()
