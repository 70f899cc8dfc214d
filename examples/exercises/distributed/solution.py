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
"""How long a read waits for something new before it looks again for what others left behind."""


class RedisBus:
    """Carry events over a stream of Redis to the processes of a group.

    Each event goes to one process of a group, and to every group. It is acknowledged after its handlers, so
    what a dead process was working on is taken over by another after ``claim_after`` seconds.
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
        """Begin to deliver, from the beginning of the stream if the group is new."""
        try:
            await self._redis.xgroup_create(STREAM, self._group, id="0", mkstream=True)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):  # that one says only that another process was first
                raise
        self._task = asyncio.create_task(self._work())

    async def stop(self) -> None:
        """Stop delivering. What is unfinished stays with the group."""
        self._stopping = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._redis.aclose()

    async def publish(self, event: Event) -> None:
        """Return when the server has the event."""
        await self._redis.xadd(STREAM, {"type": type(event).__name__, "payload": json.dumps(asdict(event))})

    async def _work(self) -> None:
        # A cancellation that arrives while the client reads may end no more than the read.
        while not self._stopping:
            for entry_id, fields in await self._left_behind() or await self._new():
                await self._handle(entry_id, fields)

    async def _left_behind(self) -> list[Any]:
        """Take over what somebody received long ago and has not acknowledged: he is dead, or failed."""
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
        except Exception as error:  # not acknowledged, so it comes again once it has been idle long enough
            print(f"{entry_id} failed with {error!r} and will be tried again")
        else:
            await self._redis.xack(STREAM, self._group, entry_id)
