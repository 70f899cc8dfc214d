"""Positions follow the order of commits, for all publishers and for every concurrent reader."""

from __future__ import annotations

from pathlib import Path

from tests.crash.positions import read_while_publishing


async def test_a_reader_never_sees_a_lower_position_after_a_higher_one(path: Path) -> None:
    """Promise 15, a short run. A subscription that has passed a position never comes back to it."""
    assert await read_while_publishing(path, 5_000) == []
