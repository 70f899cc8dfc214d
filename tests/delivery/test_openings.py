"""Subscriptions that are being opened while the bus stops."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import ClassVar

from pabal import DomainEvent, InMemoryEventBus, InMemoryEventStorage
from pabal.ports.storage import Cursor, Start
from pabal.testing import VirtualClock


class Knocked(DomainEvent):
    event_type: ClassVar[str] = "openings-test.knocked"


class AnswersLater(InMemoryEventStorage):
    """Takes a subscription at the call, and says so when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.answers: list[tuple[asyncio.Future[Cursor | None], Cursor | None]] = []
        self.later = False

    def open_subscription(self, name: str, start: Start) -> Awaitable[Cursor | None]:
        if not self.later:
            return super().open_subscription(name, start)
        answer: asyncio.Future[Cursor | None] = asyncio.get_running_loop().create_future()
        self.answers.append((answer, self._subscriptions.take(name, start)))
        return answer

    def answer(self) -> None:
        for future, cursor in self.answers:
            future.set_result(cursor)


async def test_a_subscription_given_in_the_moment_of_the_stop_is_given_back() -> None:
    """Nobody would have it, and nobody could take it, for as long as the storage lives."""
    storage, clock = AnswersLater(), VirtualClock()
    bus = InMemoryEventBus(storage, worker_count=1, clock=clock)
    entered, leave = asyncio.Event(), asyncio.Event()

    async def handle(event: Knocked) -> None:
        entered.set()
        await leave.wait()

    async def handle_late(event: Knocked) -> None: ...

    bus.subscribe(Knocked, handle, name="early")
    await bus.start()
    await bus.publish(Knocked())
    await entered.wait()
    storage.later = True
    bus.subscribe(Knocked, handle_late, name="late")
    stopping = asyncio.create_task(bus.stop())
    await clock.settle()
    # The answer comes in the same turn of the loop in which the bus cancels what still waits for one.
    bus._engine.workers[0].task.add_done_callback(lambda _: storage.answer())
    leave.set()
    await stopping
    storage.later = False
    assert storage.answers[0][1] is not None
    assert await storage.open_subscription("late", "now") is not None
