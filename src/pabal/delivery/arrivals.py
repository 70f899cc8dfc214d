"""Deliveries that reached a subscription and have not been put into lanes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import length_hint
from typing import TYPE_CHECKING, Generic, TypeVar

from pabal.delivery.context import current_event
from pabal.delivery.lane import IDLE, RUNNING, Item, Lane
from pabal.domain.event import DomainEvent, kind_of

if TYPE_CHECKING:
    from pabal.delivery.consumer import Consumer
    from pabal.delivery.worker import Worker

T = TypeVar("T")


class Arrivals(ABC, Generic[T]):
    """Hold deliveries in publish order, not yet sorted into lanes.

    While no handler of the subscription has to wait for anything, each delivery ends before the next begins,
    so its key does not matter: a worker goes *straight* through the arrivals. If one does wait, the next
    worker sorts the remaining deliveries into lanes, so that other keys can go on.
    """

    __slots__ = ("consumer", "lane", "remaining", "size", "state", "waiting", "worker")

    def __init__(self, consumer: Consumer) -> None:
        self.consumer = consumer
        self.waiting: deque[T] = deque()
        self.state = IDLE
        """IDLE, or READY while queued in the engine for the workers, like a lane."""
        self.worker: Worker | None = None
        """The worker going straight through the deliveries; None once its current one has a lane."""
        self.remaining: Iterator[T] = iter(())
        """The deliveries that this worker has not made yet."""
        self.size = 0
        """How many deliveries are in the worker's slice, without those taken back; 0 between two slices."""
        self.lane: Lane | None = None
        """The lane of the event being handled, if it was needed."""

    def __len__(self) -> int:
        """Return how many deliveries wait, not counting the one being made."""
        return len(self.waiting) + length_hint(self.remaining)

    @property
    def finished(self) -> int:
        """Return how many deliveries of the slice have ended; ``Figures`` counts them when all have."""
        return max(0, self.size - length_hint(self.remaining) - 1)

    @abstractmethod
    def can_deliver_direct(self) -> bool:
        """Return whether all earlier deliveries have ended, so that order is kept without lanes."""

    @abstractmethod
    def use_lanes(self) -> None:
        """Prepare for a delivery that enters a lane without coming through here."""

    def begin_slice(self, worker: Worker, most: int) -> None:
        """Let a worker go straight through up to ``most`` deliveries."""
        slice_ = self._take(most)
        self.remaining = iter(slice_)
        self.size = len(slice_)
        self.worker = worker
        self.lane = None
        self.consumer.in_flight += 1
        if self.waiting or self.size > 1:
            # If the handler waits, another worker comes and sorts the remaining deliveries.
            self.consumer.engine.make_ready(self)

    def end_slice(self, *, failed: bool) -> None:
        """Count the deliveries of a slice that were made; the last one may have ``failed``."""
        consumer = self.consumer
        consumer.in_flight -= 1
        consumer.figures.timed += self.size
        consumer.figures.handled += self.size - failed
        self.size = 0
        self.worker = None

    def _take(self, most: int | None) -> list[T]:
        if most is None or most >= len(self.waiting):
            taken = list(self.waiting)
            self.waiting.clear()
            return taken
        take = self.waiting.popleft
        return [take() for _ in range(most)]

    def recall(self) -> None:
        """Take back the deliveries that the worker has not made; it stops after the one it is making."""
        self.size -= length_hint(self.remaining)
        self.waiting.extendleft(reversed(list(self.remaining)))
        if self.waiting and self.state == IDLE:
            self.consumer.engine.make_ready(self)

    def sort_into_lanes(self, most: int | None = None) -> None:
        """Put up to ``most`` deliveries (None: all) into lanes, behind the one being made."""
        if self.worker is not None:
            self.recall()
            self.lane = self._lane_in_progress(self.worker)
            self.worker = None
        if self.waiting:
            taken = self._take(most)
            self.consumer.engine.pending -= len(taken)
            self._sort(self._begin_sorting(taken))
            self._end_sorting()
            if self.waiting and self.state == IDLE:
                self.consumer.engine.make_ready(self)

    @abstractmethod
    def _begin_sorting(self, taken: list[T]) -> list[Item]:
        """Return the deliveries to sort, with their numbers."""

    def _sort(self, items: list[Item]) -> None:
        consumer, engine = self.consumer, self.consumer.engine
        tracker = consumer.tracker
        enter = engine.enter if tracker is None else engine.enter_lane
        for kind, run in groupby(items, lambda item: kind_of(item[1])):
            lanes = consumer.lanes_of(kind)
            for position, event in run:
                if tracker is not None and not consumer.is_open(tracker):
                    return  # it has halted; what is not finished is read again when it resumes
                if consumer.blocked or consumer.followed or lanes is None:
                    engine.accept(consumer, position, event)
                    continue
                try:
                    lane = consumer.lane_for(event, lanes)
                except Exception:
                    lanes = None  # ``accept`` meets the same error and parks the event or halts
                    engine.accept(consumer, position, event)
                else:
                    enter(consumer, lane, position, event)

    def _end_sorting(self) -> None:
        """Do what is to be done when they are in their lanes."""

    def _lane_in_progress(self, worker: Worker) -> Lane | None:
        """Return the lane of the event that a worker is handling, marked as running."""
        event = worker.context[current_event]
        assert isinstance(event, DomainEvent)
        try:
            lane = self.lane_of(event)
        except Exception:
            return None  # its ``aggregate_id`` raised: without a key there is no order to keep
        if not lane.shared:
            lane.state = RUNNING
        return lane

    def lane_of(self, event: DomainEvent) -> Lane:
        """Return the lane of an event. Raises whatever its ``aggregate_id`` raises."""
        return self.consumer.lane_for(event, self.consumer.lanes_of(type(event)))

    def drop(self) -> int:
        """Forget the waiting deliveries; return how many there were."""
        self.recall()
        dropped = len(self.waiting)
        self.waiting.clear()
        return dropped


