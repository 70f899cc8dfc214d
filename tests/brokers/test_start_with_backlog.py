"""``start()`` of a process that takes partitions with a backlog of unhandled events."""

from __future__ import annotations

from collections import Counter

import pytest

from pabal import RetryPolicy
from pabal.brokers.redis import RedisEventBus
from pabal.delivery.feed import Feed
from pabal.ports.storage import Page
from tests.brokers.events import Moved, Recorder, moves, until
from tests.brokers.server import Server
from tests.brokers.support import make_bus
from tests.loop_iterations import count_loop_iterations

ONCE = RetryPolicy(max_attempts=1)


@pytest.mark.parametrize("way", ["publish", "delayed", "from a thread"])
async def test_a_handler_can_publish_from_the_first_delivery_of_a_backlog(
    shared_server: Server, namespace: str, way: str
) -> None:
    """Promise 44. The whole backlog would be parked, because publishing failed: "the bus is starting"."""
    async with make_bus(shared_server, namespace, partitions=32) as publisher:
        await publisher.publish_batch(moves(64, 320))
    bus = make_bus(shared_server, namespace, partitions=32)
    handled: list[int] = []

    async def answer(event: Moved) -> None:
        if event.number < 320:
            await bus.publish(Moved(event.key, event.number + 320), delay=0.001 if way == "delayed" else None)
        handled.append(event.number)

    def answer_from_a_thread(event: Moved) -> None:
        if event.number < 320:
            bus.publish_threadsafe(Moved(event.key, event.number + 320)).result()
        handled.append(event.number)

    handler = answer_from_a_thread if way == "from a thread" else answer
    bus.subscribe(Moved, handler, name="answer", start="beginning", retry=ONCE)
    async with bus:
        await until(lambda: len(handled) >= 640 or bool(failures(bus)))
        assert failures(bus) == 0
        assert sorted(handled) == list(range(640))


async def test_a_loop_iteration_routes_one_partition_of_a_backlog(
    shared_server: Server, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each turn of the event loop would be as long as there are partitions, and a publish takes several."""
    async with make_bus(shared_server, namespace) as publisher:
        await publisher.publish_batch(moves(64, 8000))
    seen: Counter[int] = Counter()
    partitions: set[Feed] = set()
    route = Feed._route

    def counting_route(feed: Feed, after: int, page: Page) -> bool:
        seen[iterations.count] += 1
        partitions.add(feed)
        return route(feed, after, page)

    monkeypatch.setattr(Feed, "_route", counting_route)
    recorder = Recorder()
    bus = make_bus(shared_server, namespace)
    bus.subscribe(Moved, recorder, name="late", start="beginning")
    async with count_loop_iterations() as iterations, bus:
        await until(lambda: len(recorder.numbers) == 8000)
    assert len(partitions) == 8
    assert max(seen.values()) <= 2  # before and after the count of one turn


def failures(bus: RedisEventBus) -> int:
    """Return how many attempts of the subscription "answer" have failed."""
    return int(bus.get_statistics()["subscriptions"]["answer"]["failed_attempts"])
