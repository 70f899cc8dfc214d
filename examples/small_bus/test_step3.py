"""The tests of step 3. To simulate a kill, they drop a bus, and open the same file with another."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from examples.small_bus.step1_interface import Event, Handler, OrderPlaced
from examples.small_bus.step3_storage import DurableBus, SqliteLog


@pytest.fixture
def log(tmp_path: Path) -> Iterator[SqliteLog]:
    log = SqliteLog(tmp_path / "log.db")
    yield log
    log.close()


async def run(log: SqliteLog, handler: Handler, events: list[Event], name: str = "ledger") -> None:
    """Run one process: subscribe, publish, handle everything, end."""
    bus = DurableBus(log, [OrderPlaced], delay=0.0)
    bus.subscribe(OrderPlaced, handler, name=name)
    await bus.start()
    for event in events:
        await bus.publish(event)
    await bus.drain()
    await bus.stop()


class Recorder:
    """A handler that records its events."""

    def __init__(self) -> None:
        self.keys: list[str] = []

    async def __call__(self, event: Event) -> None:
        self.keys.append(event.key)


async def test_an_event_published_before_a_kill_is_delivered_after_it(log: SqliteLog) -> None:
    killed = DurableBus(log, [OrderPlaced])
    killed.subscribe(OrderPlaced, Recorder(), name="ledger")
    await killed.publish(OrderPlaced("o-1", 5))  # never started: the process dies here
    ledger = Recorder()
    await run(log, ledger, [])
    assert ledger.keys == ["o-1"]


async def test_a_handled_event_is_not_delivered_again(log: SqliteLog) -> None:
    await run(log, Recorder(), [OrderPlaced("o-1", 5)])
    ledger = Recorder()
    await run(log, ledger, [OrderPlaced("o-2", 5)])
    assert ledger.keys == ["o-2"]


async def test_a_new_subscription_receives_every_event_of_the_log(log: SqliteLog) -> None:
    await run(log, Recorder(), [OrderPlaced("o-1", 5), OrderPlaced("o-2", 5)])
    report = Recorder()
    await run(log, report, [], name="report")
    assert report.keys == ["o-1", "o-2"]


async def test_a_failing_handler_is_retried_until_it_succeeds_and_delays_only_itself(log: SqliteLog) -> None:
    bus = DurableBus(log, [OrderPlaced], delay=0.0)
    repaired = asyncio.Event()
    handled: list[str] = []
    reports = Recorder()

    async def ledger(event: Event) -> None:
        if not repaired.is_set():
            raise ConnectionError("the ledger is down")
        handled.append(event.key)

    async def repair(event: Event) -> None:
        await reports(event)
        if len(reports.keys) == 2:
            repaired.set()

    bus.subscribe(OrderPlaced, ledger, name="ledger")
    bus.subscribe(OrderPlaced, repair, name="reports")
    await bus.start()
    await bus.publish(OrderPlaced("o-1", 1))
    await bus.publish(OrderPlaced("o-2", 1))
    await bus.drain()
    await bus.stop()
    assert handled == reports.keys == ["o-1", "o-2"]


async def test_a_crash_between_handler_and_cursor_redelivers_the_event(log: SqliteLog) -> None:
    """What this bus cannot solve: in whatever order the two are done, exactly once is not possible."""
    ledger = Recorder()
    await run(log, ledger, [OrderPlaced("o-1", 5)])
    log.move_cursor("ledger", 0)  # as if the process had died before the cursor was written
    await run(log, ledger, [])
    assert ledger.keys == ["o-1", "o-1"]
