"""Projections with a full disk or a locked file, and with callers whose waits fail."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing, suppress
from pathlib import Path
from traceback import walk_tb
from typing import Any, ClassVar

import pytest

from pabal import SqliteEventStorage
from pabal.errors import ProjectionHandlerError, StorageUnavailableError
from pabal.eventsourcing import InMemoryProjection, Projection, ProjectionTransaction, projects
from pabal.eventsourcing.waiters import PositionWaiters
from tests.eventsourcing.samples import Stray
from tests.pragmas import set_pragma


@pytest.fixture
async def storage(tmp_path: Path) -> AsyncIterator[SqliteEventStorage]:
    async with SqliteEventStorage(tmp_path / "log.db", durability="normal") as storage:
        yield storage


class Bulky(Projection):
    tables = """
        -- takes a lot of space; /* all of it */
        CREATE TABLE {bulky} (number INTEGER NOT NULL, padding TEXT NOT NULL);  -- for each event
    """

    @projects(Stray)
    def _stray(self, event: Stray, tx: ProjectionTransaction) -> None:
        tx.execute("INSERT INTO {bulky} VALUES (?, ?)", (event.number, "x" * event.number))


async def test_a_stopped_projection_no_longer_listens_to_its_storage(
    storage: SqliteEventStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each start would add a listener for as long as the storage is open, and keep its event loop alive."""
    listening: list[str] = []

    def count(name: str) -> None:
        add = getattr(storage, name)

        def counted(listener: Any) -> Any:
            listening.append(name)
            end = add(listener)

            def ended() -> None:
                listening.remove(name)
                end()

            return ended

        monkeypatch.setattr(storage, name, counted)

    count("add_listener")
    count("listen_to_others")
    projection = Bulky(storage)
    for _ in range(2):
        async with projection:
            assert listening == ["add_listener", "listen_to_others"]
        assert listening == []


async def _limit(storage: SqliteEventStorage, pages: int) -> None:
    """Make SQLite report a full disk after a few more pages."""
    used = await storage.transact(lambda tx: tx.execute("PRAGMA page_count").fetchone()[0])
    await set_pragma(storage, f"max_page_count = {used + pages}")


async def _make_room(storage: SqliteEventStorage) -> None:
    """Lift the limit, again if that failed with a write in the same commit for which the disk is full."""
    while True:
        with suppress(StorageUnavailableError):
            return await set_pragma(storage, "max_page_count = 1000000")


async def test_a_projection_continues_once_a_full_disk_has_space_again(
    storage: SqliteEventStorage, caplog: pytest.LogCaptureFixture
) -> None:
    """Promise 37. It would stop for good, and blame the application's handler."""
    retried = asyncio.Event()

    def notice_retry(record: logging.LogRecord) -> bool:
        if "tries again" in record.getMessage():
            retried.set()
        return True

    caplog.handler.addFilter(notice_retry)
    async with Bulky(storage) as bulky:
        await bulky.reached(await storage.store_event(Stray(1)), timeout=30)
        await _limit(storage, 8)
        position = await storage.store_event(Stray(500_000))
        async with asyncio.timeout(30):
            await retried.wait()
        assert bulky.is_running
        await _make_room(storage)
        await bulky.reached(position, timeout=30)
        assert await bulky.rows("SELECT number FROM {bulky}") == [(1,), (500_000,)]


async def test_creating_tables_on_a_full_disk_raises_storage_unavailable(storage: SqliteEventStorage) -> None:
    """An operator would look for a mistake in the tables."""
    await storage.store_events([Stray(500_000)])
    await _limit(storage, 8)
    with pytest.raises(StorageUnavailableError, match="full"):
        await Bulky(storage).start()
    await _make_room(storage)
    async with Bulky(storage) as bulky:
        assert await bulky.rows("SELECT number FROM {bulky}") == [(500_000,)]


async def test_cancelled_and_timed_out_waits_leave_no_waiters(storage: SqliteEventStorage) -> None:
    """Requests for a position that is never reached would fill the memory of an idle process."""
    async with Bulky(storage) as bulky:
        for _ in range(10):
            with pytest.raises(TimeoutError):
                await bulky.reached(1_000, timeout=0)
        waiting = asyncio.create_task(bulky.reached(1_000))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        assert bulky._waiters._waiting == []


@pytest.mark.parametrize("finish", [lambda all: all.notify(5), lambda all: all.release(ValueError())])
async def test_a_wait_that_is_cancelled_in_the_moment_it_ends_harms_no_other(finish: Any) -> None:
    """A request that its client gives up just then would end the projection with an InvalidStateError."""
    waiters = PositionWaiters()
    given_up = asyncio.create_task(waiters.wait(5, None))
    waiting = asyncio.create_task(waiters.wait(5, None))
    await asyncio.sleep(0)
    given_up.cancel()
    finish(waiters)
    await asyncio.wait([given_up, waiting])
    assert given_up.cancelled()
    assert not waiting.cancelled()
    waiting.exception()


def test_the_cache_of_statements_is_bounded() -> None:
    """A method that writes values into its statements would slowly fill the memory."""
    known: dict[str, str] = {}
    with closing(sqlite3.connect(":memory:")) as connection:
        Bulky.model.tables.create(connection, "")
        tx = ProjectionTransaction(connection, Bulky.model.tables, "", known)
        for number in range(3_000):
            tx.execute(f"INSERT INTO {{bulky}} VALUES ({number}, '')")
        assert tx.execute("SELECT count(*) FROM {bulky}").fetchone() == (3_000,)
    assert len(known) <= 1_000


