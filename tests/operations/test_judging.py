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
OFFLINE = Target("sqlite", "shop.db", live=False, has_log=True)


def view(state: str = "active", **more: Any) -> SubscriptionView:
    figures = {"watermark": 0, "frontier": 0, "lag": 0, "retries": 0, "parked": 0, "queued": 0, **more}
    return SubscriptionView("pack", state, **figures)


@pytest.mark.parametrize(
    ("subscription", "target", "level", "code", "message"),
    [
        (view("halted", reason="halted at event 5"), LIVE, "failing", "halted", "halted at event 5"),
        (view("paused", paused=True, lag=1200), LIVE, "degraded", "paused", "1,200 events wait"),
        (view("paused", paused=True, lag=1), LIVE, "degraded", "paused", "1 event waits"),
        (view("idle", lag=1), OFFLINE, "degraded", "unclaimed", "has 1 unfinished event,"),
        (view(queued=1), LIVE, "degraded", "queued", "1 event queued behind dead letters"),
        (view(skipped=1), LIVE, "degraded", "skipped", "skipped 1 event of an unregistered type"),
        (view("idle", lag=3), OFFLINE, "degraded", "unclaimed", "no process handles it"),
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
def test_each_problem_of_a_subscription_is_a_separate_health_reason(
    subscription: SubscriptionView, target: Target, level: str, code: str, message: str
) -> None:
    """A page that is green while events are stuck is worse than none."""
    status, [reason] = judge(target, [subscription], [], NOW)
    assert (status, reason.level, reason.code, reason.subscription) == (level, level, code, "pack")
    assert message in reason.text


@pytest.mark.parametrize(
    ("subscription", "target"),
    [
        (view(lag=5), LIVE),
        (view(retries=2047), LIVE),
        (view("idle"), OFFLINE),
        (view("standby", lag=3, updated_at=NOW - timedelta(seconds=5)), LIVE),
        (view("standby", lag=3, updated_at=NOW - timedelta(hours=1)), OFFLINE),
    ],
)
def test_a_working_subscription_has_no_health_reason(subscription: SubscriptionView, target: Target) -> None:
    """False alarms teach people to ignore them."""
    assert judge(target, [subscription], [], NOW) == ("ok", ())


def test_masking_hides_fields_inside_lists() -> None:
    """The buyers' addresses in an order would be shown if there are several."""
    payload = {"buyers": [{"name": "kim", "email": "kim@example.com"}, ["x", {"password": "p"}]], "raw": b"?"}
    assert Masking("masked").of(payload) == {
        "buyers": [{"name": "kim", "email": HIDDEN}, ["x", {"password": HIDDEN}]],
        "raw": HIDDEN,
    }


async def test_position_at_finds_the_position_for_a_time() -> None:
    """The rate of the last hour would count the wrong events."""
    async with InMemoryEventStorage() as storage:
        for number in range(9):
            await storage.store_event(ShopOrder(f"o-{number}", number))
        times = [row.recorded_at for row in (await storage.read_page(0, limit=9)).rows]
        for at in times:
            first = times.index(at) + 1
            assert await position_at(storage, from_microseconds(at), 1, 9) == first
        assert await position_at(storage, from_microseconds(times[-1] + 1), 1, 9) == 10


async def test_dead_letters_are_counted_and_discarded_by_event_type(stopped: Path) -> None:
    """After confirming "discard 2 dead letters?", exactly two must be gone."""
    async with open_operations(stopped) as operations:
        wanted = DeadLetterFilter(event_type="shop.ordered")
        assert await operations.count_matching(wanted) == 2
        assert await operations.count_matching(DeadLetterFilter(event_type="shop.packed")) == 0
        assert (await operations.discard_matching(wanted)).count == 2


@pytest.mark.parametrize("limit", [0, -1, 1_000_000])
async def test_a_page_limit_out_of_range_is_rejected(stopped: Path, limit: int) -> None:
    """A page of a million events would fill the memory of the inspected process."""
    async with open_operations(stopped) as operations:
        with pytest.raises(InvalidFilterError, match="limit"):
            await operations.events(limit=limit)


def test_a_large_write_ahead_log_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
