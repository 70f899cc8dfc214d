"""Spread work over several turns of the event loop that would block it for too long in one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, TypeVar

from pabal.domain.envelope import EventRecord, StoredRecord, decode_event
from pabal.domain.event import DomainEvent, body_of

T = TypeVar("T")
AT_ONCE = 256
"""Rows decoded, or events encoded, in one turn: about a millisecond."""


async def iter_slices(rows: Sequence[T], most: int = AT_ONCE) -> AsyncIterator[Sequence[T]]:
    """Yield slices of at most ``most`` rows, and let the event loop run between them."""
    for first in range(0, len(rows), most):
        if first:
            await asyncio.sleep(0)
        yield rows[first : first + most]


async def decode_all(rows: Sequence[StoredRecord]) -> list[Any]:
    """Return the events of rows, in order. Raises DecodeError."""
    return [body_of(decode_event(row)) async for part in iter_slices(rows) for row in part]


async def encode_all(
    events: Sequence[DomainEvent], encode: Callable[[DomainEvent], EventRecord]
) -> list[EventRecord]:
    """Return the records of events, in order. Raises InvalidEventError."""
    if len(events) <= AT_ONCE:
        return [encode(event) for event in events]
    return [encode(event) async for part in iter_slices(events) for event in part]
