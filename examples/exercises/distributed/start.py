"""The starting point: a bus that writes to a stream but never reads. Copy this file and complete it."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import asdict

from redis.asyncio import Redis

from examples.small_bus.step1_interface import Event, Handler

STREAM = "events"


class RedisBus:
    """Carry events over a Redis stream to the processes of a group."""

    def __init__(
        self, url: str, group: str, consumer: str, event_types: list[type[Event]], claim_after: float = 5.0
    ) -> None:
        self._redis = Redis.from_url(url, decode_responses=True)
        self._group = group
        self._consumer = consumer
        self._types = {event_type.__name__: event_type for event_type in event_types}
        self._claim_after = claim_after
        self._handlers: defaultdict[type[Event], list[Handler]] = defaultdict(list)

    def subscribe(self, event_type: type[Event], handler: Handler, name: str) -> None:
        """See ``EventBus`` of step 1."""
        self._handlers[event_type].append(handler)

    async def start(self) -> None:
        """Start delivering."""

    async def stop(self) -> None:
        """Stop delivering. Unfinished events stay with the group."""
        await self._redis.aclose()

    async def publish(self, event: Event) -> None:
        """Add an event to the stream; return once the server has it."""
        await self._redis.xadd(STREAM, {"type": type(event).__name__, "payload": json.dumps(asdict(event))})
