"""A process that holds a subscription: ``python -m tests.storage.holder <path> <lease seconds>``.

It prints a line for each thing that happens, and reads commands: ``publish N``, ``poison N`` (from then
on that number halts the subscription), ``hold N`` (the handler of that number waits for ``go``), ``stop``.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from pabal import InMemoryEventBus, RetryPolicy, SqliteEventStorage
from pabal.delivery import leases
from pabal.storage.sqlite import cursors
from tests.storage.events import Tick


async def main(path: str, lease: float) -> None:
    cursors.LEASE_SECONDS = lease
    leases._RENEW_EVERY = 3600.0  # a process stopped while it renews would also hold the file's lock
    leases._STANDBY_PAUSE = 0.05

    poison = held = -1
    go = asyncio.Event()

    async def handle(event: Tick) -> None:
        if event.number == poison:
            raise ValueError("poison")
        if event.number == held:
            print(f"holding {event.number}", flush=True)
            await go.wait()
        print(f"handled {event.number}", flush=True)

    loop = asyncio.get_running_loop()
    async with SqliteEventStorage(path) as storage:
        bus = InMemoryEventBus(storage)
        bus.listen(lambda report: print(f"report {type(report).__name__}", flush=True))
        once = RetryPolicy(max_attempts=1)
        bus.subscribe(Tick, handle, name="held", start="beginning", retry=once, on_exhausted="stop")
        await bus.start()
        print("started", flush=True)
        while True:
            command: Any = (await loop.run_in_executor(None, sys.stdin.readline)).split()
            if not command or command[0] == "stop":
                break
            if command[0] == "poison":
                poison = int(command[1])
                continue
            if command[0] == "hold":
                held = int(command[1])
                print("will hold", flush=True)
                continue
            if command[0] == "go":
                go.set()
            else:
                await bus.publish(Tick("A", int(command[1])))
            await bus.drain()
            print("drained", flush=True)
        await bus.stop()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], float(sys.argv[2])))
