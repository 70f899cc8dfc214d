"""The example with separate processes arrives at the same result as one process."""

from __future__ import annotations

import asyncio
import os
import sys

import pytest

from tests.brokers.server import Server


@pytest.mark.redis
async def test_the_distributed_example_gets_the_same_result_despite_a_kill(shared_server: Server) -> None:
    """A killed strategy could omit orders, or place them twice."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "examples.distributed",
        "--url",
        shared_server.url,
        "--ticks",
        "600",
        stdout=asyncio.subprocess.PIPE,
        cwd=os.getcwd(),
    )
    output, _ = await process.communicate()
    lines = output.decode().splitlines()
    assert process.returncode == 0, lines
    assert lines[-1] == "the same"
    assert "SYM-11" in lines[0]
