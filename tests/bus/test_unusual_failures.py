"""Handlers that fail in unusual ways: each failure costs its own delivery, never the bus."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from pabal import DomainEvent, InMemoryEventStorage, RetryPolicy, SqliteEventStorage
from pabal.errors import InvalidHandlerError, StorageClosedError, SubscriptionError
from pabal.ports.telemetry import EventParked
from tests.bus.samples import Moved, NoteTaken
from tests.bus.support import ONE_ATTEMPT, Backend, Recorder, numbers, reports_of, spin_loop

SURROGATE = "\udcff"
"""Text from a file name with undecodable bytes; UTF-8 cannot encode it."""


class SilentError(Exception):
    """An error whose text raises."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


class Unprintable:
    """A key whose ``repr`` raises."""

    def __repr__(self) -> str:
        raise RuntimeError("no name")


async def _dead_letter_of(backend: Backend, error: BaseException, **options: Any) -> Any:
    """Handle event 0, which raises, and 1 of another key, which must succeed; return the dead letter of 0."""
    bus = await backend.start_bus()
    seen: Recorder[Moved] = Recorder()

    @bus.on(Moved, name="board", retry=ONE_ATTEMPT, **options)
    async def move(event: Moved) -> None:
        if event.n == 0:
            raise error
        seen.add(event)

    await bus.publish(Moved("rook", 0))
    await bus.publish(Moved("king", 1))
    await bus.drain(30)
    assert numbers(seen) == [1]
    (letter,) = await bus.dead_letters.list()
    return letter


async def test_an_error_whose_text_raises_is_parked_like_any_other(backend: Backend) -> None:
    """The worker would end while recording the failure, and its key would stay blocked for ever."""
    letter = await _dead_letter_of(backend, SilentError())
    assert letter.attempts[0].error_type == "SilentError"
    assert "RuntimeError" in letter.attempts[0].message


async def test_an_error_with_undecodable_bytes_in_its_message_is_saved(
    backend: Backend,
) -> None:
    """Failures are stored as UTF-8: one such text would make every later save fail."""
    letter = await _dead_letter_of(backend, ValueError(f"no such file: {SURROGATE}"))
    assert letter.attempts[0].message == "no such file: \\udcff"
    assert "\\udcff" in letter.attempts[0].traceback


async def test_a_very_long_error_message_is_truncated(backend: Backend) -> None:
    """An error that quotes a whole document would be written again with each further attempt."""
    letter = await _dead_letter_of(backend, ValueError("x" * 1_000_000))
    assert len(letter.attempts[0].message) < 20_000


@pytest.mark.parametrize(
    "key", [SURROGATE, Unprintable(), (Unprintable(), 1)], ids=["text", "object", "tuple"]
)
async def test_a_key_that_cannot_be_stored_as_text_can_be_parked(backend: Backend, key: Any) -> None:
    """A key is stored as text; a key without text must not end the worker, or make all saves fail."""
    letter = await _dead_letter_of(
        backend,
        ValueError(),
        on_exhausted="park_key",
        ordering=lambda event: key if event.n == 0 else event.piece,
    )
    letter.key.encode()


async def test_generator_exit_raised_by_a_handler_fails_the_attempt_not_the_worker(
    backend: Backend,
) -> None:
    """GeneratorExit ends a worker closed from outside; raised by a handler, it would end a worker too."""
    letter = await _dead_letter_of(backend, GeneratorExit())
    assert letter.attempts[0].error_type == "GeneratorExit"


async def test_a_sync_handler_that_raises_stop_iteration_fails_like_any_other(backend: Backend) -> None:
    """An asyncio future rejects StopIteration: the delivery would never end, not even when cancelled."""
    bus = await backend.start_bus()

    def first_of_none(event: NoteTaken) -> None:
        next(iter(()))

    bus.subscribe(NoteTaken, first_of_none, retry=ONE_ATTEMPT)
    await bus.publish(NoteTaken(1))
    await bus.drain(30)
    (letter,) = await bus.dead_letters.list()
    assert letter.attempts[0].message == "the handler raised StopIteration"


async def test_a_where_that_raises_stop_iteration_fails_only_its_wait_for_call(backend: Backend) -> None:
    """The error must not reach the publisher, which knows nothing of the call that waits."""
    bus = await backend.start_bus()
    waiting = asyncio.create_task(bus.wait_for(NoteTaken, where=lambda event: next(iter(()))))
    await asyncio.sleep(0)
    assert await bus.publish(NoteTaken(1))
    with pytest.raises(RuntimeError, match="StopIteration"):
        await waiting


async def test_subscribe_rejects_a_generator_as_handler(backend: Backend) -> None:
    """Calling a generator runs none of its body, so every event would count as handled."""
    bus = backend.make_bus()

    async def each(event: NoteTaken) -> AsyncIterator[int]:
        yield event.n

    def every(event: NoteTaken) -> Iterator[int]:
        yield event.n

    class Handler:
        async def handle(self, event: NoteTaken) -> AsyncIterator[int]:
            yield event.n

    for generator in (each, every, Handler()):
        with pytest.raises(InvalidHandlerError, match="yield"):
            bus.subscribe(NoteTaken, generator)


async def test_subscribe_rejects_a_name_that_cannot_be_stored(backend: Backend) -> None:
    """Otherwise the start, or every save, would fail with an error that does not mention the name."""
    bus = backend.make_bus()

    async def note(event: NoteTaken) -> None: ...

    with pytest.raises(SubscriptionError, match="surrogate"):
        bus.subscribe(NoteTaken, note, name=f"mail-{SURROGATE}")


