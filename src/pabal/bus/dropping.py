"""``backpressure="drop_oldest"``: choose the delivery to drop when the bus is full."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from pabal.delivery.consumer import Consumer
from pabal.delivery.engine import Engine
from pabal.delivery.lane import Item, Lane
from pabal.delivery.letters_in_memory import call_off
from pabal.ports.telemetry import EventDropped

_SHARE = 16
"""A search finds one in this many waiting deliveries, so that its cost is shared by as many drops."""


class _Candidate(NamedTuple):
    age: int
    consumer: Consumer
    lane: Lane | None
    """None if it waits for a retry, outside of its lane."""
    item: Item


class OldestDropper:
    """Drop the delivery that has waited longest, except those being handled."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._oldest: deque[_Candidate] = deque()
        """The oldest deliveries of the last search; some may have been handled since."""

    def drop(self) -> bool:
        """Drop a delivery and count it; False if there is none."""
        while self._oldest or self._search():
            _, consumer, lane, item = self._oldest.popleft()
            if lane is None:
                if consumer.delayed.get(item[0]) is not item:
                    continue
                del consumer.delayed[item[0]]
            elif lane.items and lane.items[0] is item:
                lane.items.popleft()
            else:
                continue
            self._count(consumer, item)
            return True
        return False

    def _search(self) -> bool:
        engine = self._engine
        limit = max(_SHARE, engine.pending // _SHARE)
        self._oldest.extend(heapq.nsmallest(limit, self._candidates(), key=lambda candidate: candidate.age))
        return bool(self._oldest)

    def _candidates(self) -> Iterator[_Candidate]:
        for consumer in self._engine.consumers.values():
            for lane in consumer.all_lanes():
                age = 0
                for item in lane.items:
                    age = max(age, item[0])  # it cannot be dropped before those ahead of it
                    yield _Candidate(age, consumer, lane, item)
            for item in consumer.delayed.values():
                yield _Candidate(item[0], consumer, None, item)

    def _count(self, consumer: Consumer, item: Item) -> None:
        position, event = item
        self._engine.pending -= 1
        consumer.figures.dropped += 1
        call_off(consumer, (position,))
        if consumer.followed:
            consumer.mark_attempted(position)
        self._engine.report(EventDropped(consumer.name, event.event_id, event.event_type))
