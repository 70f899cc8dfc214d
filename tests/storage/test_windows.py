"""On Windows, journal locks show which processes live, and open files are not renamed or removed."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath

import pytest

from pabal import SqliteEventStorage
from pabal.errors import StorageUnavailableError
from pabal.storage.sqlite import lifelock
from pabal.storage.sqlite.journal import Attempt, MappedJournal, dead_journals, is_alive, journal_path
from pabal.storage.sqlite.schema import file_uri
from tests.storage import on_windows
from tests.storage.events import Tick


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> None:
    on_windows.imitate_windows(monkeypatch)


@pytest.fixture
def journal(path: Path, windows: None) -> Iterator[MappedJournal]:
    """The journal of an owner, with an attempt under way."""
    made = MappedJournal(path, "owner")
    slot = made.reserve(2)
    made.begin(slot, 1, 7, 7, 1)
    yield made
    made.close()


def simulate_death(journal: MappedJournal) -> None:
    """Release the lock but leave the journal, as the death of a process does."""
    journal.path.with_name("copy").write_bytes(journal.path.read_bytes())
    journal.close()
    journal.path.with_name("copy").rename(journal.path)


@on_windows.needs_linux
async def test_a_file_opens_and_closes_without_renaming_or_deleting_open_files(
    path: Path, windows: None
) -> None:
    """On Windows no storage could be opened at all, because its journal was renamed while open."""
    for expected in (1, 2):
        async with SqliteEventStorage(path) as storage:
            assert await storage.store_event(Tick("A")) == expected
            assert await storage.open_subscription("s", "now") is not None
            assert storage.journal.path.exists()
    assert [found.name for found in path.parent.iterdir()] == [path.name]


@on_windows.needs_linux
def test_the_journal_of_a_dead_process_is_found_with_its_attempts(path: Path, journal: MappedJournal) -> None:
    """Promises 6 and 36. Otherwise others wait for its lease, and the event that killed it kills them all."""
    assert is_alive(path, "owner")
    assert list(dead_journals(path, "other")) == []
    simulate_death(journal)
    assert not is_alive(path, "owner")
    assert list(dead_journals(path, "other")) == [("owner", journal.path, [Attempt(7, 7, 1, 1)])]


@on_windows.needs_linux
def test_concurrent_checks_of_a_dead_journal_lock_different_bytes(
    path: Path, journal: MappedJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """These locks cannot be shared; two checks at once would never count the dead process's attempts."""
    simulate_death(journal)
    offsets = iter((0, 1))
    monkeypatch.setattr(random, "randrange", lambda count: next(offsets))
    with open(journal.path, "r+b", buffering=0) as other:
        other.seek(1 << 30)
        lifelock.msvcrt.locking(other.fileno(), lifelock.msvcrt.LK_NBLCK, 1)
        assert is_alive(path, "owner"), "the same byte"
        assert not is_alive(path, "owner"), "another byte"


@on_windows.needs_linux
def test_opening_a_journal_waits_for_a_process_that_is_checking_it(
    path: Path, windows: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On Windows the journal has its name before it is locked, so another process may check it in between."""
    checker = open(journal_path(path, "owner"), "w+b", buffering=0)  # noqa: SIM115 - closed in between
    checker.seek((1 << 30) + 5)
    lifelock.msvcrt.locking(checker.fileno(), lifelock.msvcrt.LK_NBLCK, 1)
    monkeypatch.setattr(time, "sleep", lambda seconds: checker.close())
    made = MappedJournal(path, "owner")
    assert checker.closed
    assert is_alive(path, "owner")
    made.close()


@on_windows.needs_linux
async def test_opening_with_a_journal_that_cannot_be_locked_raises_storage_unavailable(
    path: Path, windows: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unlocked, it would count as a dead process's, and its process would lose its subscriptions."""
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)

    def refuse(fd: int, mode: int, count: int) -> None:
        raise PermissionError(13, "Permission denied")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lifelock.msvcrt, "locking", refuse)
        with pytest.raises(StorageUnavailableError, match="Permission denied"):
            SqliteEventStorage(path)
    assert sum(pauses) < 1
    assert [found.name for found in path.parent.iterdir()] == [path.name]


@on_windows.needs_linux
def test_a_journal_closed_while_it_is_read_remains_without_attempts(
    path: Path, journal: MappedJournal
) -> None:
    """While it is read it cannot be removed; attempts left in it would count as the cause of a death."""
    with open(journal.path, "rb"):
        journal.close()
    assert [attempts for *_, attempts in dead_journals(path, "other")] == [[]]
    os.unlink(journal.path)


@pytest.mark.parametrize(
    ("path", "uri"),
    [
        (PurePosixPath("/var/a b?%41#.db"), "file:///var/a%20b%3F%2541%23.db"),
        (PureWindowsPath(r"C:\data\a b%41#.db"), "file:///C%3A/data/a%20b%2541%23.db"),
        (PureWindowsPath(r"\\server\share\log.db"), "file:////server/share/log.db"),
        (PureWindowsPath("\\\\?\\C:\\long\\log.db"), "file:////%3F/C%3A/long/log.db"),
    ],
)
def test_file_uri_escapes_posix_and_windows_paths(path: PurePosixPath | PureWindowsPath, uri: str) -> None:
    """SQLite rejects the host in a Windows URI such as ``file://server/share``."""
    assert file_uri(path, "ro") == f"{uri}?mode=ro"
