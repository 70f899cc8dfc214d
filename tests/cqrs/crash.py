"""Kill the shop at every point where it writes, and compare how it ends: ``python -m tests.cqrs.crash``.

Each round runs the shop on a new file, in a new process (forked, so that a round is fast). The process is
killed before, during or after its n-th write, once or twice; then the shop runs to the end.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_OID, uuid5

from pabal import InMemoryEventBus, SqliteEventStorage
from pabal.cqrs import CommandHandled, ProcessManagers, ProcessTimedOut
from pabal.eventsourcing import Repository
from pabal.testing import VirtualClock
from tests.cqrs.support import CqrsOrder, Fulfilment, PlaceOrder, make_commands

ORDERS = {"o-1": Decimal(10), "o-2": Decimal(20), "unpaid": Decimal(1000), "bad": Decimal(30)}
"""Two are shipped, one is never paid and times out, and one is cancelled because its payment is rejected."""
NEVER = 1 << 30


class CrashingStorage(SqliteEventStorage):
    """Kill the process before, during or after a given write."""

    points = 0
    crash_at = NEVER

    def _point(self) -> None:
        self.points += 1
        if self.points == self.crash_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def _around(self, write: Callable[[], Any]) -> Any:
        self._point()
        submitted = write()
        self._point()  # the writer's thread may be at any point of the write now

        async def finish() -> Any:
            result = await submitted
            self._point()
            return result

        return finish()

    def append_streams(self, changes: Any) -> Any:
        return self._around(lambda: super(CrashingStorage, self).append_streams(changes))

    def append_events(self, events: Any) -> Any:
        return self._around(lambda: super(CrashingStorage, self).append_events(events))

    async def schedule_event(self, event: Any, due_at: float) -> None:
        await self._around(lambda: super(CrashingStorage, self).schedule_event(event, due_at))

    async def release_due(self, now: float) -> Any:
        return await self._around(lambda: super(CrashingStorage, self).release_due(now))

    async def save_progress(self, changes: Any) -> Any:
        return await self._around(lambda: super(CrashingStorage, self).save_progress(changes))


async def run_shop(path: Path, crash_at: int) -> int:
    """Run the shop to its end; return how many points it passed."""
    storage = CrashingStorage(path, durability="normal")
    storage.crash_at = crash_at
    clock = VirtualClock(start=time.time())  # retries left by a crash are due by the machine's time
    bus = InMemoryEventBus(storage, clock=clock, seed=1)
    commands = make_commands(bus)
    processes = ProcessManagers(bus, commands, clock=clock)
    processes.add(Fulfilment, start="beginning")

    orders = Repository(CqrsOrder, bus, keep=0)

    async def until(order: str, status: str, *, within: float) -> None:
        """Advance the clock for retries after a crash, but not so far that other orders time out."""
        latest = clock.time() + within
        async with asyncio.timeout(60):
            while True:
                process = await processes.load(Fulfilment, order)
                has_ended = process is not None and process.ended
                if has_ended and (await orders.load(order)).status == status:
                    return
                await clock.advance(0.02 if clock.time() < latest else 0)

    async with storage, bus:
        for order, amount in ORDERS.items():
            await commands.execute(PlaceOrder(order, amount, command_id=str(uuid5(NAMESPACE_OID, order))))
        for order, status in (("o-1", "shipped"), ("o-2", "shipped"), ("bad", "cancelled")):
            await until(order, status, within=15)
        if (await orders.load("unpaid")).status == "placed":
            await clock.advance(61)
        await until("unpaid", "cancelled", within=1000)
        # Deliveries of a killed process are due when its death is noticed, by the machine's clock, which has
        # advanced since this clock was created. Leaving the block waits for them.
        await clock.advance(10)
        assert await bus.dead_letters.list() == []
    return storage.points


async def end_state(path: Path) -> list[str]:
    """Return everything on the log except times and random ids, sorted."""
    async with SqliteEventStorage(path, durability="normal") as storage:
        rows = []
        async for envelope in storage.read():
            payload = envelope.event.to_dict()["payload"]
            if isinstance(envelope.event, ProcessTimedOut) and payload["key"] != "unpaid":
                continue  # a timeout of an ended process, which may come after the run
            if isinstance(envelope.event, CommandHandled):
                del payload["handling"]
            # Ids derived by pabal depend only on the client's commands, and identify steps and commands. The
            # ids of the shop's own events are random in each run.
            for name in ("cause", "command_id", "fingerprint", "commands", "timeouts"):
                payload.pop(name, None)
            rows.append(json.dumps([envelope.event.event_type, payload], sort_keys=True, default=str))
    return sorted(rows)


def survives(path: Path, crash_at: int) -> bool:
    """Run the shop in a forked process; return whether it reached its end rather than died."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            asyncio.run(run_shop(path, crash_at))
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    status = os.waitpid(pid, 0)[1]
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return False
    if status:
        raise AssertionError(f"the shop failed, killed at point {crash_at}: status {status}")
    return True


def run(rounds: int, seed: int) -> dict[str, Any]:
    """Run ``rounds`` rounds; return what happened, and which rounds ended differently."""
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="pabal-processes-") as name:
        folder = Path(name)
        # Keep the main process free of threads, because it forks: anything that needs one runs in a child.
        expected, points = _measure(folder / "reference.db")
        kills, different = 0, []
        for number in range(rounds):
            path = folder / f"{number}.db"
            first = number % points + 1 if rounds >= points else rng.randint(1, points)
            for crash_at in (first, rng.choice((NEVER, rng.randint(1, points)))):
                kills += not survives(path, crash_at)
            if not survives(path, NEVER):
                raise AssertionError("killed by something else")
            if _state_of(path) != expected:
                different.append(number)
        return {"rounds": rounds, "points": points, "kills": kills, "different": different}


def _measure(path: Path) -> tuple[list[str], int]:
    points = _in_a_process(lambda: asyncio.run(run_shop(path, NEVER)))
    return _state_of(path), points


def _state_of(path: Path) -> list[str]:
    state: list[str] = _in_a_process(lambda: asyncio.run(end_state(path)))
    return state


def _in_a_process(work: Callable[[], Any]) -> Any:
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.close(reader)
            with os.fdopen(writer, "w") as pipe:
                json.dump(work(), pipe)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        text = pipe.read()
    if os.waitpid(pid, 0)[1]:
        raise AssertionError("a child failed")
    return json.loads(text)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.cqrs.crash", description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    report = run(options.rounds, options.seed)
    print(json.dumps(report))
    return 1 if report["different"] else 0


if __name__ == "__main__":
    sys.exit(main())
