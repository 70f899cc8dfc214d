"""A group of real processes under constant disturbance: kills, freezes, departures, server restarts."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from asyncio.subprocess import DEVNULL, Process
from collections import Counter
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from random import Random

import pytest

from pabal.brokers.redis import RedisEventBus
from pabal.errors import BrokerError
from tests.brokers.events import Moved, until
from tests.brokers.server import Server
from tests.brokers.support import make_bus

CODE = """
import asyncio, os, signal, sys, time
from pabal import DeliveryContext, RetryPolicy
from pabal.brokers.redis import RedisEventBus
from tests.brokers.events import Moved

async def main(url, namespace, path):
    out = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    async def handle(event: Moved, context: DeliveryContext):
        begun = time.monotonic()
        if event.number % 50 == 7 and context.attempt == 1:
            raise ValueError("the first time")
        if event.number % 40 == 3:
            await asyncio.sleep(0.01)
        os.write(out, f"{begun:.6f} {event.key} {event.number}\\n".encode())

    bus = RedisEventBus(url, group="g", namespace=namespace, partitions=8, lease=2.0)
    policy = RetryPolicy(max_attempts=9, base_delay=0.05)
    bus.subscribe(Moved, handle, name="sub", start="beginning", retry=policy)
    leave = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, leave.set)
    async with bus:
        await leave.wait()

asyncio.run(main(*sys.argv[1:]))
"""
SECONDS = 40.0
MEMBERS = 3
PUBLISHERS = 4


class Group:
    """Processes of one group; each writes the events it handles to a file of its own."""

    def __init__(self, server: Server, namespace: str, folder: Path) -> None:
        self._server = server
        self._namespace = namespace
        self._folder = folder
        self._members: list[Process] = []
        self._started = 0

    async def __aenter__(self) -> Group:
        for _ in range(MEMBERS):
            self._members.append(await self._join())
        return self

    async def __aexit__(self, *error: object) -> None:
        for member in self._members:
            with suppress(ProcessLookupError):
                member.kill()
            await member.wait()

    async def _join(self) -> Process:
        self._started += 1
        out = str(self._folder / f"{self._started}.txt")
        return await asyncio.create_subprocess_exec(
            sys.executable, "-c", CODE, self._server.url, self._namespace, out, stderr=DEVNULL
        )

    async def disturb(self, chance: Random) -> None:
        """Kill, freeze or replace a random process, or restart the server."""
        index = chance.randrange(MEMBERS)
        member = self._members[index]
        disturbance = chance.choice(["kill", "leave", "pause", "server"])
        if disturbance == "server":
            await self._server.restart()
        elif disturbance == "pause":
            os.kill(member.pid, signal.SIGSTOP)
            await asyncio.sleep(chance.uniform(0.5, 4.0))
            os.kill(member.pid, signal.SIGCONT)
        else:
            member.send_signal(signal.SIGKILL if disturbance == "kill" else signal.SIGTERM)
            await member.wait()
            self._members[index] = await self._join()

    def handled(self) -> list[tuple[float, str, int]]:
        """Return ``(start time, key, number)`` of every handled event, sorted by start time."""
        lines = [
            line.split() for file in self._folder.glob("*.txt") for line in file.read_text().splitlines()
        ]
        return sorted((float(begun), key, int(number)) for begun, key, number in lines)


async def _publish(bus: RedisEventBus, key: str, until_moment: float, acked: Counter[str]) -> None:
    chance = Random(key)
    while time.monotonic() < until_moment:
        count = chance.choice([1, 1, 5, 20])
        events = [Moved(key, acked[key] + number) for number in range(1, count + 1)]
        while True:
            try:
                await bus.publish_batch(events)
                break
            except BrokerError:
                await asyncio.sleep(0.1)  # same ids again: what was stored is not stored twice
        acked[key] += count
        await asyncio.sleep(chance.uniform(0.0, 0.02))


@pytest.mark.redis
@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_a_group_under_constant_disturbance_loses_nothing_and_keeps_order_per_key(
    own_server: Server, namespace: str, tmp_path: Path, seed: int
) -> None:
    """Promises 40, 41 and 44 at once. Disturbances that are harmless alone may do harm together."""
    chance = Random(seed)
    acked: Counter[str] = Counter()
    async with AsyncExitStack() as stack:
        group = await stack.enter_async_context(Group(own_server, namespace, tmp_path))
        buses = [
            await stack.enter_async_context(make_bus(own_server, namespace, group=f"publisher-{number}"))
            for number in range(PUBLISHERS)
        ]
        end = time.monotonic() + SECONDS
        publishing = [
            asyncio.create_task(_publish(bus, f"{number}-{key}", end, acked))
            for number, bus in enumerate(buses)
            for key in range(25)
        ]
        while time.monotonic() < end:
            await asyncio.sleep(chance.uniform(0.5, 3.0))
            await group.disturb(chance)
        await asyncio.gather(*publishing)
        wanted = {(key, number) for key in acked for number in range(1, acked[key] + 1)}
        await until(lambda: len({each[1:] for each in group.handled()}) >= len(wanted), 120.0)
        first_times: dict[str, list[int]] = {}
        for _, key, number in group.handled():
            numbers = first_times.setdefault(key, [])
            if number not in numbers[-500:]:
                numbers.append(number)
    assert {(key, number) for key, numbers in first_times.items() for number in numbers} == wanted
    assert all(numbers == list(range(1, acked[key] + 1)) for key, numbers in first_times.items())
