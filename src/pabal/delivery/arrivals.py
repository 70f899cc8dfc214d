"""Events that reached a subscription of a bus without storage and have not been put into lanes yet."""

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
    """Hold events in publish order, without numbers and not yet sorted into lanes.

    While no handler of the subscription has to wait for anything, each delivery ends before the next begins,
    so its key does not matter: a worker goes *straight* through the arrivals. If one does wait, the next
    worker sorts the remaining events into lanes, so that other keys can go on.
    """

    __slots__ = ("add", "consumer", "events", "lane", "lanes_used", "remaining", "size", "state", "worker")

    def __init__(self, consumer: Consumer) -> None:
        self.consumer = consumer
        self.events: deque[DomainEvent] = deque()
        self.add = self.events.append
        """Called by publishing. It stays valid because the queue is never replaced by another."""
        self.state = IDLE
        """IDLE, or READY while queued in the engine for the workers, like a lane."""
        self.worker: Worker | None = None
        """The worker going straight through the events; None once its current event has a lane."""
        self.remaining: Iterator[DomainEvent] = iter(())
        """The events that this worker has not handled yet."""
        self.size = 0
        """How many deliveries are in the worker's slice, without those taken back."""
        self.lane: Lane | None = None
        """The lane of the event being handled, if it was needed."""
        self.lanes_used = False
        """Whether a lane may hold events."""

    def __len__(self) -> int:
        """Return how many events wait, not counting the one being handled."""
        return len(self.events) + length_hint(self.remaining)

    def extend(self, events: Sequence[DomainEvent]) -> None:
        """Add events in publish order, and queue the arrivals for a worker if they are not queued yet."""
        engine = self.consumer.engine
        if self.state == IDLE:
            engine.make_ready(self)
        self.events += events
        engine.pending += len(events)

    def can_deliver_direct(self) -> bool:
        """Return whether all earlier deliveries have ended, so that order is kept without lanes."""
        consumer = self.consumer
        if not consumer.is_fast or consumer.in_flight or consumer.failing or consumer.blocked:
            return False
        if callable(consumer.subscription.ordering):
            return False  # an ordering function that raises must do so whether or not a handler waits
        if self.lanes_used and any(lane.state != IDLE for lane in consumer.all_lanes()):
            return False
        self.lanes_used = False
        return True

    def begin_slice(self, worker: Worker, most: int) -> None:
        """Let a worker go straight through up to ``most`` events."""
        events = self._take(most)
        self.remaining = iter(events)
        self.size = len(events)
        self.worker = worker
        self.lane = None
        if self.events or self.size > 1:
            # If the handler waits, another worker comes and sorts the remaining events.
            self.consumer.engine.make_ready(self)

    def _take(self, most: int | None) -> list[DomainEvent]:
        if most is None or most >= len(self.events):
            events = list(self.events)
            self.events.clear()
            return events
        take = self.events.popleft
        return [take() for _ in range(most)]

    def recall(self) -> None:
        """Take back the events that the worker has not handled; it stops after the one it is handling."""
        self.size -= length_hint(self.remaining)
        self.events.extendleft(reversed(list(self.remaining)))
        if self.events and self.state == IDLE:
            self.consumer.engine.make_ready(self)

    def sort_into_lanes(self, most: int | None = None) -> None:
        """Put up to ``most`` events (None: all) into lanes, behind the one being handled."""
        consumer, engine = self.consumer, self.consumer.engine
        if self.worker is not None:
            self.recall()
            self.lane = self._lane_in_progress(self.worker)
            self.worker = None
        if not self.events:
            return
        self.lanes_used = True
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
                    lanes = None  # ``accept`` meets the same error and parks the event or halts
                    engine.accept(consumer, engine.numbered, event)
                else:
                    engine.enter(consumer, lane, engine.numbered, event)
        if self.events and self.state == IDLE:
            engine.make_ready(self)

    def _lane_in_progress(self, worker: Worker) -> Lane | None:
        """Return the lane of the event that a worker is handling, marked as running."""
        event = worker.context[current_event]
        assert isinstance(event, DomainEvent)
        try:
            lane = self.lane_of(event)
        except Exception:
            return None  # its ``aggregate_id`` raised: without a key there is no order to keep
        if not lane.shared:
            self.lanes_used = True
            lane.state = RUNNING
        return lane

    def lane_of(self, event: DomainEvent) -> Lane:
        """Return the lane of an event. Raises whatever its ``aggregate_id`` raises."""
        return self.consumer.lane_for(event, self.consumer.lanes_of(type(event)))

    def drop(self) -> int:
        """Forget the waiting events; return how many there were."""
        self.recall()
        dropped = len(self.events)
        self.events.clear()
        return dropped
