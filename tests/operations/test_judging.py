"""Health reasons, and what is shown, counted and looked up for operators."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pabal import InMemoryEventStorage
from pabal.domain.envelope import from_microseconds
from pabal.errors import InvalidFilterError
from pabal.factory import open_operations
from pabal.operations import HIDDEN, Masking, doctor
from pabal.operations.health import judge
from pabal.operations.log import position_at
from pabal.ports.operations import DeadLetterFilter, SubscriptionView, Target
from tests.operations.conftest import ShopOrder

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
LIVE = Target("sqlite", "shop.db", live=True, has_log=True)
AWAY = Target("sqlite", "shop.db", live=False, has_log=True)


def view(state: str = "active", **more: Any) -> SubscriptionView:
    figures = {"watermark": 0, "frontier": 0, "lag": 0, "retries": 0, "parked": 0, "queued": 0, **more}
    return SubscriptionView("pack", state, **figures)


@pytest.mark.parametrize(
    ("seen", "target", "level", "code", "words"),
    [
        (view("halted", reason="halted at event 5"), LIVE, "failing", "halted", "halted at event 5"),
        (view("paused", paused=True, lag=1200), LIVE, "degraded", "paused", "1,200 events wait"),
        (view("idle", lag=3), AWAY, "degraded", "unclaimed", "no process handles it"),
        (
            view("standby", lag=3, updated_at=NOW - timedelta(hours=1)),
            LIVE,
            "degraded",
            "stuck",
            "makes no progress",
        ),
        (view(retries=2048), LIVE, "degraded", "retrying", "2,048 failed deliveries"),
        (view(parked=2), LIVE, "degraded", "parked", "dead letters (2)"),
        (view(queued=7), LIVE, "degraded", "queued", "7 events queued behind dead letters"),
        (view(skipped=4), LIVE, "degraded", "skipped", "4 events of unregistered types"),
    ],
)
def test_each_thing_that_is_wrong_is_a_reason_of_its_own(
    seen: SubscriptionView, target: Target, level: str, code: str, words: str
) -> None:
    """A page that is green while events are stuck is worse than none."""
    found, [reason] = judge(target, [seen], [], NOW)
    assert (found, reason.level, reason.code, reason.subscription) == (level, level, code, "pack")
    assert words in reason.text


@pytest.mark.parametrize(
    ("seen", "target"),
    [
        (view(lag=5), LIVE),
        (view(retries=2047), LIVE),
        (view("idle"), AWAY),
        (view("standby", lag=3, updated_at=NOW - timedelta(seconds=5)), LIVE),
        (view("standby", lag=3, updated_at=NOW - timedelta(hours=1)), AWAY),
    ],
)
def test_what_works_as_it_should_is_no_reason(seen: SubscriptionView, target: Target) -> None:
    """False alarms teach people to ignore them."""
    assert judge(target, [seen], [], NOW) == ("ok", ())


def test_what_is_masked_is_masked_within_lists_too() -> None:
    """The buyers' addresses in an order would be shown if there are several."""
    payload = {"buyers": [{"name": "kim", "email": "kim@example.com"}, ["x", {"password": "p"}]], "raw": b"?"}
    assert Masking("masked").of(payload) == {
        "buyers": [{"name": "kim", "email": HIDDEN}, ["x", {"password": HIDDEN}]],
        "raw": HIDDEN,
    }


async def test_a_place_in_the_log_is_found_by_time() -> None:
    """The rate of the last hour would count the wrong events."""
    async with InMemoryEventStorage() as storage:
        for number in range(9):
            await storage.store_event(ShopOrder(f"o-{number}", number))
        times = [row.recorded_at for row in (await storage.read_page(0, limit=9)).rows]
        for at in times:
            first = times.index(at) + 1
            assert await position_at(storage, from_microseconds(at), 1, 9) == first
        assert await position_at(storage, from_microseconds(times[-1] + 1), 1, 9) == 10


async def test_dead_letters_are_counted_by_the_type_of_their_event(stopped: Path) -> None:
    """After confirming "discard 2 dead letters?", exactly two must be gone."""
    async with open_operations(stopped) as operations:
        wanted = DeadLetterFilter(event_type="shop.ordered")
        assert await operations.count_matching(wanted) == 2
        assert await operations.count_matching(DeadLetterFilter(event_type="shop.packed")) == 0
        assert (await operations.discard_matching(wanted)).count == 2


@pytest.mark.parametrize("limit", [0, -1, 1_000_000])
async def test_a_page_of_no_sensible_length_is_refused(stopped: Path, limit: int) -> None:
    """A page of a million events would fill the memory of the inspected process."""
    async with open_operations(stopped) as operations:
        with pytest.raises(InvalidFilterError, match="limit"):
            await operations.events(limit=limit)


def test_a_write_ahead_log_that_has_grown_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It costs disk space, and means that a reader never finishes."""
    monkeypatch.setattr(doctor, "_WAL_WARNING_BYTES", 1000)
    wal = tmp_path / "shop.db-wal"
    wal.write_bytes(bytes(1001))
    finding = doctor._check_wal(tmp_path / "shop.db")
    assert finding.level == "warning"
    assert finding.advice is not None
    assert "close readers" in finding.advice
    wal.write_bytes(bytes(1000))
    assert doctor._check_wal(tmp_path / "shop.db").level == "ok"
