"""Start processes, kill them, and check what they left."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from tests import warm
from tests.crash.check import Findings, check_acked, check_deliveries, check_watermark, read_log
from tests.crash.child import Settings
from tests.crash.record import lines

ROOT = Path(__file__).parents[2]
LOADED = (*warm.BUS, "tests.crash.points", "tests.crash.events")
"""Modules that a child process imports before it begins."""


def environment() -> dict[str, str]:
    """Return the environment of a child, without coverage: a killed process cannot save it anyway."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    # Use this checkout's source, wherever the installed package comes from.
    return {**kept, "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "src")))}


class Child:
    """A process of the laboratory."""

    def __init__(self, process: asyncio.subprocess.Process | warm.Process) -> None:
        self.process = process

    @classmethod
    async def start(cls, settings: Settings, *, preload: Path | None = None, **variables: str) -> Child:
        command = ("tests.crash.child", msgspec.json.encode(settings).decode())
        variables = {**environment(), **variables}
        if preload is None:
            return cls(await warm.Process.start(*command, warm=LOADED, cwd=ROOT, env=variables))
        # LD_PRELOAD takes effect only when an interpreter starts.
        return cls(
            await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", *command),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env={**variables, "LD_PRELOAD": str(preload)},
                cwd=ROOT,
            )
        )

    async def next_line_is(self, text: str) -> bool:
        """Return whether the next line the process prints is ``text``; False if it ends first."""
        assert self.process.stdout is not None
        async with asyncio.timeout(60):
            return (await self.process.stdout.readline()).decode().strip() == text

    async def wait_for_exit(self, timeout: float = 120) -> int:
        """Wait for the end and return the exit code (-9 if killed); fail if the process itself failed."""
        async with asyncio.timeout(timeout):
            _, errors = await self.process.communicate()
        code = self.process.returncode
        assert code in (0, -signal.SIGKILL), f"a child ended with {code}:\n{errors.decode()}"
        assert b"Traceback" not in errors, errors.decode()
        return code

    async def kill(self) -> None:
        with suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()


class Laboratory:
    """One database, its record, and the processes that use it one after the other."""

    def __init__(self, folder: Path, durability: str, seed: int, **settings: Any) -> None:
        self.path = folder / f"{durability}.db"
        self.record = folder / f"{durability}.record"
        self.chance = random.Random(seed)
        self.settings = Settings(str(self.path), str(self.record), durability=durability, **settings)
        self.rounds = 0
        self.kills = 0

    def next_settings(self, **changes: Any) -> Settings:
        self.rounds += 1
        changes = {"round": self.rounds, "seed": self.chance.randrange(1 << 30), **changes}
        return msgspec.structs.replace(self.settings, **changes)

    async def kill_at_random(self, within: float) -> None:
        """Run a process and kill it at a random instant up to ``within`` seconds after its first ack."""
        child = await Child.start(self.next_settings())
        if await child.next_line_is("published"):
            await asyncio.sleep(self.chance.uniform(0, within))
        child.process.send_signal(signal.SIGKILL)
        await self._count_kill(child)

    async def kill_at_point(self, point: str, nth: int, **changes: Any) -> None:
        """Run a process that kills itself when it reaches a named point for the nth time."""
        child = await Child.start(self.next_settings(point=point, nth=nth, **changes))
        await self._count_kill(child)

    async def _count_kill(self, child: Child) -> None:
        if await child.wait_for_exit() == -signal.SIGKILL:
            self.kills += 1

    async def finish(self, **changes: Any) -> None:
        """Run a process that publishes nothing, handles all remaining events, and ends by itself."""
        child = await Child.start(self.next_settings(publishers=0, **changes))
        assert await child.wait_for_exit() == 0

    def check_acks(self) -> Findings:
        """Check the log against the acks, between two rounds."""
        findings = Findings()
        stored = read_log(self.path, findings, full=False)
        check_acked(stored, lines(self.record), findings)
        return findings

    def check_all(self) -> Findings:
        """Check everything, after ``finish``."""
        findings = Findings()
        stored = read_log(self.path, findings)
        check_acked(stored, lines(self.record), findings)
        if self.settings.consume:
            check_deliveries(stored, lines(self.record), findings, complete=True)
            check_watermark(self.path, "consumer", stored, findings)
        return findings
