"""An event for the tests, and a handler that records what it gets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ClassVar

from pabal import DomainEvent


class Moved(DomainEvent):
    event_type: ClassVar[str] = "test.redis.moved"
    aggregate_type: ClassVar[str] = "thing"
    key: str
    number: int

    @property
    def aggregate_id(self) -> str:
        return self.key


def moves(keys: int, count: int) -> list[Moved]:
    """Return ``count`` numbered events, spread over some keys in turn."""
    return [Moved(f"k{number % keys}", number) for number in range(count)]


class Recorder:
    """A handler that records the numbers of its events, in order and by key."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.by_key: dict[str, list[int]] = {}

    async def handle(self, event: Moved) -> None:
        self.numbers.append(event.number)
        self.by_key.setdefault(event.key, []).append(event.number)

    def distinct_numbers(self, key: str) -> list[int]:
        """Return the numbers of a key in the order in which each was first handled."""
        return list(dict.fromkeys(self.by_key.get(key, ())))


async def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    """Return when a condition holds; the deadline only limits a hang."""
    async with asyncio.timeout(seconds):
        while True:
            if condition():
                return
            await asyncio.sleep(0.01)
