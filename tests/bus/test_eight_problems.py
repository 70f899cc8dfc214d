"""The eight problems in the specification's problem log, each with a test that would detect it.

1. test class names that collide with pytest's collection
2. processing order across workers
3. the worker count wrong right after ``start()``
4. a test that looks before the event was handled
5. circular imports between layers
6. a missing optional module
7. a SQLite file that can't be deleted after use
8. 100 % CPU when idle
"""

from __future__ import annotations

import ast
import asyncio
import gc
import re
import resource
import subprocess
import sys
import textwrap
import time
from collections import defaultdict
from pathlib import Path

import pytest

from pabal import EventBusFactory, InMemoryEventBus, InMemoryEventStorage
from tests.bus.samples import Moved
from tests.bus.support import Backend, Recorder, numbers, spin_loop
from tests.descriptors import open_files

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src"


def test_1_pytest_does_not_collect_event_classes_named_test(tmp_path: Path) -> None:
    """An application's ``TestEvent`` must not be collected as a test class, nor any class of pabal.

    pytest tries to collect every class called ``Test…`` and warns about those with a constructor; under
    ``-W error``, as here, that ends the run.
    """
    (tmp_path / "test_application.py").write_text(
        textwrap.dedent(
            """
            from pabal import *
            from pabal.testing import *
            from pabal import DomainEvent, EventBusFactory

            class TestEvent(DomainEvent):
                value: int = 0

            class TestStarted(DomainEvent):
                name: str

            def test_events_of_any_name_can_be_made():
                assert TestEvent(1) == TestEvent(1)
                assert TestStarted("first").name == "first"
            """
        )
    )
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-W",
        "error",
        *["-p", "no:cacheprovider", "-p", "no:asyncio"],
        ".",
    ]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "1 passed" in run.stdout
    ours = [
        path for path in SOURCE.rglob("*.py") if re.search(r"^class Test", path.read_text(), re.MULTILINE)
    ]
    assert ours == []


async def test_2_order_per_key_holds_across_parallel_workers(backend: Backend) -> None:
    """Order per key is exact with 4 workers that really work in parallel, not because only one works."""
    bus = await backend.start_bus(worker_count=4)
    handled: dict[str, list[int]] = defaultdict(list)
    inside = 0
    peak = 0

    async def handle(event: Moved) -> None:
        nonlocal inside, peak
        inside += 1
        peak = max(peak, inside)
        for _ in range(event.n % 3):
            await asyncio.sleep(0)
        handled[event.piece].append(event.n)
        inside -= 1

    bus.subscribe(Moved, handle)
    for n in range(200):
        await bus.publish_batch([Moved(f"piece-{key}", n) for key in range(8)])
    await bus.drain(20)
    assert handled == {f"piece-{key}": list(range(200)) for key in range(8)}
    assert peak == 4


@pytest.mark.parametrize("count", [1, 4, 32])
async def test_3_the_worker_count_is_correct_as_soon_as_start_returns(backend: Backend, count: int) -> None:
    """The count is correct without a sleep or a first event, and all workers do work."""
    bus = backend.make_bus(worker_count=count)
    assert bus.get_statistics()["worker_count"] == 0
    await bus.start()
    assert bus.get_statistics()["worker_count"] == count
    entered: Recorder[int] = Recorder()
    release = asyncio.Event()

    async def hold(event: Moved) -> None:
        entered.add(event.n)
        await release.wait()

    bus.subscribe(Moved, hold)
    await bus.publish_batch([Moved(f"piece-{n}", n) for n in range(count + 5)])
    await entered.reach(count)
    await spin_loop()
    assert len(entered) == count
    release.set()
    await bus.drain(60)
    await bus.stop()
    assert bus.get_statistics()["worker_count"] == 0


async def test_4_drain_returns_only_after_every_reaction(backend: Backend) -> None:
    """``drain()`` is the way to wait: after it, every reaction, and every reaction to one, has happened."""
    bus = await backend.start_bus()
    seen: Recorder[Moved] = Recorder()

    async def react(event: Moved) -> None:
        await asyncio.sleep(0)
        seen.add(event)
        if event.n < 3:
            await bus.publish(Moved(event.piece, event.n + 1))

    bus.subscribe(Moved, react)
    await bus.publish(Moved("rook", 1))
    await bus.drain(60)
    assert numbers(seen) == [1, 2, 3]


def test_5_there_are_no_circular_imports_between_layers() -> None:
    """The layers of the architecture hold, and any module can be the first to be imported.

    Importing a module imports its package first. If that already loads the module, importing the module first
    takes the same steps as importing the package, and they are not repeated.
    """
    lint = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert lint.returncode == 0, lint.stdout + lint.stderr
    modules = sorted(
        ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")
        for path in SOURCE.joinpath("pabal").rglob("*.py")
        if path.name != "__main__.py" and not {"cli", "demo"} & set(path.relative_to(SOURCE).parts)
    )
    script = textwrap.dedent(
        """
        import importlib, sys
        from importlib.machinery import SourceFileLoader

        read, code = SourceFileLoader.get_code, {}
        def read_once(loader, name):
            if name not in code:
                code[name] = read(loader, name)
            return code[name]
        SourceFileLoader.get_code = read_once

        def ours():
            return {name for name in sys.modules if name.split(".")[0] == "pabal"}

        loaded = {}
        for name in sys.argv[1:]:
            by_its_package = loaded.get(name.rpartition(".")[0], set())
            if name in by_its_package:
                loaded[name] = by_its_package
                continue
            for known in ours():
                del sys.modules[known]
            importlib.import_module(name)
            loaded[name] = ours()
        print(len(loaded))
        """
    )
    run = subprocess.run(
        [sys.executable, "-c", script, *modules], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) == len(modules)