async def test_a_rebuild_that_fails_on_a_full_disk_drops_its_tables(storage: SqliteEventStorage) -> None:
    """An abandoned rebuild would take the space that is missing, and hold back trimming."""
    await storage.store_events([Stray(100_000) for _ in range(10)])
    async with Bulky(storage, batch=2) as bulky:
        await _limit(storage, 100)
        with pytest.raises(StorageUnavailableError, match="full"):
            await bulky.rebuild()
        assert await storage.query("SELECT generation, is_live FROM pabal_projections") == [(1, 1)]
        assert await bulky.rows("SELECT count(*) FROM {bulky}") == [(10,)]


async def test_a_rebuild_whose_progress_callback_fails_drops_its_tables(storage: SqliteEventStorage) -> None:
    """A closed terminal would leave half a model, which holds back trimming."""
    await storage.store_event(Stray(1))

    def closed(position: int, head: int) -> None:
        raise BrokenPipeError

    async with Bulky(storage) as bulky:
        with pytest.raises(BrokenPipeError):
            await bulky.rebuild(progress=closed)
        assert await storage.query("SELECT generation, is_live FROM pabal_projections") == [(1, 1)]


async def test_reloading_after_another_process_rebuilt_is_retried_while_the_file_is_locked(
    storage: SqliteEventStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise 37. A backup at the wrong moment would stop the projection for good."""
    locked = StorageUnavailableError(path=storage.path, reason="another process kept it locked for too long")
    async with SqliteEventStorage(storage.path) as there, Bulky(storage) as bulky:
        await bulky.reached(await storage.store_event(Stray(1)), timeout=30)
        await Bulky(there).rebuild()
        reload, failures = bulky._reload, iter([True])

        async def reload_while_locked() -> None:
            if next(failures, False):
                raise locked
            await reload()

        monkeypatch.setattr(bulky, "_reload", reload_while_locked)
        await bulky.reached(await storage.store_event(Stray(2)), timeout=30)
        assert next(failures, None) is None


async def test_raising_the_failure_of_a_stopped_projection_does_not_grow_its_traceback(
    storage: SqliteEventStorage,
) -> None:
    """Each request that waits for a stopped projection would leave its frames in memory."""

    class Failing(Bulky):
        def _stray(self, event: Stray, tx: ProjectionTransaction) -> None:
            raise ValueError("wrong")

    lengths: set[int] = set()
    async with Failing(storage) as failing:
        position = await storage.store_event(Stray(1))
        with pytest.raises(ProjectionHandlerError):
            await failing.reached(position, timeout=30)
        for _ in range(5):
            with pytest.raises(ProjectionHandlerError) as caught:
                await failing.reached(position)
            lengths.add(len(list(walk_tb(caught.value.__traceback__))))
    assert len(lengths) == 1


class _UnprintableError(Exception):
    """An exception whose str() and repr() fail."""

    def __str__(self) -> str:
        raise ZeroDivisionError

    __repr__ = __str__


@pytest.mark.parametrize(
    "error", [SystemExit, GeneratorExit, KeyboardInterrupt, asyncio.CancelledError, _UnprintableError]
)
async def test_any_exception_of_a_handler_reaches_the_callers_of_reached(
    storage: SqliteEventStorage, error: type[BaseException]
) -> None:
    """The projection would end without a reason, and callers would wait for it forever."""

    class Leaving(Bulky):
        def _stray(self, event: Stray, tx: ProjectionTransaction) -> None:
            raise error

    async with Leaving(storage) as leaving:
        position = await storage.store_event(Stray(1))
        with pytest.raises(ProjectionHandlerError, match=error.__name__):
            await leaving.reached(position, timeout=30)
        assert isinstance(leaving.failure, ProjectionHandlerError)
    assert await storage.store_event(Stray(2)) == position + 1


def test_a_projection_can_be_started_in_one_event_loop_after_another(tmp_path: Path) -> None:
    """In a script with two asyncio.run(), the projection would stop as soon as it has nothing to do."""

    class Resting(Bulky):
        resting: ClassVar[asyncio.Event]

        async def _wait_for_events(self) -> None:
            self.resting.set()
            await super()._wait_for_events()

    async def follow() -> None:
        Resting.resting = asyncio.Event()
        async with projection, asyncio.timeout(30):
            await projection.resting.wait()
            await projection.reached(await storage.store_event(Stray(1)))

    with SqliteEventStorage(tmp_path / "loops.db", durability="normal") as storage:
        projection = Resting(storage)
        asyncio.run(follow())
        asyncio.run(follow())


async def test_a_plain_function_that_returns_a_coroutine_or_generator_raises(
    storage: SqliteEventStorage,
) -> None:
    """Behind a decorator it looks like a plain method: each event would count as projected without effect."""

    async def pausing(self: Any, event: Stray, tx: Any) -> None:
        tx.execute("INSERT INTO {t} VALUES (1)")

    def generating(self: Any, event: Stray, tx: Any) -> Any:
        yield tx.execute("INSERT INTO {t} VALUES (1)")

    await storage.store_event(Stray(1))
    for inner in (pausing, generating):

        def hidden(self: Any, event: Stray, tx: Any, inner: Any = inner) -> Any:
            return inner(self, event, tx)

        body = {"tables": "CREATE TABLE {t} (a)", "name": "hiding", "m": projects(Stray)(hidden)}
        projection_class: Any = type("Hiding", (Projection,), body)
        with pytest.raises(ProjectionHandlerError, match="it returned a coroutine or generator"):
            await projection_class(storage).start()
        with pytest.raises(ProjectionHandlerError, match="it returned a coroutine or generator"):
            InMemoryProjection(projection_class, [Stray(1)])
