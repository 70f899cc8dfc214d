"""A process manager that is killed at any point of a step ends as if nothing had happened."""

from __future__ import annotations

import asyncio
import json
import sys

import pytest


@pytest.mark.crash
async def test_a_shop_killed_at_any_write_ends_like_one_that_was_not_killed() -> None:
    """An order would be paid twice after a crash, or lost; `make test-processes` runs 200 rounds.

    It runs in a process of its own, because it forks.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.cqrs.crash", "--rounds", "6", stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(300):
        output, _ = await process.communicate()
    assert process.returncode == 0
    report = json.loads(output)
    assert (report["rounds"], report["different"]) == (6, [])
    assert report["kills"] >= 6
    assert report["points"] > 50
