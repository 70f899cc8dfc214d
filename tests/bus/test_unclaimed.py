"""Unclaimed work: that of a subscription that was renamed, or left out of a new release."""

from __future__ import annotations

from pabal.ports.telemetry import WorkUnclaimed
from tests.bus.samples import Moved
from tests.bus.support import Backend, Recorder, numbers, reports_of


async def test_a_renamed_handler_with_pending_work_is_reported_and_nothing_is_discarded(
    stored: Backend,
) -> None:
    """Promise 28. After a refactoring, a night's orders would stay unhandled and unnoticed."""
    handled: Recorder[Moved] = Recorder()

    async def handle(event: Moved) -> None:
        handled.add(event)

    bus = await stored.start_bus()
    bus.subscribe(Moved, handle, name="before")
    await bus.drain(60)
    bus = await stored.reopen(bus)
    assert bus.storage is not None
    await bus.storage.store_events([Moved("A", n) for n in range(5)])
    reports = reports_of(bus, WorkUnclaimed)
    bus.subscribe(Moved, handle, name="after")
    await bus.start()
    assert [(report.subscription, report.unfinished) for report in reports] == [("before", 5)]
    assert bus.health().status == "degraded"
    assert any("nothing is subscribed under that name" in reason for reason in bus.health().reasons)
    await bus.drain(60)
    bus = await stored.reopen(bus)
    bus.subscribe(Moved, handle, name="before")
    await bus.start()
    await bus.drain(60)
    assert numbers(handled) == list(range(5))
    assert bus.health().status == "ok"
