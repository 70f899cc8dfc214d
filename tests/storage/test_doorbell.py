"""A commit in one process wakes the others at once; where that is impossible, they notice by polling."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pabal import InMemoryEventBus, SqliteEventStorage
from pabal.storage.sqlite import doorbell
from pabal.storage.sqlite.doorbell import Doorbell
from tests.storage.events import Recorder, Tick, ticks

needs_unix_sockets = pytest.mark.skipif(sys.platform == "win32", reason="needs Unix datagram sockets")


def bells(path: Path) -> list[str]:
    return sorted(entry for entry in os.listdir(path.parent) if "-bell-" in entry)


async def wait_for_ring(heard: asyncio.Event) -> None:
    async with asyncio.timeout(20):
        await heard.wait()
    heard.clear()


@pytest.fixture
def path() -> Iterator[Path]:
    """Return a path short enough for a socket beside it (about 100 bytes); pytest's paths are longer."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / "log.db"


@pytest.fixture
def list_at_every_ring(monkeypatch: pytest.MonkeyPatch) -> None:
    """List the folder at every ring, so that no test depends on when it was last listed."""
    monkeypatch.setattr(doorbell, "_LIST_EVERY", -1.0)


@needs_unix_sockets
async def test_a_commit_wakes_other_storages_on_the_file_but_not_its_own(
    path: Path, list_at_every_ring: None
) -> None:
    """Promise 39. Without the bell, another process notices after some 50 ms, or 200 ms if it was idle."""
    heard, own = asyncio.Event(), asyncio.Event()
    async with SqliteEventStorage(path) as speaker, SqliteEventStorage(path) as listener:
        stop_listening, stop_own_listening = (
            listener.listen_to_others(heard.set),
            speaker.listen_to_others(own.set),
        )
        await speaker.store_event(Tick("A"))
        await wait_for_ring(heard)
        await speaker.open_subscription("sub", "now")
        await speaker.pause_subscription("sub")
        await wait_for_ring(heard)
        assert not own.is_set()
        stop_listening()
        await speaker.store_event(Tick("A"))
        assert len(bells(path)) == 1
        stop_own_listening()
    assert bells(path) == []


@needs_unix_sockets
async def test_the_socket_of_a_dead_process_is_removed(path: Path, list_at_every_ring: None) -> None:
    """Otherwise every crash would leave a socket that all processes ring for ever."""
    leftover = path.parent / f"{path.name}-bell-dead-1"
    dead = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    dead.bind(str(leftover))
    dead.close()
    async with SqliteEventStorage(path) as storage:
        await storage.store_event(Tick("A"))
        await storage.store_event(Tick("A"))
        assert not leftover.exists()


@needs_unix_sockets
async def test_ringing_never_blocks_on_a_full_socket(path: Path, list_at_every_ring: None) -> None:
    """A process that is suspended or busy would block every other one."""
    busy = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    busy.bind(f"{path}-bell-busy-1")
    bell = Doorbell(path, "speaker")
    for _ in range(2000):
        bell.ring()
    bell.close()
    busy.close()


async def test_a_bus_polls_when_the_path_is_too_long_for_a_socket(tmp_path: Path) -> None:
    """Promise 39 is optional where it cannot be kept: a deep folder must not keep a bus from starting."""
    folder = tmp_path / ("x" * 120)
    folder.mkdir()
    handler = Recorder()
    async with SqliteEventStorage(folder / "log.db") as one, SqliteEventStorage(folder / "log.db") as other:
        async with InMemoryEventBus(one) as bus:
            bus.subscribe(Tick, handler, name="held", start="beginning")
            await other.store_events(ticks(3))
            await handler.reaches(3)
        assert bells(folder / "log.db") == []


@needs_unix_sockets
async def test_a_bus_without_polling_receives_events_of_another_process(
    path: Path, monkeypatch: pytest.MonkeyPatch, list_at_every_ring: None
) -> None:
    """Promise 39. Other tests would not notice a broken doorbell, because polling finds all events."""
    monkeypatch.setattr("pabal.delivery.feed._POLL_IDLE", 3600.0)
    handler = Recorder()
    async with SqliteEventStorage(path) as storage, InMemoryEventBus(storage) as bus:
        bus.subscribe(Tick, handler, name="held", start="beginning")
        await bus.drain(60)
        script = (
            "import asyncio, sys\n"
            "from pabal import SqliteEventStorage\n"
            "from tests.storage.events import Tick\n"
            "async def main():\n"
            "    async with SqliteEventStorage(sys.argv[1]) as storage:\n"
            "        await storage.store_event(Tick('A', 7))\n"
            "asyncio.run(main())\n"
        )
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", script, str(path))
        await handler.reaches(1)
        assert await process.wait() == 0
    assert handler.numbers == [7]


async def test_listening_does_nothing_on_a_loop_without_add_reader(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loop without ``add_reader``, as on Windows or in a GUI toolkit, must not keep a bus from starting."""

    def refuse(*arguments: object) -> None:
        raise NotImplementedError

    monkeypatch.setattr(asyncio.get_running_loop(), "add_reader", refuse)
    bell = Doorbell(path, "listener")
    bell.listen(lambda: None)()
    assert bells(path) == []


@pytest.mark.parametrize("lacking", ["AF_UNIX", "SOCK_DGRAM"])
async def test_commits_succeed_on_systems_without_unix_datagram_sockets(
    path: Path, monkeypatch: pytest.MonkeyPatch, list_at_every_ring: None, lacking: str
) -> None:
    """There, a socket file in a shared folder would make every commit fail, or the bus fail to start."""
    Path(f"{path}-bell-other-1").touch()
    if lacking == "AF_UNIX":
        monkeypatch.delattr(socket, "AF_UNIX", raising=False)
    else:
        monkeypatch.setattr(socket, "AF_UNIX", 99, raising=False)
    async with SqliteEventStorage(path) as one, SqliteEventStorage(path) as other:
        one.listen_to_others(lambda: None)()
        assert await other.store_event(Tick("A")) == 1
        assert await other.store_event(Tick("A")) == 2
    assert bells(path) == [f"{path.name}-bell-other-1"]


async def test_listening_and_ringing_in_a_missing_folder_do_not_raise(tmp_path: Path) -> None:
    """A bell is only a convenience: whatever happens to it, the commit has succeeded."""
    bell = Doorbell(tmp_path / "gone" / "log.db", "anybody")
    bell.listen(lambda: None)()
    bell.ring()
    bell.close()


@needs_unix_sockets
async def test_an_empty_datagram_wakes_the_listener(path: Path) -> None:
    """If an empty datagram were taken for the end of the queue, a commit would go unnoticed."""
    heard = asyncio.Event()
    async with SqliteEventStorage(path) as listener:
        stop_listening = listener.listen_to_others(heard.set)
        [name] = bells(path)
        ringer = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        ringer.sendto(b"", str(path.parent / name))
        await wait_for_ring(heard)
        ringer.close()
        stop_listening()
