"""``transact``: business rows and events commit together or not at all."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pabal import DuplicateEventError, SqliteEventStorage
from pabal.errors import UsageError
from tests.storage.events import Tick, ticks


@pytest.fixture
async def accounts(storage: SqliteEventStorage) -> SqliteEventStorage:
    await storage.transact(lambda tx: tx.execute("CREATE TABLE accounts (name TEXT PRIMARY KEY, cents INT)"))
    return storage


async def balances(storage: SqliteEventStorage) -> list[tuple[str, int]]:
    return await storage.transact(lambda tx: tx.execute("SELECT * FROM accounts ORDER BY name").fetchall())


async def test_rows_and_events_commit_together(accounts: SqliteEventStorage) -> None:
    """`transact` exists to prevent a row without its event, and an event without its row."""
    heard: list[Any] = []
    accounts.add_listener(heard.append)

    def deposit(tx: Any) -> int:
        tx.executemany("INSERT INTO accounts VALUES (?, ?)", [("kim", 100), ("lee", 5)])
        position: int = tx.store_event(Tick("kim", 100))
        tx.store_events(ticks(2, "lee"))
        return position

    assert await accounts.transact(deposit) == 1
    assert await balances(accounts) == [("kim", 100), ("lee", 5)]
    assert await accounts.head() == 3
    assert [(batch.first, len(batch.events)) for batch in heard] == [(1, 1), (2, 2)] or [
        (batch.first, len(batch.events)) for batch in heard
    ] == [(1, 3)]


async def test_an_exception_in_the_function_rolls_back_rows_and_events(accounts: SqliteEventStorage) -> None:
    """An exception between the row and the event must leave neither."""
    heard: list[Any] = []
    accounts.add_listener(heard.append)

    def fail(tx: Any) -> None:
        tx.execute("INSERT INTO accounts VALUES ('kim', 1)")
        tx.store_event(Tick("kim", 1))
        raise LookupError("mind changed")

    with pytest.raises(LookupError, match="mind changed"):
        await accounts.transact(fail)
    assert await balances(accounts) == []
    assert await accounts.head() == 0
    assert heard == []
    assert await accounts.append("symbol", "kim", [Tick("kim", 2)], expected_version=0) == [1]


async def test_a_duplicate_event_rolls_back_the_rows(accounts: SqliteEventStorage) -> None:
    """If the event is rejected, the row that belongs to it must not stay."""
    stored = Tick("kim", 1)
    await accounts.store_event(stored)

    def conflict(tx: Any) -> None:
        tx.execute("INSERT INTO accounts VALUES ('kim', 1)")
        tx.store_event(Tick("kim", 2, event_id=stored.event_id))

    with pytest.raises(DuplicateEventError):
        await accounts.transact(conflict)
    assert await balances(accounts) == []


async def test_an_sql_error_fails_only_its_own_transact_call(accounts: SqliteEventStorage) -> None:
    """Other callers in the same commit must not be affected."""
    results = await asyncio.gather(
        accounts.store_event(Tick("A")),
        accounts.transact(lambda tx: tx.execute("INSERT INTO accounts VALUES ('kim', 1)")),
        accounts.transact(lambda tx: tx.execute("INSERT INTO accounts VALUES ('kim', 2)")),
        accounts.transact(lambda tx: tx.execute("SELECT * FROM nowhere")),
        accounts.store_event(Tick("A")),
        return_exceptions=True,
    )
    assert isinstance(results[2], sqlite3.IntegrityError)
    assert isinstance(results[3], sqlite3.OperationalError)
    assert (results[0], results[4]) == (1, 2)
    assert await balances(accounts) == [("kim", 1)]


@pytest.mark.parametrize(
    "sql",
    [
        "COMMIT",
        "  commit;",
        "END TRANSACTION",
        "ROLLBACK",
        "/* a comment */ -- and one more\n ROLLBACK TO part",
        "BEGIN",
        "SAVEPOINT mine",
        "; RELEASE part",
    ],
)
async def test_transact_rejects_transaction_control_statements(
    accounts: SqliteEventStorage, sql: str
) -> None:
    """COMMIT would make half a group durable, and the rest would run outside of any transaction."""

    def end_transaction(tx: Any) -> None:
        tx.execute("INSERT INTO accounts VALUES ('kim', 1)")
        tx.execute(sql)

    results = await asyncio.gather(
        accounts.store_event(Tick("A", 1)),
        accounts.transact(end_transaction),
        accounts.store_event(Tick("A", 2)),
        return_exceptions=True,
    )
    assert isinstance(results[1], UsageError)
    assert (results[0], results[2]) == (1, 2)
    assert await balances(accounts) == []


def roll_back_by_conflict(tx: Any) -> None:
    tx.execute("INSERT INTO accounts VALUES ('kim', 1)")
    tx.execute("INSERT OR ROLLBACK INTO accounts VALUES ('kim', 2)")


def roll_back_behind_the_scenes(tx: Any) -> None:
    tx.execute("SELECT 1").connection.execute("ROLLBACK")


@pytest.mark.parametrize(
    ("function", "error"),
    [(roll_back_by_conflict, sqlite3.IntegrityError), (roll_back_behind_the_scenes, UsageError)],
)
async def test_a_function_that_rolls_back_the_whole_group_fails_alone(
    accounts: SqliteEventStorage, function: Callable[[Any], None], error: type[Exception]
) -> None:
    """The other jobs of its group are rolled back with it; they must be written again, in order."""
    heard: list[Any] = []
    accounts.add_listener(heard.append)
    results = await asyncio.gather(
        accounts.store_events(ticks(2, "A")),
        accounts.transact(lambda tx: tx.execute("INSERT INTO accounts VALUES ('lee', 7)")),
        accounts.transact(function),
        accounts.transact(lambda tx: tx.store_event(Tick("A", 3))),
        accounts.store_event(Tick("A", 4)),
        return_exceptions=True,
    )
    assert isinstance(results[2], error)
    assert [results[0], results[3], results[4]] == [[1, 2], 3, 4]
    assert await balances(accounts) == [("lee", 7)]
    assert [event.number for event in await accounts.get_events_by_aggregate("A", "symbol")] == [1, 2, 3, 4]
    assert [event.number for batch in heard for event in batch.events] == [1, 2, 3, 4]


async def test_a_stop_iteration_in_the_function_raises_a_runtime_error(accounts: SqliteEventStorage) -> None:
    """A future does not accept StopIteration; the error would leave the rest of the group unanswered."""
    results = await asyncio.gather(
        accounts.transact(lambda tx: next(tx.execute("SELECT * FROM accounts"))),
        accounts.store_event(Tick("A")),
        return_exceptions=True,
    )
    assert isinstance(results[0], RuntimeError)
    assert results[1] == 1


async def test_using_a_transaction_after_its_function_raises(accounts: SqliteEventStorage) -> None:
    """A ``tx`` kept for later would write into another transaction, or outside of any."""
    kept = await accounts.transact(lambda tx: tx)
    for use in (
        lambda: kept.execute("SELECT 1"),
        lambda: kept.executemany("SELECT 1", []),
        lambda: kept.store_event(Tick("A")),
    ):
        with pytest.raises(UsageError, match="is over"):
            use()


async def test_a_function_that_catches_an_sql_error_keeps_its_other_changes(
    accounts: SqliteEventStorage,
) -> None:
    """A function may catch an error and continue: only an error it raises undoes its changes."""

    def attempt(tx: Any) -> str:
        tx.execute("INSERT INTO accounts VALUES ('kim', 1)")
        try:
            tx.execute("INSERT INTO accounts VALUES ('kim', 2)")
        except sqlite3.IntegrityError:
            tx.store_event(Tick("kim", 1))
            return "kept"
        return "not reached"

    assert await accounts.transact(attempt) == "kept"
    assert await balances(accounts) == [("kim", 1)]
    assert await accounts.head() == 1


async def test_rows_and_events_of_a_transaction_survive_a_restart(path: Path) -> None:
    """Rows and events must be together on disk, not only in memory."""
    async with SqliteEventStorage(path) as storage:
        await storage.transact(lambda tx: tx.execute("CREATE TABLE sums (total INT)"))

        def add(tx: Any) -> None:
            tx.execute("INSERT INTO sums VALUES (41)")
            tx.store_event(Tick("A", 41))

        await storage.transact(add)
    async with SqliteEventStorage(path) as storage:
        assert await storage.transact(lambda tx: tx.execute("SELECT total FROM sums").fetchall()) == [(41,)]
        assert [event.number for event in await storage.get_events_by_aggregate("A", "symbol")] == [41]


async def test_transact_rejects_an_async_function(storage: SqliteEventStorage) -> None:
    """Calling an async function runs nothing: an empty transaction would be committed, like a success."""

    async def deposit(tx: Any) -> None:
        tx.store_event(Tick("kim", 100))

    function: Callable[[Any], Any] = deposit
    with pytest.raises(UsageError, match="plain function"):
        await storage.transact(function)


@pytest.mark.parametrize(
    ("sql", "table"),
    [
        ("DELETE FROM events", "events"),
        ('DELETE FROM main."Events" WHERE position = 1', "events"),
        ("WITH old AS (SELECT 1) UPDATE subscriptions SET name = 'other'", "subscriptions"),
        ("INSERT INTO streams SELECT * FROM streams", "streams"),
        ("DROP TABLE dead_letters", "dead_letters"),
        ("DROP INDEX events_by_id", "events"),
        ("ALTER TABLE events ADD COLUMN note TEXT", "events"),
        ("ALTER TABLE meta RENAME TO mine", "meta"),
        ("INSERT INTO accounts VALUES ('trigger', 0)", "events"),
        ("CREATE TEMP TABLE Events AS SELECT * FROM main.events", "Events"),
        ("CREATE TEMP VIEW subscriptions AS SELECT 1", "subscriptions"),
        ("CREATE VIRTUAL TABLE temp.meta USING fts5(x)", "meta"),
        ("CREATE TRIGGER thin AFTER INSERT ON events BEGIN DELETE FROM events; END", "events"),
        ("CREATE TEMP TRIGGER thin AFTER INSERT ON main.events BEGIN DELETE FROM events; END", "events"),
    ],
)
async def test_transact_rejects_changes_to_pabals_own_tables(
    accounts: SqliteEventStorage, sql: str, table: str
) -> None:
    """Acknowledged events would be lost or altered, and only a backup could bring them back.

    A temporary table of the same name would take the events, and end with the connection.
    """
    await accounts.store_event(Tick("kim", 1))

    def act(tx: Any) -> None:
        tx.execute("CREATE TRIGGER purge AFTER INSERT ON accounts BEGIN DELETE FROM events; END")
        tx.execute(sql)

    with pytest.raises(
        UsageError, match=f"changes or hides '{table}', one of pabal's own tables; store events with"
    ):
        await accounts.transact(act)
    assert await accounts.store_event(Tick("kim", 2)) == 2
    assert await accounts.check() == []
    assert await balances(accounts) == []


async def test_transact_allows_reading_the_log_and_changing_application_tables(
    accounts: SqliteEventStorage,
) -> None:
    """Reading the log is harmless, and so are columns, indexes and other databases with the same names."""

    def act(tx: Any) -> list[int]:
        stored = [tx.store_event(Tick("kim", 1))]
        tx.execute("CREATE TABLE notes (events TEXT, meta TEXT)")
        tx.execute("CREATE INDEX notes_by_meta ON notes (meta)")
        tx.execute("INSERT INTO notes SELECT event_type, 1 FROM events")
        tx.execute("UPDATE notes SET events = 'a'")
        tx.execute("CREATE TEMP TABLE chosen (n INT)")
        tx.execute("INSERT INTO temp.chosen VALUES (1)")
        tx.execute("ATTACH ':memory:' AS other")
        tx.execute("CREATE TABLE other.samples (n INT)")
        tx.execute("INSERT INTO other.samples VALUES (1)")
        # The iterator over the rows may store events itself.
        names = ("lee", "park")
        tx.executemany(
            "INSERT INTO accounts VALUES (?, ?)", ((name, tx.store_event(Tick(name, 1))) for name in names)
        )
        tx.execute("DROP INDEX notes_by_meta")
        tx.execute("DROP TABLE notes")
        tx.execute("DROP TABLE temp.chosen")
        return stored

    assert await accounts.transact(act) == [1]
    assert await balances(accounts) == [("lee", 2), ("park", 3)]
