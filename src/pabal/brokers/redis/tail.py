"""Receive entries as soon as they are appended to the followed partitions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from pabal.brokers.redis.link import Call, Link
from pabal.brokers.redis.pages import Pages
from pabal.delivery.shutdown import end_tasks
from pabal.errors import BrokerError, StorageClosedError

_BLOCK_MS = 2000
_ENTRIES = 16
_PAUSE = 0.1
_RETRY_DELAY = 0.01

HeadCallback = Callable[[int, int], None]


class Tail:
    """Wait for entries in all followed partitions with one blocking call, on a separate connection.

    When the set of followed partitions changes, the blocked call is ended from the other connection.
    """

    def __init__(
        self, url: str, link: Link, name_of: Callable[[int], str], on_head: HeadCallback, *, patience: float
    ) -> None:
        self._link = Link(url, patience=patience, on_connect=self._load_client_id, loads_scripts=False)
        self._unblock = link
        self._name_of = name_of
        self._on_head = on_head
        self._followed: dict[int, Pages] = {}
        self._client = 0
        self._waiting: asyncio.Future[Any] | None = None
        """The blocking call, unless it is already being ended."""
        self._changed: asyncio.Event | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Connect and begin to listen."""
        self._changed = asyncio.Event()
        await self._link.open()
        self._task = asyncio.create_task(self._run(), name="pabal-redis-tail")

    async def stop(self) -> None:
        """Stop listening and disconnect."""
        task, self._task = self._task, None
        await end_tasks(task)
        await self._link.close()

    def follow(self, partition: int, pages: Pages) -> None:
        """Listen to a partition, while its ``pages.follows`` is true."""
        self._followed[partition] = pages
        self.refresh()

    def unfollow(self, partition: int) -> None:
        """Stop listening to a partition."""
        self._followed.pop(partition, None)

    def refresh(self) -> None:
        """Determine again which partitions to listen to, ending the blocked call."""
        if self._changed is not None:
            self._changed.set()
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            self._end_call(waiting)

    def _end_call(self, waiting: asyncio.Future[Any]) -> None:
        """Make the server end a blocked call; try again if the call has not reached the server yet."""
        if waiting.done():
            return
        if not (self._unblock.is_connected and self._link.is_connected):
            self._end_call_later(waiting)
            return

        def answered(ended: asyncio.Future[Any]) -> None:
            if not _has_ended(ended):
                self._end_call_later(waiting)

        self._unblock.call("CLIENT", "UNBLOCK", self._client).add_done_callback(answered)

    def _end_call_later(self, waiting: asyncio.Future[Any]) -> None:
        asyncio.get_running_loop().call_later(_RETRY_DELAY, self._end_call, waiting)

    async def _load_client_id(self, call: Call) -> None:
        self._client = await call("CLIENT", "ID")

    async def _run(self) -> None:
        assert self._changed is not None
        while True:
            self._changed.clear()
            followed = {
                self._name_of(partition): (partition, pages)
                for partition, pages in self._followed.items()
                if pages.follows
            }
            if not followed:
                await self._changed.wait()
                continue
            places = [f"{pages.end + 1}-0" for _, pages in followed.values()]
            try:
                self._waiting = self._link.call(
                    "XREAD", "COUNT", _ENTRIES, "BLOCK", _BLOCK_MS, "STREAMS", *followed, *places
                )
                found = await self._waiting
            except StorageClosedError:
                return
            except BrokerError:
                await asyncio.sleep(_PAUSE)
                continue
            finally:
                self._waiting = None
            for name, entries in found or ():
                partition, pages = followed[name.decode()]
                if self._followed.get(partition) is pages:
                    last = int(entries[-1][0].split(b"-")[0])
                    pages.offer(entries)
                    self._on_head(partition, last)


def _has_ended(answer: asyncio.Future[Any]) -> bool:
    """Return whether the server has ended the blocked call, or has refused to."""
    return answer.cancelled() or answer.exception() is not None or bool(answer.result())
