"""Several processes on one file."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.crash.crowd import share_a_file

pytestmark = pytest.mark.crash


async def test_processes_sharing_a_file_get_no_lock_error_and_never_handle_concurrently(
    tmp_path: Path,
) -> None:
    """Promise 36, a short run without timings: no "database is locked" errors, one holder at a time."""
    accounts, wrong = await share_a_file(tmp_path / "shared.db", processes=8, seconds=2)
    assert not wrong, wrong[:10]
    assert all(account.published for account in accounts[:8])
