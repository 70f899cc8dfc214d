"""Stops under traffic, a short run: `make test-crash` does a thousand, and one with the full budget."""

from __future__ import annotations

from pathlib import Path

from tests.crash.stopping import AT_ONCE, IN_FLIGHT, start_and_stop, stop_in_flight


async def test_repeated_stops_under_traffic_lose_no_event_and_leak_nothing(tmp_path: Path) -> None:
    """Promise 7. Otherwise each restart of a bus could lose events or leak a descriptor."""
    acked, wrong = await start_and_stop(tmp_path / "log.db", cycles=25)
    assert not wrong, wrong[:5]
    assert acked == 25 * AT_ONCE


async def test_a_stop_with_a_thousand_running_handlers_redelivers_exactly_the_unfinished(
    tmp_path: Path,
) -> None:
    """Promise 8, without its time limit. Otherwise finished events would come again, or others be lost."""
    stopped = await stop_in_flight(tmp_path / "log.db", budget=0.5)
    assert not stopped.wrong, stopped.wrong
    assert (stopped.finished, stopped.redelivered) == (IN_FLIGHT // 2, IN_FLIGHT // 2)
