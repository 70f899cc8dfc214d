"""A worked solution of the exercise on a distributed bus."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from dataclasses import asdict
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from examples.small_bus.step1_interface import Event, Handler

STREAM = "events"
_WAIT_MS = 100
"""How long a read waits for new entries before entries left by other processes are claimed again."""


class RedisBus:
    """Carry events over a Redis stream to the processes of a group.

    Each event goes to every group, and to one process in it. It is acknowledged after its handlers, so if
    that process dies, another takes the event over after ``claim_after`` seconds.
    """

    def __init__(
        self, url: str, group: str, consumer: str, event_types: list[type[Event]], claim_after: float = 5.0
    ) -> None:
        self._redis = Redis.from_url(url, decode_responses=True)
        self._group = group
        self._consumer = consumer
        self._types = {event_type.__name__: event_type for event_type in event_types}
        self._claim_after = claim_after
        self._handlers: defaultdict[type[Event], list[Handler]] = defaultdict(list)
        self._task: asyncio.Task[None] | None = None
        self._stopping = False

    def subscribe(self, event_type: type[Event], handler: Handler, name: str) -> None:
        """See ``EventBus`` of step 1."""
        self._handlers[event_type].append(handler)

    async def start(self) -> None:
        """Start delivering; a new group begins at the start of the stream."""
        try:
            await self._redis.xgroup_create(STREAM, self._group, id="0", mkstream=True)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):  # the group exists: another process created it first
                raise
        self._task = asyncio.create_task(self._work())

    async def stop(self) -> None:
        """Stop delivering. Unfinished events stay with the group."""
        self._stopping = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._redis.aclose()

    async def publish(self, event: Event) -> None:
        """Add an event to the stream; return once the server has it."""
        await self._redis.xadd(STREAM, {"type": type(event).__name__, "payload": json.dumps(asdict(event))})

    async def _work(self) -> None:
        # A cancellation during a read may end only that read, so check a flag as well.
        while not self._stopping:
            for entry_id, fields in await self._left_behind() or await self._new():
                await self._handle(entry_id, fields)

    async def _left_behind(self) -> list[Any]:
        """Claim entries that were received long ago but never acknowledged: their process died, or failed."""
        idle = int(self._claim_after * 1000)
        reply: Any = await self._redis.xautoclaim(STREAM, self._group, self._consumer, idle, count=100)
        return list(reply[1])

    async def _new(self) -> list[Any]:
        reply: Any = await self._redis.xreadgroup(
            self._group, self._consumer, {STREAM: ">"}, count=100, block=_WAIT_MS
        )
        return list(reply[0][1]) if reply else []

    async def _handle(self, entry_id: str, fields: dict[str, str]) -> None:
        event = self._types[fields["type"]](**json.loads(fields["payload"]))
        try:
            for handler in self._handlers[type(event)]:
                await handler(event)
        except Exception as error:  # not acknowledged, so it is claimed again after ``claim_after``
            print(f"{entry_id} failed with {error!r} and will be tried again")
        else:
            await self._redis.xack(STREAM, self._group, entry_id)
