"""A group of real processes is controlled from outside, even while one of them is suspended by SIGSTOP."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from pabal.factory import open_operations
from tests.brokers.events import Moved
from tests.brokers.server import Server
from tests.brokers.support import make_bus, run_cli, url_of

CODE = """
import asyncio, pathlib, sys
from pabal.brokers.redis import RedisEventBus
from pabal.delivery.retry import RetryPolicy
from tests.brokers.events import Moved
async def main(url, namespace, fixed="/"):
    bus = RedisEventBus(url, group="g", namespace=namespace, partitions=8, lease=3.0)
    def say(what): print(what, flush=True)
    async def handle(event):
        if event.number == 3 and not pathlib.Path(fixed).exists():
            raise ValueError("poison")
        say(f"sub {event.number}")
    async def other(event): say(f"other {event.number}")
    bus.subscribe(Moved, handle, name="sub", retry=RetryPolicy(max_attempts=1), on_exhausted="stop")
    bus.subscribe(Moved, other, name="other")
    bus.listen(lambda report: say(type(report).__name__))
    async with bus:
        say("ready")
        await asyncio.to_thread(sys.stdin.readline)
    say("ended")
asyncio.run(main(*sys.argv[1:]))
"""


class Child:
    """A process of the group, and the lines it has printed so far."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.lines: Counter[str] = Counter()
        self._printed = asyncio.Condition()

    async def listen(self) -> None:
        """Count each line that the process prints, until it ends."""
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            async with self._printed:
                self.lines[line.decode().strip()] += 1
                self._printed.notify_all()

    def numbers(self, name: str = "sub") -> list[int]:
        """Return the sorted numbers of the events that one of its subscriptions has handled."""
        words = [line.split() for line in self.lines.elements()]
        return sorted(int(word[1]) for word in words if word[0] == name)

    async def wait_for_line(self, what: str, times: int = 1) -> None:
        """Return when the process has printed the line ``what`` at least ``times`` times."""
        async with asyncio.timeout(60), self._printed:
            await self._printed.wait_for(lambda: self.lines[what] >= times)

    async def end(self) -> None:
        """Ask the process to stop its bus and exit, and wait for it."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")
        await self.process.wait()


@asynccontextmanager
async def child_process(server: Server, namespace: str, *fixed: str) -> AsyncIterator[Child]:
    """Run one process of the group; it is ended in any case.

    If ``fixed`` names a file, the handler fails for event 3 until that file exists.
    """
    arguments = (sys.executable, "-c", CODE, server.url, namespace, *fixed)
    process = await asyncio.create_subprocess_exec(*arguments, stdin=PIPE, stdout=PIPE, cwd=os.getcwd())
    one = Child(process)
    listening = asyncio.create_task(one.listen())
    try:
        await one.wait_for_line("ready")
        yield one
        await one.end()
        await listening
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        listening.cancel()


async def wait_until_handled(count: int, *children: Child, name: str = "sub") -> list[int]:
    """Return the numbers that all children together have handled, once there are at least ``count``."""
    async with asyncio.timeout(60):
        while True:
            numbers = sorted(number for one in children for number in one.numbers(name))
            if len(numbers) >= count:
                return numbers
            await asyncio.sleep(0.01)


async def test_processes_follow_the_cli_and_a_suspended_one_undoes_nothing(
    shared_server: Server, namespace: str
) -> None:
    """The promises about a group would hold only for buses in the same process."""
    url = url_of(shared_server, namespace)

    async def run(*words: str) -> None:
        code, output = await asyncio.to_thread(run_cli, *words[:2], url, *words[2:])
        assert code == 0, output

    async with child_process(shared_server, namespace) as one, child_process(shared_server, namespace) as two:
        await two.wait_for_line("PartitionTaken", 4)
        async with make_bus(shared_server, namespace) as publisher:
            await publisher.publish_batch([Moved(f"k{number % 16}", number) for number in range(20)])
            assert await wait_until_handled(20, one, two) == list(range(20))
            await run("subscriptions", "pause", "sub")
            await one.wait_for_line("SubscriptionPaused", 4)
            await two.wait_for_line("SubscriptionPaused", 4)
            await publisher.publish_batch([Moved(f"k{number % 16}", number) for number in range(20, 40)])
            assert await wait_until_handled(40, one, two, name="other") == list(range(40))
            assert await wait_until_handled(20, one, two) == list(range(20))
            await run("subscriptions", "resume", "sub")
            assert await wait_until_handled(40, one, two) == list(range(40))
        one.process.send_signal(signal.SIGSTOP)
        await run("subscriptions", "reset", "sub", "--to", "beginning", "--yes")
        assert await wait_until_handled(80, one, two) == sorted([*range(40), *range(40)])
        one.process.send_signal(signal.SIGCONT)
        await one.wait_for_line("PartitionLost")
        async with open_operations(url) as operations, asyncio.timeout(60):
            while {view.watermark for view in await operations.subscriptions()} != {40}:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    assert len(await wait_until_handled(80, one, two)) == 80
    assert one.lines["ended"] == two.lines["ended"] == 1