def test_6_the_bus_works_without_any_optional_module() -> None:
    """psutil and every extra may be missing: the bus imports, runs and stores without them."""
    script = textwrap.dedent(
        """
        import sys
        for name in ("psutil", "click", "rich", "redis", "asyncpg", "starlette", "uvicorn", "uvloop",
                     "prometheus_client", "opentelemetry", "apsw", "pytest", "hypothesis"):
            sys.modules[name] = None
        import asyncio, tempfile
        from pathlib import Path
        from typing import ClassVar
        from pabal import *
        from pabal import EventBusFactory, DomainEvent
        import pabal.testing

        class Numbered(DomainEvent):
            n: int

        async def main():
            with tempfile.TemporaryDirectory() as folder:
                bus = EventBusFactory.create_default_event_bus(Path(folder) / "events.db")
                found = []

                @bus.on(Numbered)
                async def note(event):
                    found.append(event.n)

                async with bus:
                    await bus.publish(Numbered(7))
                assert found == [7]

        asyncio.run(main())
        """
    )
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert run.returncode == 0, run.stderr
    newer = "annotationlib"  # in the standard library from Python 3.14 on
    allowed = {"pabal", "msgspec", newer, *sys.stdlib_module_names}
    for path in SOURCE.joinpath("pabal").rglob("*.py"):
        inside = path.relative_to(SOURCE / "pabal").parts
        if inside[0] in ("cli", "testing", "demo", "brokers", "observability", "integrations", "dashboard"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            for name in names:
                assert name.split(".")[0] in allowed, f"{path} imports {name}"


async def test_7_a_sqlite_file_can_be_deleted_after_use(tmp_path: Path) -> None:
    """Every handle is closed: on Linux no descriptor points to the file, on Windows it could be deleted."""
    path = tmp_path / "events.db"
    for _ in range(3):
        bus, storage = EventBusFactory.create_complete_event_system(path)
        seen: Recorder[Moved] = Recorder()

        @bus.on(Moved, name="book", start="beginning")
        async def note(event: Moved, seen: Recorder[Moved] = seen) -> None:
            seen.add(event)

        async with bus:
            await bus.publish(Moved("rook", 1))
            await bus.drain(60)
            await storage.get_event_statistics()
            await storage.get_unprocessed_events()
            assert open_files(tmp_path), "the check itself must see open files"
        await storage.aclose()
        assert open_files(tmp_path) == []
    assert [found.name for found in tmp_path.iterdir()] == ["events.db"], (
        "no -wal, -shm or -inflight file is left"
    )
    path.unlink()
    assert list(tmp_path.iterdir()) == []


def _wake_ups() -> int:
    """Return how often this process has slept and been woken."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw


async def test_8_an_idle_bus_uses_no_cpu(tmp_path: Path) -> None:
    """Three idle buses (without a log, with one in memory, with SQLite) take under 0.5 % of 5 s of CPU time.

    They have subscriptions, a schedule and a waiting ``wait_for``, and were busy just before.
    """
    sqlite, storage = EventBusFactory.create_complete_event_system(tmp_path / "events.db")
    buses = [InMemoryEventBus(), InMemoryEventBus(InMemoryEventStorage()), sqlite]
    waiting = []
    for bus in buses:

        @bus.on(Moved, name="book", timeout=3600, retry_count=1)
        async def note(event: Moved) -> None: ...

        await bus.start()
        for n in range(100):
            await bus.publish(Moved(f"piece-{n}", n))
        await bus.publish(Moved("later"), delay=3600)
        await bus.drain(60)
        waiting.append(asyncio.create_task(bus.wait_for(Moved)))
    await spin_loop()
    gc.collect()
    gc.freeze()  # a full garbage collection by chance would walk the objects of all other tests
    try:
        before, started, woken = time.process_time(), time.perf_counter(), _wake_ups()
        await asyncio.sleep(5.0)
        elapsed = time.perf_counter() - started
        share = (time.process_time() - before) / elapsed
        wake_ups = (_wake_ups() - woken) / elapsed
    finally:
        gc.unfreeze()
    # Some machines charge a process milliseconds for each wake-up, whatever it does. What is tested is that
    # it does not wake often, and does no work.
    assert share < 0.005 or (wake_ups < 30 and share < 0.1), (share, wake_ups)
    for bus in buses:
        await bus.stop()
    await asyncio.gather(*waiting, return_exceptions=True)
    await storage.aclose()
