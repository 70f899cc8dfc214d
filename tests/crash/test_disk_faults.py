"""A full or failing disk causes typed errors, no partial writes, and recovery without a restart."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from tests.crash.disk.faults import Faults
from tests.crash.faulty import SCENARIOS
from tests.crash.laboratory import ROOT, environment

pytestmark = pytest.mark.crash


@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_a_storage_recovers_from_a_failing_disk(
    tmp_path: Path, disk_library: Path, scenario: str
) -> None:
    """Promise 37. Each scenario is described in ``faulty``, and runs on the simulated disk."""
    folder = tmp_path / "disk"
    folder.mkdir()
    control = tmp_path / "control"
    Faults.prepare(control)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tests.crash.faulty", scenario, str(folder / "log.db")),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=ROOT,
        env={
            **environment(),
            "LD_PRELOAD": str(disk_library),
            "DISK_ROOT": str(folder),
            "DISK_CONTROL": str(control),
        },
    )
    async with asyncio.timeout(60):
        output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
