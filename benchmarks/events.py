"""The event of the benchmarks: an order with six fields."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from decimal import Decimal
from itertools import count
from typing import Any, ClassVar

from pabal import DomainEvent


class OrderPlaced(DomainEvent):
    event_type: ClassVar[str] = "benchmark.order_placed"
    aggregate_type: ClassVar[str] = "order"
    order_id: str
    symbol: str
    side: str
    quantity: Decimal
    price: Decimal
    sequence: int

    @property
    def aggregate_id(self) -> str:
        return self.order_id


def fields_of(sequence: int, keys: int) -> tuple[str, str, str, Decimal, Decimal, int]:
    """Return the six fields of the n-th event; its aggregate is one of ``keys``, in a scattered order."""
    return (
        f"order-{_scattered(sequence) % keys:06d}",
        "KRW-BTC",
        "buy" if sequence % 2 else "sell",
        Decimal("0.5"),
        Decimal("93120500.25"),
        sequence,
    )


def _scattered(number: int) -> int:
    """Mix a number's bits (the finaliser of MurmurHash3), to scatter aggregates as in real use."""
    number = ((number ^ (number >> 16)) * 0x85EBCA6B) & 0xFFFFFFFF
    number = ((number ^ (number >> 13)) * 0xC2B2AE35) & 0xFFFFFFFF
    return number ^ (number >> 16)


def make_events(number: int, keys: int, *, first: int = 0) -> list[OrderPlaced]:
    """Return events created beforehand, so that creating them is not measured."""
    return [OrderPlaced(*fields_of(sequence, keys)) for sequence in range(first, first + number)]


_numbers = count(1)
Handler = Callable[[Any], Awaitable[None]]


def counting_handler() -> tuple[Handler, Callable[[], int]]:
    """Return an async handler that counts its calls, and a function that returns the count."""
    seen = 0

    async def handle(event: Any) -> None:
        nonlocal seen
        seen += 1

    handle.__name__ = f"handle_{next(_numbers)}"  # some buses distinguish handlers by name
    return handle, lambda: seen


def counting_function() -> tuple[Callable[[Any], None], Callable[[], int]]:
    """Return the same with a plain function, for rivals that do not call coroutines."""
    seen = 0

    def handle(event: Any) -> None:
        nonlocal seen
        seen += 1

    return handle, lambda: seen
