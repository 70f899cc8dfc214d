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

rings = pytest.mark.skipif(
    sys.platform == "win32", reason="there are no such sockets; others look by themselves"
)


def bells(path: Path) -> list[str]:
    return sorted(entry for entry in os.listdir(path.parent) if "-bell-" in entry)


async def hears(heard: asyncio.Event) -> None:
    async with asyncio.timeout(20):
        await heard.wait()
    heard.clear()


@pytest.fixture
def path() -> Iterator[Path]:
    """Return a path short enough for a socket beside it (about 100 bytes); pytest's paths are longer."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / "log.db"


@pytest.fixture
def without_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """List the folder at every ring, so that no test depends on when it was last listed."""
    monkeypatch.setattr(doorbell, "_LIST_EVERY", -1.0)


@rings
async def test_a_commit_rings_at_other_storages_of_the_file_and_at_no_own_one(
    path: Path, without_pause: None
) -> None:
    """Promise 39. Without the bell, another process notices after some 50 ms, or 200 ms if it was idle."""
    heard, own = asyncio.Event(), asyncio.Event()
    async with SqliteEventStorage(path) as speaker, SqliteEventStorage(path) as listener:
        hush, hush_own = listener.listen_to_others(heard.set), speaker.listen_to_others(own.set)
        await speaker.store_event(Tick("A"))
        await hears(heard)
        await speaker.open_subscription("sub", "now")
        await speaker.pause_subscription("sub")
        await hears(heard)
        assert not own.is_set()
        hush()
        await speaker.store_event(Tick("A"))
        assert len(bells(path)) == 1
        hush_own()
    assert bells(path) == []


@rings
async def test_the_bell_of_a_process_that_died_is_taken_away(path: Path, without_pause: None) -> None:
    """Otherwise every crash would leave a socket that all processes ring for ever."""
    left = path.parent / f"{path.name}-bell-dead-1"
    dead = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    dead.bind(str(left))
    dead.close()
    async with SqliteEventStorage(path) as storage:
        await storage.store_event(Tick("A"))
        await storage.store_event(Tick("A"))
        assert not left.exists()


@rings
async def test_a_bell_that_nobody_empties_stops_no_publisher(path: Path, without_pause: None) -> None:
    """A process that is suspended or busy would block every other one."""
    busy = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    busy.bind(f"{path}-bell-busy-1")
    bell = Doorbell(path, "speaker")
    for _ in range(2000):
        bell.ring()
    bell.close()
    busy.close()


async def test_a_path_too_long_for_a_socket_leaves_it_at_looking(tmp_path: Path) -> None:
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


@rings
async def test_a_bus_hears_of_another_process_by_its_bell_alone(
    path: Path, monkeypatch: pytest.MonkeyPatch, without_pause: None
) -> None:
    """Promise 39. Other tests would not notice a bell that is not heard, because polling finds all events."""
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


async def test_a_loop_that_cannot_wait_for_sockets_leaves_it_at_looking(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loop without ``add_reader``, as on Windows or in a GUI toolkit, must not keep a bus from starting."""

    def refuse(*arguments: object) -> None:
        raise NotImplementedError

    monkeypatch.setattr(asyncio.get_running_loop(), "add_reader", refuse)
    bell = Doorbell(path, "listener")
    bell.listen(lambda: None)()
    assert bells(path) == []


@pytest.mark.parametrize("lacking", ["the family", "its datagrams"])
async def test_where_such_sockets_are_lacking_others_are_left_at_looking(
    path: Path, monkeypatch: pytest.MonkeyPatch, without_pause: None, lacking: str
) -> None:
    """A bell of another system in a shared folder would stop all writing, or a newer Python any start."""
    Path(f"{path}-bell-other-1").touch()
    if lacking == "the family":
        monkeypatch.delattr(socket, "AF_UNIX", raising=False)
    else:
        monkeypatch.setattr(socket, "AF_UNIX", 99, raising=False)
    async with SqliteEventStorage(path) as one, SqliteEventStorage(path) as other:
        one.listen_to_others(lambda: None)()
        assert await other.store_event(Tick("A")) == 1
        assert await other.store_event(Tick("A")) == 2
    assert bells(path) == [f"{path.name}-bell-other-1"]


async def test_a_folder_that_is_gone_stops_neither_listening_nor_ringing(tmp_path: Path) -> None:
    """A bell is only a convenience: whatever happens to it, the commit has succeeded."""
    bell = Doorbell(tmp_path / "gone" / "log.db", "anybody")
    bell.listen(lambda: None)()
    bell.ring()
    bell.close()


@rings
async def test_an_empty_message_rings_like_any_other(path: Path) -> None:
    """If an empty datagram were taken for the end of the queue, a commit would go unnoticed."""
    heard = asyncio.Event()
    async with SqliteEventStorage(path) as listener:
        hush = listener.listen_to_others(heard.set)
        [name] = bells(path)
        ringer = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        ringer.sendto(b"", str(path.parent / name))
        await hears(heard)
        ringer.close()
        hush()
