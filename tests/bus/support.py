"""Helpers for the tests of the bus: objects that record what happened and can be awaited."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any, Generic, TypeVar
from uuid import uuid4

from pabal import (
    BaseEventBus,
    InMemoryEventBus,
    InMemoryEventStorage,
    NotRetryableError,
    RetryPolicy,
    SqliteEventStorage,
)
from pabal.brokers.redis import RedisEventBus
from pabal.ports.storage import EventStorage
from pabal.ports.telemetry import Report
from tests.brokers.server import Server
from tests.bus.samples import Moved

T = TypeVar("T")
R = TypeVar("R", bound=Report)

LIMIT = 60.0
"""Seconds after which a test gives up waiting; a passing test never reaches it."""
RETRY_AT_ONCE = RetryPolicy(max_attempts=4, base_delay=0.0)
ONE_ATTEMPT = RetryPolicy(max_attempts=1)
FULL = os.environ.get("PABAL_FULL") == "1"
"""Whether to run with the counts that the promises name, instead of smaller ones of the same shape."""


class Recorder(Generic[T]):
    """Record values from any thread, and let a test wait until there are enough."""

    def __init__(self) -> None:
        self._values: list[T] = []
        self._lock = Lock()
        self._awaited: list[tuple[Callable[[list[T]], bool], asyncio.Future[None]]] = []

    def add(self, value: T) -> None:
        """Add a value."""
        with self._lock:
            self._values.append(value)
            met = [future for holds, future in self._awaited if holds(self._values)]
            self._awaited = [pair for pair in self._awaited if pair[1] not in met]
        for future in met:
            future.get_loop().call_soon_threadsafe(_settle, future)

    async def reach(self, count: int) -> None:
        """Wait until there are ``count`` values."""
        await self.until(lambda values: len(values) >= count)

    async def until(self, holds: Callable[[list[T]], bool]) -> None:
        """Wait until the values satisfy a condition, which is checked when a value is added."""
        future = asyncio.get_running_loop().create_future()
        with self._lock:
            if holds(self._values):
                return
            self._awaited.append((holds, future))
        try:
            await asyncio.wait_for(future, LIMIT)
        except TimeoutError:
            raise AssertionError(f"timed out waiting with {self._values[-20:]!r}") from None

    def __iter__(self) -> Iterator[T]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, index: int) -> T:
        return self._values[index]

    def __eq__(self, other: object) -> bool:
        return self._values == (other._values if isinstance(other, Recorder) else other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Recorder({self._values!r})"


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def reports_of(bus: BaseEventBus, kind: type[R]) -> Recorder[R]:
    """Collect the telemetry reports of one kind."""
    seen: Recorder[R] = Recorder()

    def listen(report: Report) -> None:
        if isinstance(report, kind):
            seen.add(report)

    bus.listen(listen)
    return seen


def numbers(events: Iterable[Any]) -> list[int]:
    """Return the ``n`` of each event."""
    return [event.n for event in events]


def by_piece(events: Iterable[Any]) -> dict[str, list[int]]:
    """Return the ``n`` of each event in the order given, for each piece."""
    found: dict[str, list[int]] = {}
    for event in events:
        found.setdefault(event.piece, []).append(event.n)
    return found


def statistics_of(bus: BaseEventBus, name: str) -> dict[str, Any]:
    """Return the statistics of one subscription."""
    found: dict[str, Any] = bus.get_statistics()["subscriptions"][name]
    return found


def watermark(bus: BaseEventBus, name: str) -> int | None:
    """Return a subscription's watermark, also if the statistics show one for each partition."""
    found: int | dict[int, int] | None = statistics_of(bus, name)["watermark"]
    return found[0] if isinstance(found, dict) else found


async def run_in_thread(function: Callable[[], Any]) -> Any:
    """Run a function in its own thread and return its result."""
    return await asyncio.get_running_loop().run_in_executor(None, function)


async def spin_loop(count: int = 30) -> None:
    """Run the event loop, so that every task that is ready runs. Only for showing what does *not* happen."""
    for _ in range(count):
        await asyncio.sleep(0)


class GatedHandler:
    """A handler that records events, waits until ``gate`` is open, and fails for numbers in ``poison``."""

    def __init__(self) -> None:
        self.handled: Recorder[Any] = Recorder()
        self.gate = asyncio.Event()
        self.gate.set()
        self.entered: Recorder[int] = Recorder()
        self.poison: set[int] = set()

    async def handle(self, event: Any) -> None:
        self.entered.add(event.n)
        await self.gate.wait()
        if event.n in self.poison:
            raise NotRetryableError(f"no {event.n}")
        self.handled.add(event)


async def publish_moves(bus: BaseEventBus, numbers_: range, pieces: str = "AB") -> None:
    """Publish numbered moves, of the given pieces in turn."""
    await bus.publish_batch([Moved(pieces[n % len(pieces)], n) for n in numbers_])


class CallCount:
    """A number of function calls: a cost that other load on the machine does not change."""

    calls = 0


@contextmanager
def count_calls() -> Iterator[CallCount]:
    """Count the function calls that this thread makes inside the block."""
    counted = CallCount()

    def profile(frame: object, event: str, argument: object) -> None:
        counted.calls += event == "call"

    before, collecting = sys.getprofile(), gc.isenabled()
    gc.disable()  # garbage left by other tests may call functions, which would be counted too
    sys.setprofile(profile)
    try:
        yield counted
    finally:
        sys.setprofile(before)
        if collecting:
            gc.enable()


class Backend:
    """Make buses on one log, which outlives them; ``kind`` says where the log is."""

    def __init__(self, kind: str, folder: Path, server: Server | None = None) -> None:
        self.kind = kind
        self.path = folder / "events.db"
        self._server = server
        self._namespace = uuid4().hex[:8]
        self._memory = InMemoryEventStorage()
        self._storages: list[SqliteEventStorage] = []
        self._buses: list[BaseEventBus] = []

    @property
    def stored(self) -> bool:
        """Return whether there is a log."""
        return self.kind != "memory"

    def storage(self) -> EventStorage | None:
        """Return the log; a file is opened again, as after the start of a process."""
        if self.kind == "memory":
            return None
        if self.kind == "memory storage":
            return self._memory
        self._storages.append(SqliteEventStorage(self.path, durability="normal"))
        return self._storages[-1]

    def make_bus(self, **options: Any) -> BaseEventBus:
        """Make a bus without starting it; on a server it has one partition, and so one order."""
        bus: BaseEventBus
        if self._server is None:
            bus = InMemoryEventBus(self.storage(), seed=7, **options)
        else:
            place: dict[str, Any] = {"group": "g", "namespace": self._namespace, "partitions": 1}
            bus = RedisEventBus(self._server.url, lease=10.0, seed=7, **place, **options)
        self._buses.append(bus)
        return bus

    async def start_bus(self, **options: Any) -> BaseEventBus:
        """Make a bus and start it."""
        bus = self.make_bus(**options)
        await bus.start()
        return bus

    async def reopen(self, bus: BaseEventBus, **options: Any) -> BaseEventBus:
        """Stop a bus, close its file, and make another bus on the same log, like a restart of the process."""
        await bus.stop()
        if isinstance(bus.storage, SqliteEventStorage):
            await bus.storage.aclose()
        return self.make_bus(**options)

    async def close(self) -> None:
        """Stop and close everything that a test left open."""
        for bus in self._buses:
            await bus.stop(timeout=0.2)
        for storage in self._storages:
            await storage.aclose()