async def test_drain_raises_when_the_storage_was_closed(tmp_path: Path) -> None:
    """``drain`` waits for a save that can no longer happen: without a time limit, for ever."""
    bus = await Backend("sqlite", tmp_path).start_bus()
    begun, go_on = asyncio.Event(), asyncio.Event()

    @bus.on(NoteTaken, name="slow")
    async def slow(event: NoteTaken) -> None:
        begun.set()
        await go_on.wait()

    await bus.publish(NoteTaken(1))
    await begun.wait()
    draining = asyncio.create_task(bus.drain())
    storage = bus.storage
    assert storage is not None
    await storage.aclose()
    go_on.set()
    with pytest.raises(StorageClosedError):
        await draining
    with pytest.raises(StorageClosedError):
        await bus.drain()
    await bus.stop()


async def test_a_dead_letter_keeps_the_first_and_the_newest_of_many_failures(backend: Backend) -> None:
    """All failures are written again with each new one, so the cost would grow with their square."""
    bus = await backend.start_bus()
    parked = reports_of(bus, EventParked)

    @bus.on(NoteTaken, name="patient", retry=RetryPolicy(max_attempts=250, base_delay=0))
    async def fail(event: NoteTaken) -> None:
        raise ValueError("no")

    await bus.publish(NoteTaken(1))
    await bus.drain(30)
    (letter,) = await bus.dead_letters.list()
    assert [failure.attempt for failure in letter.attempts] == [1, *range(152, 251)]
    assert parked[0].attempts == 250
    assert await bus.dead_letters.retry(letter.id) == 1
    await bus.drain(30)
    (letter,) = await bus.dead_letters.list()
    assert [failure.attempt for failure in letter.attempts] == [1, *range(152, 251)]


async def test_health_reports_failing_when_a_worker_ends_by_an_internal_error(
    local: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing else would show that the bus delivers less, or nothing."""
    bus = await local.start_bus(worker_count=2)
    assert bus.health().status == "ok"
    calls: Recorder[int] = Recorder()

    def raise_fault(*arguments: Any) -> None:
        calls.add(1)
        raise AssertionError("a fault")

    monkeypatch.setattr(bus._engine.failures, "failed", raise_fault)

    @bus.on(NoteTaken, name="failing")
    async def fail(event: NoteTaken) -> None:
        raise ValueError("no")

    await bus.publish(NoteTaken(1))
    await calls.reach(1)
    await spin_loop(2)
    assert bus.health().status == "failing"
    assert "1 of 2 workers have ended" in bus.health().reasons[0]


class EndlessError(BaseException):
    """An error that no ``except Exception`` catches."""


class Fickle(DomainEvent):
    """An event whose aggregate id is available when it is published, and raises afterwards."""

    event_type: ClassVar[str] = "unusual.fickle"
    aggregate_type: ClassVar[str] = "fickle"
    fault: ClassVar[BaseException | None] = None
    n: int

    @property
    def aggregate_id(self) -> str:
        if self.fault is not None and self.n == 1:
            raise self.fault
        return "one"


@pytest.mark.parametrize("fault", [LookupError("no id"), EndlessError("no id")], ids=["error", "end"])
async def test_an_aggregate_id_that_raises_parks_only_its_own_event(
    local: Backend, fault: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a change of the class, for example: nothing else of its commit, or later in the log, would be
    delivered.
    """
    monkeypatch.setattr(Fickle, "fault", None)
    bus = local.make_bus(worker_count=2)

    def begin_to_raise(batch: object = None) -> None:
        Fickle.fault = fault

    if isinstance(bus.storage, (SqliteEventStorage, InMemoryEventStorage)):
        bus.storage.add_listener(begin_to_raise)  # called before the bus learns of the commit
    else:
        begin_to_raise()
    await bus.start()
    for name in ("live", "behind"):
        seen: Recorder[Fickle] = Recorder()

        async def handle(event: Fickle, seen: Recorder[Fickle] = seen) -> None:
            await asyncio.sleep(0)
            seen.add(event)

        bus.subscribe(Fickle, handle, name=name, start="beginning" if name == "behind" else "now")
        if name == "live":
            await bus.publish_batch([Fickle(n) for n in range(4)])
        await bus.drain(30)
        assert numbers(seen) == [0, 2, 3]
        (letter,) = await bus.dead_letters.list(subscription=name)
        assert "no id" in letter.reason
        if not local.stored:
            break


async def _coroutine() -> bool:
    return False


def _return_coroutine(event: Any) -> Any:
    return _coroutine()


@pytest.mark.parametrize("option", ["where", "ordering"])
async def test_a_sync_where_or_ordering_that_returns_a_coroutine_is_an_error(
    backend: Backend, option: str
) -> None:
    """A coroutine is true, and differs from every other key: a filter would pass all, and no order would
    hold.
    """
    bus = await backend.start_bus()
    options: dict[str, Any] = {option: _return_coroutine}
    seen: Recorder[Moved] = Recorder()

    async def handle(event: Moved) -> None:
        seen.add(event)

    bus.subscribe(Moved, handle, name="board", retry=ONE_ATTEMPT, **options)
    await bus.publish(Moved("rook", 1))
    await bus.drain(30)
    assert seen == []
    (letter,) = await bus.dead_letters.list()
    assert f"{option} returned an awaitable" in letter.attempts[0].message
    if option == "where":
        waiting = asyncio.create_task(bus.wait_for(Moved, where=_return_coroutine))
        await spin_loop()
        await bus.publish(Moved("rook", 2))
        with pytest.raises(SubscriptionError, match="where returned an awaitable"):
            await waiting
