"""Operators see the same for a log in memory as for one in a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pabal import InMemoryEventBus, InMemoryEventStorage, SqliteEventStorage
from pabal.operations import Operations, operations_of
from tests.operations.conftest import Shop, ShopOrder


async def _answers(operations: Operations) -> dict[str, Any]:
    """Return the answer to every query, without times and event ids."""
    overview = await operations.overview()
    page = await operations.events(limit=4, payloads=True)
    older = await operations.events(before=page.events[-1].cursor)
    chosen = next(one for one in older.events if one.payload is not None and one.aggregate_id == "o-1")
    detail = await operations.event(chosen.event_id)
    streams = await operations.streams(prefix="o-", limit=2)
    following = await operations.streams(prefix="o-", after=streams.next, limit=2)
    history = await operations.stream("o-1")
    await operations.discard(1)
    return {
        "overview": (overview.health, overview.totals.events, overview.parked, overview.subscriptions),
        "events": [(one.position, one.event_type, one.payload) for one in page.events],
        "older": [(one.position, one.event_type) for one in older.events],
        "event": [(one.subscription, one.state, one.attempts) for one in detail.deliveries],
        "streams": [streams.streams, following.streams],
        "stream": [(one.position, one.stream_version) for one in history],
        "other type": await operations.stream("o-1", aggregate_type="basket"),
        "letters": [(one.id, one.error_type) for one in (await operations.dead_letters()).dead_letters],
        "audit": [(one.action, one.subject, one.succeeded) for one in await operations.audit()],
        "earlier": await operations.audit(before=1),
    }


async def test_operations_give_the_same_results_for_a_log_in_memory_and_in_a_file(tmp_path: Path) -> None:
    """What an operator learns in a test would not hold in production."""
    found: list[dict[str, Any]] = []
    for storage in (SqliteEventStorage(tmp_path / "shop.db"), InMemoryEventStorage()):
        async with storage, InMemoryEventBus(storage, worker_count=1) as bus:
            Shop(bus)
            for number, quantity in enumerate((1, -1, 2, -2)):
                await bus.publish(ShopOrder(f"o-{number}", quantity))
                await bus.drain()
            await bus.publish(ShopOrder("o-1", 5))
            await bus.drain()
            found.append(await _answers(operations_of(bus)))
    in_file, in_memory = found
    assert in_memory == in_file
    assert in_file["overview"] == ("degraded", 8, 2, 1)
