"""Events and small helpers shared by the tests of storages."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, ClassVar

from pabal import DomainEvent


class Tick(DomainEvent):
    event_type: ClassVar[str] = "storage-test.tick"
    aggregate_type: ClassVar[str] = "symbol"
    symbol: str
    number: int = 0
    text: str = ""

    @property
    def aggregate_id(self) -> str:
        return self.symbol


class Note(DomainEvent):
    event_type: ClassVar[str] = "storage-test.note"
    text: str = ""


def ticks(count: int, symbol: str = "KRW-BTC", first: int = 1) -> list[Tick]:
    return [Tick(symbol, number) for number in range(first, first + count)]


class Recorder:
    """A handler that records its events, and that a test can wait for."""

    def __init__(self, before: Callable[[Any], Any] | None = None) -> None:
        self.seen: list[Any] = []
        self._before = before
        self._changed = asyncio.Condition()

    async def handle(self, event: Any) -> None:
        if self._before is not None:
            self._before(event)
        self.seen.append(event)
        async with self._changed:
            self._changed.notify_all()

    async def reaches(self, count: int) -> None:
        async with asyncio.timeout(20), self._changed:
            await self._changed.wait_for(lambda: len(self.seen) >= count)

    @property
    def numbers(self) -> list[int]:
        return [event.number for event in self.seen]
