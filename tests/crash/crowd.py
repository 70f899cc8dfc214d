"""Processes that share one file: ``python -m tests.crash.crowd '{"path": …}'``; each reports what it saw."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import msgspec

from pabal import InMemoryEventBus, SqliteEventStorage
from tests.crash.events import Step
from tests.crash.laboratory import ROOT, environment


class Task(msgspec.Struct, frozen=True):
    """What one process of the crowd does."""

    path: str
    prefix: str
    seconds: float = 0.0
    """Seconds to publish."""
    silent: bool = False
    """Whether to publish nothing in that time."""
    handle_until: int = 0
    """Afterwards, handle until the log's head is this position and all events are handled."""


class Account(msgspec.Struct):
    """What a process of the crowd did and saw."""

    published: int = 0
    longest_wait: float = 0.0
    errors: list[str] = msgspec.field(default_factory=list)
    handled: list[tuple[str, int, int, int]] = msgspec.field(default_factory=list)
    """Key, number, begin and end of each delivery, in nanoseconds on a clock that all processes share."""
    delays: list[float] = msgspec.field(default_factory=list)
    """Seconds from a publish in another process to the handler in this one."""


async def take_part(task: Task) -> Account:
    account = Account()
    own = f"{task.prefix}-"

    async def handle(event: Step) -> None:
        begun = time.monotonic_ns()
        if not event.key.startswith(own):
            account.delays.append(time.time() - event.occurred_at.timestamp())
        await asyncio.sleep(0)
        account.handled.append((event.key, event.number, begun, time.monotonic_ns()))

    async with SqliteEventStorage(task.path) as storage, InMemoryEventBus(storage) as bus:
        bus.subscribe(Step, handle, name="crowd", start="beginning")
        print("ready", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
        end = time.monotonic() + task.seconds
        if task.silent:
            await asyncio.sleep(task.seconds)
        while time.monotonic() < end:
            started = time.monotonic()
            try:
                await bus.publish(Step(f"{own}key", account.published))
                account.published += 1
            except Exception as error:
                account.errors.append(repr(error))
            account.longest_wait = max(account.longest_wait, time.monotonic() - started)
            await asyncio.sleep(0)
        if task.handle_until:
            await bus.drain(timeout=60)
        else:
            # Release the subscription where it stands, as a process does that is stopped.
            await bus.stop()
    return account


async def gather_crowd(tasks: list[Task]) -> list[Account]:
    """Run one process per task, all starting at the same time; return their accounts."""
    processes = []
    for task in tasks:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "tests.crash.crowd", msgspec.json.encode(task).decode()),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=1 << 28,
            env=environment(),
            cwd=ROOT,
        )
        processes.append(process)
    for process in processes:
        assert process.stdout is not None
        assert (await process.stdout.readline()).strip() == b"ready"
    answers = await asyncio.gather(*(process.communicate(b"go\n") for process in processes))
    assert [process.returncode for process in processes] == [0] * len(processes)
    return [msgspec.json.decode(answer, type=Account) for answer, _ in answers]


def overlaps(accounts: list[Account]) -> Iterator[str]:
    """Find deliveries that two processes made at the same time: a subscription has only one holder."""
    spans = sorted(
        (begun, ended, index, key, number)
        for index, account in enumerate(accounts)
        for key, number, begun, ended in account.handled
    )
    for one, two in pairwise(spans):
        if one[2] != two[2] and two[0] < one[1]:
            yield f"{one} and {two}"


async def share_a_file(path: Path, processes: int, seconds: float) -> tuple[list[Account], list[str]]:
    """Let processes publish into one file together; return their accounts and what is wrong. Promise 36."""
    tasks = [Task(str(path), f"w{index}", seconds) for index in range(processes)]
    accounts = await gather_crowd(tasks)
    published = sum(account.published for account in accounts)
    accounts += await gather_crowd([Task(str(path), "last", handle_until=published)])
    wrong = [error for account in accounts for error in account.errors]
    wrong += [f"handled by two at once: {found}" for found in overlaps(accounts)]
    handled = {(key, number) for account in accounts for key, number, *_ in account.handled}
    if len(handled) != published:
        wrong.append(f"{published} published, {len(handled)} handled")
    async with SqliteEventStorage(path) as storage:
        if await storage.head() != published:
            wrong.append(f"{published} published, {await storage.head()} stored")
        wrong += await storage.check()
    return accounts, wrong


async def measure_delay(path: Path, seconds: float) -> list[float]:
    """Publish in one process and handle in another; return the delays in seconds, sorted. Promise 39."""
    listener = Task(str(path), "listener", seconds, silent=True)
    # The listener starts first, so that it holds the subscription.
    process = asyncio.ensure_future(gather_crowd([listener]))
    async with SqliteEventStorage(path) as storage:
        await _wait_for_holder(storage)
        end = time.monotonic() + seconds * 0.8
        number = 0
        while time.monotonic() < end:
            await storage.store_event(Step("speaker-key", number))
            number += 1
            await asyncio.sleep(0.02)
    (account,) = await process
    return sorted(account.delays)


async def _wait_for_holder(storage: SqliteEventStorage) -> None:
    async with asyncio.timeout(30):
        # This waits for another process.
        while not any(record.owner for record in await storage.list_subscriptions()):  # noqa: ASYNC110
            await asyncio.sleep(0.02)


if __name__ == "__main__":
    answer = asyncio.run(take_part(msgspec.json.decode(sys.argv[1], type=Task)))
    sys.stdout.buffer.write(msgspec.json.encode(answer))
