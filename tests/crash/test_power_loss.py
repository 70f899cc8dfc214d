"""Power cuts on a simulated disk: unsynced writes are lost, or survive in part."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.crash.power import PowerCuts, run_on_simulated_disk

pytestmark = pytest.mark.crash


async def test_a_power_cut_loses_no_acked_event_with_full_durability(
    tmp_path: Path, disk_library: Path
) -> None:
    """Promises 2 and 3: an acked event is synced, so no power cut can lose it."""
    log, database = await run_on_simulated_disk(disk_library, tmp_path, "full", acks=400)
    report = await PowerCuts(tmp_path, log, database, "full").all()
    assert not report.findings.wrong, report.findings
    assert report.acked >= 400
    assert report.images >= 200
    assert report.torn >= 20
    assert report.most_lost == 0


async def test_a_power_cut_loses_at_most_a_suffix_with_normal_durability(
    tmp_path: Path, disk_library: Path
) -> None:
    """Promise 3: the newest events may be lost, but without a hole, damage, or a cursor beyond the log."""
    log, database = await run_on_simulated_disk(disk_library, tmp_path, "normal", acks=400)
    report = await PowerCuts(tmp_path, log, database, "normal").all()
    assert not report.findings.wrong, report.findings
    assert report.acked >= 400
    # The cuts are effective: judged by the promise of "full", some lose events within the first hundred.
    assert report.most_lost > 0
    strict = await PowerCuts(tmp_path, log, database, "full").all(torn=0.0, most=100)
    assert strict.findings.wrong.keys() == {"lost"}
