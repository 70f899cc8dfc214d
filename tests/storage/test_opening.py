"""Opening a file: which files raise, with which errors, and that they are left unchanged."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from pabal import CorruptLogError, SqliteEventStorage, StorageError
from pabal.errors import NewerSchemaError, NotAPabalDatabaseError, StorageUnavailableError, UsageError
from pabal.factory import open_log
from pabal.storage.sqlite import lifelock, schema
from pabal.storage.sqlite.faults import translated
from tests.storage.events import Tick, ticks

WINDOWS = sys.platform == "win32"


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file() and not p.name.endswith("-shm")}


def assert_opening_raises(path: Path, error: type[StorageError]) -> StorageError:
    """Check that opening raises, and that no file in the folder has changed."""
    before = contents(path.parent)
    with pytest.raises(error) as caught:
        SqliteEventStorage(path)
    assert contents(path.parent) == before
    assert str(path) in str(caught.value)
    return caught.value


async def filled(path: Path, count: int = 50) -> None:
    async with SqliteEventStorage(path) as storage:
        await storage.store_events(ticks(count))


def test_opening_a_text_file_raises_and_leaves_it_unchanged(path: Path) -> None:
    """Writing into a text file would destroy it."""
    path.write_text("symbol,price\nKRW-BTC,50000000\n" * 100)
    assert_opening_raises(path, NotAPabalDatabaseError)


def test_opening_another_programs_database_raises_and_leaves_it_unchanged(path: Path) -> None:
    """Adding tables to another program's database would harm both."""
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    assert "another program" in str(assert_opening_raises(path, NotAPabalDatabaseError))


