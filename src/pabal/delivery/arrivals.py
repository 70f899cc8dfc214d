"""What has reached a subscription of a bus without storage and was not looked at yet."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import length_hint
from typing import TYPE_CHECKING

from pabal.delivery.context import current_event
from pabal.delivery.lane import IDLE, RUNNING, Lane
from pabal.domain.event import DomainEvent, kind_of

if TYPE_CHECKING:
    from pabal.delivery.consumer import Consumer
    from pabal.delivery.worker import Worker


class Arrivals:
    """Hold events in publish order, neither numbered nor sorted into lanes.

    As long as no handler of the subscription has to wait for anything, one delivery is over before the next
    begins, and nobody needs to know its key: a worker goes *straight* through what arrived. Should a handler
    wait, the next worker sorts what is left into lanes, where other keys can go on.
    """

    __slots__ = ("_astray", "add", "consumer", "events", "lane", "left", "size", "state", "worker")

    def __init__(self, consumer: Consumer) -> None:
        self.consumer = consumer
        self.events: deque[DomainEvent] = deque()
        self.add = self.events.append
        """What publishing calls; the queue stays the same one."""
        self.state = IDLE
        """IDLE, or READY: in the engine's queue for the workers, like a lane."""
        self.worker: Worker | None = None
        """Who is on its way straight through, unless what it handles has been given its lane."""
        self.left: Iterator[DomainEvent] = iter(())
        """What that worker has still before it."""
        self.size = 0
        """How many deliveries its slice has, after what was taken back."""
        self.lane: Lane | None = None
        """The lane of what it handles, where somebody needed to know."""
        self._astray = False
        """Something may be in a lane."""

    def __len__(self) -> int:
        """Return how many events wait, without the one being handled."""
        return len(self.events) + length_hint(self.left)

    def extend(self, events: Sequence[DomainEvent]) -> None:
        """Add events in publish order, and see that somebody looks at them."""
        engine = self.consumer.engine
        if self.state == IDLE:
            engine.make_ready(self)
        self.events += events
        engine.pending += len(events)

    def may_go_straight(self) -> bool:
        """Tell whether everything that came before is over, so that order needs no lanes."""
        consumer = self.consumer
        if not consumer.plain or consumer.in_flight or consumer.failing or consumer.blocked:
            return False
        if callable(consumer.subscription.ordering):
            return False  # a user's function that raises must do so whether a handler waits or not
        if self._astray and any(lane.state != IDLE for lane in consumer.all_lanes()):
            return False
        self._astray = False
        return True

    def begin(self, worker: Worker, most: int) -> None:
        """Let a worker go straight through up to ``most`` events."""
        events = self._take(most)
        self.left = iter(events)
        self.size = len(events)
        self.worker = worker
        self.lane = None
        if self.events or self.size > 1:
            # So that somebody is there to sort the rest, should a handler wait.
            self.consumer.engine.make_ready(self)

    def _take(self, most: int | None) -> list[DomainEvent]:
        if most is None or most >= len(self.events):
            events = list(self.events)
            self.events.clear()
            return events
        take = self.events.popleft
        return [take() for _ in range(most)]

    def recall(self) -> None:
        """Take back what the worker has still before it; it ends with what it is handling."""
        self.size -= length_hint(self.left)
        self.events.extendleft(reversed(list(self.left)))
        if self.events and self.state == IDLE:
            self.consumer.engine.make_ready(self)

    def sort(self, most: int | None = None) -> None:
        """Put up to ``most`` events into lanes, all if None, behind what is being handled."""
        consumer, engine = self.consumer, self.consumer.engine
        if self.worker is not None:
            self.recall()
            self.lane = self._occupied_by(self.worker)
            self.worker = None
        if not self.events:
            return
        self._astray = True
        events = self._take(most)
        engine.pending -= len(events)
        for kind, run in groupby(events, kind_of):
            lanes = consumer.lanes_of(kind)
            for event in run:
                engine.numbered += 1
                if consumer.blocked or consumer.followed or lanes is None:
                    engine.accept(consumer, engine.numbered, event)
                    continue
                try:
                    lane = consumer.lane_for(event, lanes)
                except Exception:
                    lanes = None  # ``accept`` meets it again, and may halt the subscription
                    engine.accept(consumer, engine.numbered, event)
                else:
                    engine.enter(consumer, lane, engine.numbered, event)
        if self.events and self.state == IDLE:
            engine.make_ready(self)

    def _occupied_by(self, worker: Worker) -> Lane | None:
        """Return the lane of what a worker is handling, marked as taken."""
        event = worker.context[current_event]
        assert isinstance(event, DomainEvent)
        try:
            lane = self.lane_of(event)
        except Exception:
            return None  # its ``aggregate_id`` raised: without a key there is nothing to keep in order
        if not lane.shared:
            self._astray = True
            lane.state = RUNNING
        return lane

    def lane_of(self, event: DomainEvent) -> Lane:
        """Return the lane an event belongs to. May raise what its ``aggregate_id`` raises."""
        return self.consumer.lane_for(event, self.consumer.lanes_of(type(event)))

    def drop(self) -> int:
        """Forget what waits; return how much that was."""
        self.recall()
        dropped = len(self.events)
        self.events.clear()
        return dropped
