"""Route what this process commits, a large commit in slices between which the event loop runs."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from pabal.delivery.buffers import BUFFER_LIVE
from pabal.ports.storage import Committed

_SLICE = 1024
_SLICE_LEAST = 64
"""Deliveries routed in one turn of the event loop, about a millisecond; but at least this many events."""


class Commits:
    """Hold the commits of this process until they are routed, in order."""

    def __init__(
        self,
        route: Callable[[Committed], None],
        skip_to: Callable[[int], None],
        count_consumers: Callable[[], int],
    ) -> None:
        self._route = route
        self._skip_to = skip_to
        self._count_consumers = count_consumers
        self._queue: deque[Committed] = deque()
        self._begun = 0
        """How many events of the first commit have been routed."""
        self.left = 0
        """How many events have not been routed."""
        self._next: asyncio.Handle | None = None
        """The next slice, if the event loop is to run before it."""

    @property
    def is_empty(self) -> bool:
        """Return whether everything is routed."""
        return not self._queue

    def add(self, batch: Committed) -> None:
        """Route a commit, at once if it is small and no other waits."""
        self._queue.append(batch)
        self.left += len(batch.events)
        if self._next is None:
            self._route_some()
        elif self.left > BUFFER_LIVE:
            # Commits come faster than they are routed. Read from the log later, they take no memory now.
            self.clear()
            self._skip_to(batch.first + len(batch.events) - 1)

    def clear(self) -> None:
        """Forget all commits."""
        self._queue.clear()
        self._begun = self.left = 0
        if self._next is not None:
            self._next.cancel()
            self._next = None

    def _route_some(self) -> None:
        """Route up to the first slice of a commit that has more than one."""
        self._next = None
        most = max(_SLICE_LEAST, _SLICE // (self._count_consumers() or 1))
        try:
            while self._queue and self._route_slice(self._queue[0], self._begun, most):
                continue
        finally:
            if self._queue:
                self._next = asyncio.get_running_loop().call_soon(self._route_some)

    def _route_slice(self, batch: Committed, begin: int, most: int) -> bool:
        """Route a slice; return whether it was the last one of its commit."""
        events = batch.events[begin : begin + most]
        self._begun = begin + len(events)
        self.left -= len(events)
        is_last = self._begun == len(batch.events)
        if is_last:
            self._queue.popleft()
            self._begun = 0
        self._route(Committed(batch.first + begin, events))
        return is_last