@pytest.mark.parametrize("mark", [0, 0x12345678])
def test_opening_another_programs_wal_database_raises_and_leaves_it_unchanged(
    path: Path, tmp_path: Path, mark: int
) -> None:
    """Opening it for writing and closing it would be enough to checkpoint its log into its file."""
    source = tmp_path / "theirs.db"
    connection = sqlite3.connect(source, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(f"PRAGMA application_id = {mark}")
    connection.execute("CREATE TABLE theirs (x)")
    # A copy, as that program would leave it if it were killed.
    folder = tmp_path / "copy"
    folder.mkdir()
    for name in ("theirs.db", "theirs.db-wal"):
        (folder / name).write_bytes((tmp_path / name).read_bytes())
    connection.close()
    assert_opening_raises(folder / "theirs.db", NotAPabalDatabaseError)


def test_an_empty_file_becomes_a_database(path: Path) -> None:
    """`touch trading.db`, or a temporary file created beforehand, must be usable."""
    path.touch()
    SqliteEventStorage(path).close()
    SqliteEventStorage(str(path)).close()
    assert path.read_bytes()[68:72] == schema.APPLICATION_ID.to_bytes(4, "big")


async def test_opening_a_file_of_a_newer_schema_raises(path: Path) -> None:
    """A newer pabal may have written data that this one would misunderstand."""
    await filled(path)
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {schema.SCHEMA_VERSION + 1}")
    connection.commit()
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    error: Any = assert_opening_raises(path, NewerSchemaError)
    assert (error.found, error.supported) == (schema.SCHEMA_VERSION + 1, schema.SCHEMA_VERSION)


@pytest.mark.parametrize("left", [1, 50, 99, 100, 4096, 0.5, -1])
async def test_opening_a_truncated_file_raises(path: Path, left: float) -> None:
    """SQLite would open it and fail later, at some page, when the bus is already running."""
    await filled(path, 500)
    whole = path.read_bytes()
    size = int(len(whole) * left) if isinstance(left, float) else left % len(whole)
    path.write_bytes(whole[:size])
    assert_opening_raises(path, NotAPabalDatabaseError if size < 16 else CorruptLogError)


async def test_opening_a_file_with_a_damaged_schema_page_raises_a_storage_error(path: Path) -> None:
    """The error must be pabal's own, not sqlite3's."""
    await filled(path)
    data = bytearray(path.read_bytes())
    data[100:2000] = os.urandom(1900)
    path.write_bytes(data)
    with pytest.raises(StorageError):
        SqliteEventStorage(path)


def test_opening_a_directory_raises_an_error_that_says_so(tmp_path: Path) -> None:
    """The message must say that the path is a directory."""
    assert "is a directory" in str(assert_opening_raises(tmp_path, StorageUnavailableError))


def test_opening_in_a_missing_directory_raises_and_does_not_create_it(tmp_path: Path) -> None:
    """A typing error in a path would otherwise create an empty log somewhere else."""
    with pytest.raises(StorageUnavailableError, match="does not exist"):
        SqliteEventStorage(tmp_path / "missing" / "log.db")
    assert list(tmp_path.iterdir()) == []


def test_opening_below_a_file_raises_storage_unavailable(tmp_path: Path) -> None:
    """The same holds for a parent that exists but is not a directory."""
    (tmp_path / "parent").write_text("a file")
    with pytest.raises(StorageUnavailableError):
        SqliteEventStorage(tmp_path / "parent" / "log.db")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
def test_opening_in_a_directory_that_allows_no_new_files_raises() -> None:
    """Only creating a file shows whether it is allowed: in /proc even root may not, whatever the mode."""
    with pytest.raises(StorageUnavailableError):
        SqliteEventStorage("/proc/self/log.db")


@pytest.mark.parametrize("protected", ["directory", "file"])
async def test_opening_without_write_permission_raises(
    path: Path, monkeypatch: pytest.MonkeyPatch, protected: str
) -> None:
    """Without write permission, SQLite opens the file and fails at the first event."""
    await filled(path)
    forbidden = path.parent if protected == "directory" else path
    real = os.access
    # Root may write everywhere, so the test gives the answer itself.
    monkeypatch.setattr(os, "access", lambda p, mode: Path(p) != forbidden and real(p, mode))
    assert_opening_raises(path, StorageUnavailableError)


@pytest.mark.parametrize(
    ("place", "step"),
    [
        pytest.param(Path, "rename", marks=pytest.mark.skipif(WINDOWS, reason="it is not renamed there")),
        (lifelock, "hold"),
    ],
)
async def test_an_opening_that_fails_to_create_its_journal_raises_and_leaves_no_file(
    path: Path, place: object, step: str
) -> None:
    """Callers do not expect an OSError, and a partly opened storage must not keep its files."""
    await filled(path)

    def no_room(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(place, step, no_room)
        with pytest.raises(StorageUnavailableError, match="No space left"):
            SqliteEventStorage(path)
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    async with SqliteEventStorage(path) as storage:
        assert await storage.head() == 50


def test_an_unknown_durability_raises_a_usage_error(path: Path) -> None:
    """A misspelt "full" must not silently become a weaker setting."""
    with pytest.raises(UsageError, match="durability"):
        SqliteEventStorage(path, "Full")  # type: ignore[arg-type]
    assert not path.exists()


async def test_a_database_that_cannot_use_write_ahead_logging_raises(path: Path) -> None:
    """In any other journal mode readers block the writer, which the storage does not expect."""
    connection = sqlite3.connect(":memory:")
    with pytest.raises(StorageUnavailableError, match="write-ahead"):
        schema._use_wal(connection, str(path))
    connection.close()


async def test_a_symbolic_link_opens_the_same_storage(path: Path, tmp_path: Path) -> None:
    """By another name, a process would not see the other's journal, and would take its subscriptions."""
    link = tmp_path / "link.db"
    link.symlink_to(path)
    async with SqliteEventStorage(path) as one, SqliteEventStorage(link) as two:
        assert await one.open_subscription("s", "now") is not None
        assert await two.open_subscription("s", "now") is None
        assert one.path == two.path


@pytest.mark.skipif(WINDOWS, reason="links need a privilege there")
def test_opening_a_symbolic_link_loop_raises_storage_unavailable(path: Path) -> None:
    """Before Python 3.13 this raises RuntimeError, which callers that catch pabal's errors do not catch."""
    path.symlink_to(path)
    with pytest.raises(StorageUnavailableError, match="symbolic links"):
        SqliteEventStorage(path)


def test_a_path_that_the_system_cannot_resolve_raises_storage_unavailable(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows raises this for ``con.db``: it is a device there, whatever follows the dot."""

    def refuse(*arguments: object, **named: object) -> None:
        raise OSError(22, "The handle is invalid")

    monkeypatch.setattr(Path, "resolve", refuse)
    with pytest.raises(StorageUnavailableError, match=r"log\.db: The handle is invalid"):
        SqliteEventStorage(path)


async def test_opening_a_file_with_a_second_hard_link_raises(path: Path, tmp_path: Path) -> None:
    """Two processes, each using one of the names, overwrote each other's acknowledged events."""
    await filled(path)
    second = tmp_path / "second.db"
    second.hardlink_to(path)
    for name in (path, second):
        with pytest.raises(StorageUnavailableError, match="hard links"):
            SqliteEventStorage(name)
    second.unlink()
    async with SqliteEventStorage(path) as storage:
        assert await storage.head() == 50


@pytest.mark.parametrize("length", [240, 300])
def test_opening_a_file_whose_name_is_too_long_raises_storage_unavailable(
    tmp_path: Path, length: int
) -> None:
    """Callers do not expect an OSError, even if only the names of the files beside the log are too long."""
    with pytest.raises(StorageUnavailableError, match=None if WINDOWS else "too long"):
        SqliteEventStorage(tmp_path / ("x" * length))


async def test_backup_and_rebuild_under_a_too_long_name_raise_and_leave_no_file(path: Path) -> None:
    """Callers do not expect an OSError, and the failed copy must leave no file."""
    async with SqliteEventStorage(path) as storage:
        # A rebuilt log has files beside it, with longer names.
        for copy, length in ((storage.backup, 300), (storage.rebuild, 300), (storage.rebuild, 253)):
            with pytest.raises(StorageUnavailableError):
                await copy(path.with_name("x" * length))
        with pytest.raises(StorageUnavailableError, match="no such file"):
            open_log(path.with_name("x" * 300))
    assert [found.name for found in path.parent.iterdir()] == [path.name]


async def test_many_processes_can_open_a_new_file_at_once(path: Path) -> None:
    """Promise 36 begins here: creating the schema and switching the journal mode must not conflict."""
    code = (
        "import sys, asyncio; from pabal import SqliteEventStorage; from tests.storage.events import Tick\n"
        "async def main():\n"
        "    sys.stdin.readline()\n"
        "    async with SqliteEventStorage(sys.argv[1]) as storage:\n"
        "        for n in range(5): await storage.store_event(Tick(sys.argv[2], n))\n"
        "asyncio.run(main())\n"
    )
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", code, str(path), str(n), stdin=asyncio.subprocess.PIPE
        )
        for n in range(6)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(b"go\n")
    assert [await process.wait() for process in processes] == [0] * 6
    for process in processes:
        assert process.stdin is not None
        process.stdin.close()
    async with SqliteEventStorage(path) as storage:
        assert await storage.head() == 30
        assert await storage.check() == []


async def test_a_file_name_may_contain_characters_special_in_uris_and_patterns(tmp_path: Path) -> None:
    """Question marks, brackets and percent signs have a meaning in URIs and patterns, but not in paths."""
    path = tmp_path / ("a [b]%41 #c.db" if WINDOWS else "a [b]*?%41 #c.db")
    for expected in (1, 2):
        async with SqliteEventStorage(path) as storage:
            assert await storage.store_event(Tick("A")) == expected
            assert await storage.open_subscription("s", "now") is not None
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("keep_open", [True, False])
async def test_opening_a_file_twice_in_one_process_keeps_its_locks(path: Path, keep_open: bool) -> None:
    """Promise 1: another process would take itself for the last one, and delete the log with acked events."""
    open_and_close = (
        "import sys; from pabal import SqliteEventStorage; SqliteEventStorage(sys.argv[1]).close()"
    )
    async with SqliteEventStorage(path) as storage:
        await storage.store_events(ticks(5))
        second = SqliteEventStorage(path)
        if not keep_open:
            second.close()
        other = await asyncio.create_subprocess_exec(sys.executable, "-c", open_and_close, str(path))
        assert await other.wait() == 0
        await storage.store_events(ticks(5))
        assert await storage.head() == 10
        second.close()
    async with SqliteEventStorage(path) as storage:
        assert await storage.head() == 10


def reader_in_delete_mode(path: Path) -> sqlite3.Connection:
    """Return a connection that is reading the file in another journal mode."""
    SqliteEventStorage(path).close()
    reading = sqlite3.connect(path, isolation_level=None)
    reading.execute("PRAGMA journal_mode = DELETE")
    reading.execute("BEGIN")
    reading.execute("SELECT count(*) FROM events").fetchone()
    return reading


def test_switching_to_write_ahead_logging_waits_for_readers(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite does not wait here by itself; of processes that start together, all but one would fail."""
    reading = reader_in_delete_mode(path)
    monkeypatch.setattr(time, "sleep", lambda seconds: reading.close())
    connection = sqlite3.connect(path, isolation_level=None, timeout=0)
    schema._use_wal(connection, str(path))
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


def test_switching_to_write_ahead_logging_gives_up_on_a_locked_file(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If it waited for ever, the application would neither start nor say why."""
    monkeypatch.setattr(schema, "_BUSY_MS", 0)
    reading = reader_in_delete_mode(path)
    connection = sqlite3.connect(path, isolation_level=None, timeout=0)
    with (
        pytest.raises(StorageUnavailableError, match="another process kept it locked"),
        translated(str(path)),
    ):
        schema._use_wal(connection, str(path))
    connection.close()
    reading.close()


async def test_a_dropped_table_raises_storage_unavailable(path: Path) -> None:
    """Readers retry after a ``StorageError``, but an error of sqlite3 would end them for good."""
    async with SqliteEventStorage(path) as storage:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("DROP TABLE events")
        other.close()
        with pytest.raises(StorageUnavailableError, match="no such table"):
            await storage.head()


@pytest.mark.parametrize(
    ("path", "error"),
    [
        (":memory:", UsageError),
        ("log\0.db", StorageUnavailableError),
        ("log\ud800.db", StorageUnavailableError),
    ],
)
def test_an_impossible_file_name_raises_and_creates_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, error: type[Exception]
) -> None:
    """A file named ':memory:' would be created, or an error raised that is not pabal's."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error):
        SqliteEventStorage(path)
    assert list(tmp_path.iterdir()) == []


def test_a_lone_surrogate_in_a_path_raises_even_where_the_system_allows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite would create a file of another name, which the next check would not find."""
    monkeypatch.chdir(tmp_path)
    # As on Windows, where names are UTF-16 that is not checked.
    monkeypatch.setattr(sys, "getfilesystemencodeerrors", lambda: "surrogatepass")
    monkeypatch.setattr(os, "fsencode", lambda name: os.fspath(name).encode("utf-8", "surrogatepass"))
    with pytest.raises(StorageUnavailableError, match="not a possible file name"):
        SqliteEventStorage("log\ud800.db")
    assert list(tmp_path.iterdir()) == []
