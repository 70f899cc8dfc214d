"""Start ``tests.storage.holder`` in a process of its own, send it commands and wait for its lines."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path


class HolderProcess:
    """A process that runs ``tests.storage.holder``."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def wait_for_line(self, expected: str) -> None:
        """Read lines until the process prints this one."""
        assert self.process.stdout is not None
        async with asyncio.timeout(30):
            while (line := (await self.process.stdout.readline()).decode()) != "":
                if line.strip() == expected:
                    return
        raise AssertionError(f"the other process ended without printing {expected!r}")

    async def send(self, command: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(command.encode() + b"\n")
        await self.process.stdin.drain()


@asynccontextmanager
async def holder_process(path: Path, lease: float = 10.0) -> AsyncIterator[HolderProcess]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tests.storage.holder", str(path), str(lease)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    other = HolderProcess(process)
    try:
        await other.wait_for_line("started")
        yield other
    finally:
        if process.returncode is None:
            if sys.platform != "win32":
                os.kill(process.pid, signal.SIGCONT)
            process.kill()
        await process.communicate()
