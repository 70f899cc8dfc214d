"""Operations of a bus on a server, in its own process."""

from __future__ import annotations

from pabal.operations import operations_of
from tests.brokers.events import Moved, until
from tests.brokers.server import Server
from tests.brokers.support import make_bus


async def test_operations_of_a_bus_on_a_server_show_and_retry_its_dead_letters(
    shared_server: Server, namespace: str
) -> None:
    """Operators must see the bus on the server, not an empty bus in memory."""
    is_broken = True

    async def handle(event: Moved) -> None:
        if is_broken:
            raise ValueError("not yet")
        handled.append(event.number)

    handled: list[int] = []
    async with make_bus(shared_server, namespace, handle) as bus:
        operations = operations_of(bus)
        await bus.publish(Moved("k1", 1))
        await bus.drain(timeout=30)
        overview = await operations.overview()
        assert (overview.target.kind, overview.target.live) == (shared_server.url.partition(":")[0], True)
        assert (overview.health, [reason.code for reason in overview.reasons]) == ("degraded", ["parked"])
        (group,) = await operations.dead_letter_groups()
        is_broken = False
        assert (await operations.retry(group.newest_id)).count == 1
        await until(lambda: handled == [1])
        await bus.drain(timeout=30)
        assert await operations.dead_letter_groups() == []
