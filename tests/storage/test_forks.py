"""When a process forks while a file is open, the child gets errors and the parent is not affected."""

from __future__ import annotations

from pathlib import Path

from pabal import SqliteEventStorage
from tests.forking import needs_fork, run_program
from tests.storage.events import Tick

pytestmark = needs_fork

PARENT = """
import asyncio
from pabal import EventBusFactory, InMemoryEventBus, SqliteEventStorage
from pabal.errors import StorageUnavailableError
from tests.storage.events import Tick

path = sys.argv[1]

def expect_refusal(call):
    try:
        call()
    except StorageUnavailableError as error:
        assert "forked" in str(error), error
        return
    raise AssertionError(f"{call} did not raise")

def in_child(function):
    child = os.fork()
    if child == 0:
        end_child(function)
    assert os.waitpid(child, 0)[1] == 0
"""


def run(script: str, path: Path) -> None:
    """Run a script after the common prologue."""
    run_program(PARENT + script, str(path))


async def numbers_in(path: Path) -> list[int]:
    async with SqliteEventStorage(path) as storage:
        return [envelope.event.number async for envelope in storage.read(types=[Tick])]


async def test_a_forked_child_cannot_use_a_file_that_was_open_at_the_fork(path: Path) -> None:
    """It would wait for ever for a thread it lacks, or write without locks and lose what it wrote."""
    run(
        """
import logging
logging.disable(logging.ERROR)  # the bus logs it there, too
storage = SqliteEventStorage(path)
asyncio.run(storage.store_event(Tick("parent", 1)))
asyncio.run(storage.head())  # so that a reader is open, too

def child():
    expect_refusal(lambda: asyncio.run(storage.store_event(Tick("child"))))
    expect_refusal(lambda: asyncio.run(storage.head()))
    expect_refusal(lambda: asyncio.run(InMemoryEventBus(storage).start()))
    expect_refusal(storage.open)
    expect_refusal(lambda: SqliteEventStorage(path))
    storage.close()
    in_child(lambda: expect_refusal(lambda: SqliteEventStorage(path)))

before = sorted(os.listdir(os.path.dirname(path)))
in_child(child)
assert sorted(os.listdir(os.path.dirname(path))) == before, "the parent's files are the parent's"
asyncio.run(storage.store_event(Tick("parent", 2)))
storage.close()
""",
        path,
    )
    assert await numbers_in(path) == [1, 2]


async def test_a_storage_closed_before_a_fork_opens_in_parent_and_child(path: Path) -> None:
    """A server that loads the application before it forks has no other way to use pabal."""
    run(
        """
bus = EventBusFactory.create_default_event_bus(path)
bus.storage.close()

async def use(number):
    async with bus:
        await bus.publish(Tick("A", number))

in_child(lambda: asyncio.run(use(1)))
asyncio.run(use(2))
""",
        path,
    )
    assert await numbers_in(path) == [1, 2]


async def test_a_dead_process_counts_as_dead_while_its_forked_child_lives(path: Path) -> None:
    """Promise 6. Forked workers kept its lock, so the attempt that killed it was never counted."""
    run(
        """
from pathlib import Path
from pabal.storage.sqlite.journal import dead_journals

here, there = os.pipe()
forked, report_fork = os.pipe()
parent = os.fork()
if parent == 0:
    storage = SqliteEventStorage(path)
    if os.fork() == 0:
        signal.alarm(60)
        os.write(report_fork, b"x")
        os.read(here, 1)
        os._exit(0)
    os.kill(os.getpid(), signal.SIGKILL)
os.waitpid(parent, 0)
os.read(forked, 1)
assert len(list(dead_journals(Path(path), "own"))) == 1
os.write(there, b"x")
""",
        path,
    )