class EventArrivals(Arrivals[DomainEvent]):
    """The arrivals on a bus without storage: bare events, which have no number yet."""

    __slots__ = ("add", "lanes_used")

    def __init__(self, consumer: Consumer) -> None:
        super().__init__(consumer)
        self.add = self.waiting.append
        """Called by publishing. It stays valid because the queue is never replaced by another."""
        self.lanes_used = False
        """Whether a lane may hold events."""

    def extend(self, events: Sequence[DomainEvent]) -> None:
        """Add events in publish order, and queue the arrivals for a worker if they are not queued yet."""
        engine = self.consumer.engine
        if self.state == IDLE:
            engine.make_ready(self)
        self.waiting += events
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

    def use_lanes(self) -> None:
        """Record that a lane may hold events."""
        self.lanes_used = True

    def _lane_in_progress(self, worker: Worker) -> Lane | None:
        self.lanes_used = True
        return super()._lane_in_progress(worker)

    def _begin_sorting(self, taken: list[DomainEvent]) -> list[Item]:
        engine = self.consumer.engine
        self.lanes_used = True
        first = engine.numbered + 1
        engine.numbered += len(taken)
        return list(enumerate(taken, first))


class LogArrivals(Arrivals[Item]):
    """The arrivals on a bus with storage: events with their positions.

    They are open while every new delivery of the subscription comes through here. Whatever else enters a lane
    closes them: what waits here is older, so it is sorted into the lanes first.
    """

    __slots__ = ("is_open",)

    def __init__(self, consumer: Consumer) -> None:
        super().__init__(consumer)
        self.is_open = False

    def open(self) -> bool:
        """Return whether deliveries enter here now; that begins when all earlier ones have ended."""
        if not self.is_open:
            self.is_open = not self.consumer.queued and self.can_deliver_direct()
        return self.is_open

    def enter(self, position: int, event: DomainEvent) -> None:
        """Add a delivery; the arrivals must be open."""
        engine = self.consumer.engine
        self.waiting.append((position, event))
        self.consumer.queued += 1
        engine.pending += 1
        if self.state == IDLE:
            engine.make_ready(self)

    def can_deliver_direct(self) -> bool:
        """Return whether all earlier deliveries have ended, so that order is kept without lanes."""
        consumer = self.consumer
        return (
            consumer.queued == len(self.waiting)  # nothing is in a lane
            and consumer.is_fast
            and not consumer.in_flight  # a delivery that outlives its opening is not among those queued
            and not consumer.failing  # one that failed before a restart may be read like a new one
            and not consumer.spilled
            and not consumer.blocked
            and not consumer.engine.quarantine.active
            and not callable(consumer.subscription.ordering)
        )

    def use_lanes(self) -> None:
        """Sort what waits here into lanes, and let later deliveries enter lanes, until all have ended."""
        if self.is_open:
            self.sort_into_lanes()
            self.is_open = False

    def _begin_sorting(self, taken: list[Item]) -> list[Item]:
        self.is_open = False
        self.consumer.queued -= len(taken)
        return taken

    def _end_sorting(self) -> None:
        consumer, feed = self.consumer, self.consumer.engine.feed
        self.is_open = bool(self.waiting)
        consumer.crowded = None  # there are lanes now whose tails can be spilled, to read on for other keys
        if feed is not None and not consumer.live:
            feed.look()

    def drop(self) -> int:
        """Forget the waiting deliveries; return how many there were."""
        self.is_open = False
        return super().drop()


def new_arrivals(consumer: Consumer) -> EventArrivals | LogArrivals:
    """Return arrivals of the kind that a subscription of a running engine needs."""
    return EventArrivals(consumer) if consumer.engine.feed is None else LogArrivals(consumer)
