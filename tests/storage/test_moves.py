"""Resetting a subscription that another process handles: its holder, or the next one, moves it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from pabal import InMemoryEventBus, RetryPolicy, SqliteEventStorage
from pabal.factory import open_operations
from pabal.operations import operations_of
from tests.brokers.events import until
from tests.brokers.support import run_cli
from tests.brokers.test_halting import wait_for_state
from tests.storage.events import Recorder, Tick, ticks
from tests.storage.holder_process import holder_process

ONCE = RetryPolicy(max_attempts=1)


async def test_the_command_line_resets_a_subscription_of_a_running_application(path: Path) -> None:
    """Otherwise the application would have to be stopped to deliver events again, or to skip some."""
    async with holder_process(path) as other:
        for number in (1, 2):
            await other.send(f"publish {number}")
            await other.wait_for_line(f"handled {number}")
        reset = ("subscriptions", "reset", str(path), "held", "--yes", "--to")
        code, output = await asyncio.to_thread(run_cli, *reset, "beginning")
        assert (code, output) == (0, "1 done; takes effect when the subscription is handled next\n")
        await other.wait_for_line("handled 1")
        await other.wait_for_line("handled 2")
        await other.send("publish 3")
        await other.wait_for_line("handled 3")


async def test_a_reset_from_another_process_skips_a_poison_event(path: Path) -> None:
    """Otherwise an operator could do nothing about a subscription that has halted in the application."""
    async with holder_process(path) as other, open_operations(str(path)) as operations:
        await other.send("poison 2")
        for number in (1, 2, 3):
            await other.send(f"publish {number}")
            await other.wait_for_line("drained")
        await wait_for_state(operations, "halted", "held")
        result = await operations.reset("held", 2)
        assert (result.position, result.pending) == (None, True)
        await other.wait_for_line("handled 3")
        await wait_for_state(operations, "active", "held")


@pytest.mark.parametrize("paused", [False, True])
async def test_a_reset_removes_the_dead_letters_of_events_it_delivers_again(path: Path, paused: bool) -> None:
    """Their events would be handled twice: delivered from the log, and again by a retry."""
    healthy = False

    async def handle(event: Tick) -> None:
        if not healthy:
            raise ValueError("not yet")
        numbers.append(event.number)

    numbers: list[int] = []
    async with (
        SqliteEventStorage(path) as storage,
        SqliteEventStorage(path) as second,
        InMemoryEventBus(storage) as bus,
    ):
        bus.subscribe(Tick, handle, name="sub", retry=ONCE)
        await bus.publish_batch(ticks(3))
        await bus.drain(timeout=30)
        assert len(await bus.dead_letters.list()) == 3
        healthy = True
        if paused:
            await second.pause_subscription("sub")
        assert await second.request_reset("sub", 1) is None
        if paused:
            await until(lambda: bus.get_statistics()["subscriptions"]["sub"]["lag"] == 2)
            assert numbers == []
            await second.resume_subscription("sub")
        await until(lambda: len(numbers) == 2)
        await until(lambda: bus.get_statistics()["failed_events_count"] == 1)
        [left] = await bus.dead_letters.list()
        assert left.event.number not in numbers


async def test_a_reset_on_a_standby_bus_moves_the_holder(path: Path) -> None:
    """A dashboard in a second process would reject a reset that the command line accepts."""
    first, idle = Recorder(), Recorder()
    async with (
        SqliteEventStorage(path) as storage,
        SqliteEventStorage(path) as second,
        InMemoryEventBus(storage) as bus,
        InMemoryEventBus(second) as other,
    ):
        bus.subscribe(Tick, first.handle, name="sub")
        await bus.publish_batch(ticks(2))
        await first.reaches(2)
        other.subscribe(Tick, idle.handle, name="sub")
        await until(lambda: other.get_statistics()["subscriptions"]["sub"]["state"] == "standby")
        async with operations_of(other) as operations:
            assert (await operations.reset("sub", "beginning")).pending
        await first.reaches(4)
        assert idle.seen == []
