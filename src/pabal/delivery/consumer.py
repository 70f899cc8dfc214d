"""A subscription at work: its lanes, watermark, failed deliveries and figures."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from pabal.delivery.arrivals import new_arrivals
from pabal.delivery.bookkeeping import Block, Failing, Figures, Origin, Unsaved
from pabal.delivery.buffers import BUFFER_LOW
from pabal.delivery.context import Call, DeliveryContext
from pabal.delivery.lane import GATED, IDLE, READY, RUNNING, WAITING, Item, Lane
from pabal.delivery.letters_in_memory import call_off_waiting
from pabal.delivery.replaying import ReplayRun
from pabal.delivery.subscription import BY_AGGREGATE, UNORDERED, Subscription, raise_as_failure
from pabal.delivery.watermark import WatermarkTracker
from pabal.domain.event import DomainEvent, body_of, kind_of
from pabal.domain.registry import registry
from pabal.ports.storage import AttemptJournal

if TYPE_CHECKING:
    from pabal.delivery.engine import Engine

BATCH_KEY = ("batch",)
_PRUNE_ABOVE = 4096

STARTING = "starting"
ACTIVE = "active"
STANDBY = "standby"
HALTED = "halted"
PAUSED = "paused"
CLOSED = "closed"


class Consumer:
    """Hold the deliveries of one subscription and keep track of each until it is finished."""

    __slots__ = (
        "_by_key",
        "_lanes",
        "_prune_at",
        "_wants",
        "arrivals",
        "blocked",
        "call",
        "calls_directly",
        "copies_events",
        "crowded",
        "delayed",
        "engine",
        "epoch",
        "failing",
        "figures",
        "followed",
        "handler",
        "held_lanes",
        "in_flight",
        "is_fast",
        "is_loaded",
        "journal",
        "live",
        "moves",
        "number",
        "predecessors",
        "queued",
        "reason",
        "redelivering",
        "reopenings",
        "replay",
        "replays",
        "saved",
        "shared",
        "slice",
        "solo_lanes",
        "spilled",
        "state",
        "subscription",
        "tracker",
        "unattempted",
        "unsaved",
    )

    def __init__(self, subscription: Subscription, engine: Engine, call: Call) -> None:
        self.subscription = subscription
        self.engine = engine
        self.call = call
        self.handler: Callable[[Any], Awaitable[Any]] = subscription.handler.function
        self.calls_directly = False
        """The handler takes only the event, and there is no middleware."""
        self.is_fast = False
        """Nothing has to be done around the handler, so workers take the fast path."""
        self.copies_events = False
        """Some of its events have fields that a handler could change, so each attempt gets its own copy."""
        self.arrivals = new_arrivals(self)
        self.shared = Lane(self, UNORDERED, shared=True)
        self.delayed: dict[int, Item] = {}
        """Failed deliveries without a key that wait, outside of their lane, for the next attempt."""
        self.solo_lanes: set[Lane] = set()
        """Lanes of one delivery each, without a key, that wait for a lower priority number."""
        self._lanes: dict[str | None, dict[Any, Lane]] = {}
        self._by_key: dict[Any, Lane] = {}
        self._prune_at = _PRUNE_ABOVE
        self._wants: dict[type, bool] = {}
        self.failing: dict[int, Failing] = {}
        self.blocked: dict[str, Block] = {}
        """Keys parked behind a dead letter."""
        self.figures = Figures()
        self.in_flight = 0
        self.slice = 1  # grows while handlers are quick; a slow one must not hold up the loop once per worker
        self.state = STARTING
        self.reason = ""
        # The following is used with a log, or for priorities.
        self.tracker: WatermarkTracker | None = None
        self.journal: AttemptJournal | None = None
        self.number = self.epoch = self.reopenings = 0
        self.is_loaded = False
        """The deliveries its cursor left unfinished are in their lanes again, so later events may follow."""
        self.live = self.moves = False
        """``live``: takes events as they are committed; if not, the feed reads them from the log. ``moves``:
        its cursor is being moved in the storage, or has been, and a save would put it back."""
        self.queued = self.spilled = 0
        self.crowded: tuple[int, ...] | None = None  # what it held when no room could be made
        self.saved = 0
        """The position up to which the last save saw the log."""
        self.unsaved = Unsaved()
        self.redelivering: dict[int, Origin] = {}
        """Positions under way that are below the watermark: dead letters, and events queued behind them."""
        self.replay: ReplayRun | None = None
        """The range of the log that is being replayed now."""
        self.replays: frozenset[int] = frozenset()
        """The ids of the replays that were known when it was opened."""
        self.predecessors: tuple[Consumer, ...] = ()
        self.followed = False
        self.unattempted: set[int] = set()
        self.held_lanes: dict[int, list[Lane]] = {}

    @property
    def is_opening(self) -> bool:
        """Return whether the subscription is being opened, or its unfinished deliveries are being loaded."""
        loading = self.state == ACTIVE and self.tracker is not None and not self.is_loaded
        return loading or self.state == STARTING

    def is_open(self, tracker: WatermarkTracker | None) -> bool:
        """Return whether the subscription is active and was not reopened since it had this tracker."""
        return self.state == ACTIVE and self.tracker is tracker

    def rewire(self, call: Call, *, with_middleware: bool) -> None:
        """Replace the call around the handler, and work out again whether workers can take the fast path."""
        subscription = self.subscription
        self.call = call
        self.calls_directly = subscription.handler.direct is not None and not with_middleware
        was_fast = self.is_fast
        self.is_fast = (
            self.calls_directly
            and not self.copies_events
            and subscription.timeout is None
            and subscription.where is None
            and subscription.batch is None
            and subscription.matcher.only_domain_events
            and not self.predecessors
            and not self.followed
        )
        if was_fast and not self.is_fast:
            self.end_slices()

    # -- routing --------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """Return the subscription's durable name."""
        return self.subscription.name

    def wants(self, kind: type) -> bool:
        """Return whether events of this class are for this subscription."""
        wanted = self._wants.get(kind)
        if wanted is None:
            wanted = self._wants[kind] = self.subscription.matcher.matches_class(kind)
            if wanted and registry.schema_of(kind).mutable and not self.copies_events:
                self._start_copying()
        return wanted

    def _start_copying(self) -> None:
        self.copies_events = True
        if self.is_fast:
            self.is_fast = False
            self.end_slices()

    def end_slices(self) -> None:
        """End every worker's slice after its current delivery; the other deliveries stay in their lanes."""
        self.arrivals.recall()
        for lane in self.all_lanes():
            lane.items, slice_under_way = deque(lane.items), lane.items
            slice_under_way.clear()

    def lanes_of(self, kind: type) -> dict[Any, Lane] | None:
        """Return the lanes by aggregate id for this class, or None if keys are computed otherwise."""
        subscription = self.subscription
        if subscription.batch is not None or subscription.ordering != BY_AGGREGATE:
            return None
        return self._lanes.setdefault(registry.schema_of(kind).aggregate_type, {})

    def lane_for(self, event: DomainEvent, lanes: dict[Any, Lane] | None) -> Lane:
        """Return or make the lane of an event. Raises what ``aggregate_id`` or ``ordering`` raises."""
        key: Any
        if lanes is not None:
            try:
                key = event.aggregate_id
            except BaseException as error:
                raise_as_failure("aggregate_id", error)
            if key is None:
                return self.shared
        elif self.subscription.is_one_lane:
            return self.lane_of()
        else:
            lanes = self._by_key
            key = self.subscription.key_of(body_of(event))
            if key is UNORDERED:
                if self.subscription.batch is None:
                    return self.shared
                key = BATCH_KEY
        lane = lanes.get(key)
        if lane is None:
            if len(lanes) >= self._prune_at:
                self._prune(lanes)
            lane = lanes[key] = Lane(self, key if lanes is self._by_key else (event.aggregate_type, key))
        return lane

    def lane_of(self, key: Any = BATCH_KEY) -> Lane:
        """Return the lane of a key; without one, the only lane of a subscription that ``is_one_lane``."""
        return self._by_key.get(key) or self._by_key.setdefault(key, Lane(self, key))

    def _prune(self, lanes: dict[Any, Lane]) -> None:
        """Drop empty lanes, so that a stream of new keys does not fill the memory."""
        for key in [key for key, lane in lanes.items() if lane.state == IDLE and not lane.items]:
            del lanes[key]
        self._prune_at = max(_PRUNE_ABOVE, 2 * len(lanes))

    def all_lanes(self) -> list[Lane]:
        """Return all lanes that exist now."""
        groups = [*self._lanes.values(), self._by_key]
        return [self.shared, *self.solo_lanes, *(lane for group in groups for lane in group.values())]

    def queue_length(self) -> int:
        """Return how many deliveries wait in lanes."""
        return len(self.arrivals) + sum(len(lane.items) for lane in self.all_lanes())

    def held_by_retries(self) -> int:
        """Return how many deliveries wait for a retry: their own, or one ahead of them in their lane."""
        waiting = (len(lane.items) for lane in self.all_lanes() if lane.state in (WAITING, GATED))
        return len(self.delayed) + sum(waiting)

    def drop_lanes(self) -> int:
        """Empty all lanes and return how many deliveries they held; running handlers are not touched."""
        dropped = self.arrivals.drop()
        call_off_waiting(self)
        for lane in self.all_lanes():
            dropped += len(lane.items)
            lane.items.clear()
            lane.spilled = None
            if lane.state not in (READY, RUNNING):
                lane.state = IDLE
        dropped += len(self.delayed)
        self.delayed.clear()
        self.solo_lanes.clear()
        # A worker may still hold the old shared lane; nothing it does with that one has an effect any more.
        self.shared = Lane(self, UNORDERED, shared=True)
        self._lanes.clear()
        self._by_key.clear()
        self.engine.router.forget()
        self.queued = self.spilled = 0
        self.crowded = None
        self.release_followers()
        return dropped

    def taken_from_queues(self) -> int:
        """Return how many deliveries were loaded from queues in which the storage still has them."""
        under_way = sum(origin == "queue" for origin in self.redelivering.values())
        return under_way + self.unsaved.left_queue

    def spill_behind(self, lane: Lane, position: int) -> None:
        """Leave a position on disk, behind others of its lane that already are."""
        assert lane.spilled is not None
        lane.spilled.append(position)
        self.spilled += 1

    # -- priorities -----------------------------------------------------------------------------------

    def find_blocker(self, position: int, event: DomainEvent) -> Consumer | None:
        """Return a subscription of a lower priority number that has yet to attempt this event, or None."""
        for predecessor in self.predecessors:
            if predecessor.state == STARTING and predecessor.wants(kind_of(event)):
                return predecessor  # it is being opened, and the position where it begins is already fixed
            if predecessor.state != ACTIVE:
                continue  # a subscription that does not run must not hold up those that do
            if position in predecessor.unattempted:
                return predecessor
            if (
                predecessor.tracker is not None
                and position > predecessor.tracker.seen
                and predecessor.wants(kind_of(event))
            ):
                return predecessor
        return None

    def set_followed(self, followed: bool) -> None:
        """Record first attempts from now on, or no longer: higher priority numbers wait for them."""
        self.followed = followed
        self.release_followers()
        if followed and self.tracker is not None:
            self.arrivals.use_lanes()  # later events would wait there unseen by ``find_blocker``
            self.unattempted.update(p for p in self.tracker.unfinished() if p not in self.failing)

    def hold(self, position: int, lane: Lane) -> None:
        """Make a lane of a higher priority number wait for this subscription's attempt at ``position``."""
        lane.state = GATED
        self.held_lanes.setdefault(position, []).append(lane)

    def mark_attempted(self, position: int) -> None:
        """Record the first attempt at ``position`` and release the lanes that waited for it."""
        self.unattempted.discard(position)
        for lane in self.held_lanes.pop(position, ()):
            self.engine.make_ready(lane)

    def release_up_to(self, upto: int) -> None:
        """Release the lanes that wait for positions up to ``upto`` which need no attempt here."""
        if self.held_lanes:
            due = [p for p in self.held_lanes if p <= upto and p not in self.unattempted]
            for position in due:
                self.mark_attempted(position)

    def release_followers(self) -> None:
        """Release all lanes that wait for this subscription."""
        self.unattempted.clear()
        for position in list(self.held_lanes):
            self.mark_attempted(position)

    # -- bookkeeping ----------------------------------------------------------------------------------

    def finish(self, position: int) -> None:
        """Record that a position needs no further work."""
        tracker = self.tracker
        if self.failing and self.failing.pop(position, None) is not None and tracker is not None:
            self.unsaved.retries.pop(position, None)
            self.unsaved.cleared.add(position)
        if tracker is not None:
            self.queued -= 1
            if self.redelivering and position in self.redelivering:
                self._finish_redelivery(self.redelivering.pop(position))
                self.unsaved.retries.pop(position, None)  # ``failing`` is empty if it was paused meanwhile
                self.unsaved.cleared.add(position)
            elif self.replay is None or not self.replay.finish(position):
                tracker.finish(position)
            self.mark_progress()

    def _finish_redelivery(self, origin: Origin) -> None:
        if origin == "queue":
            self.unsaved.left_queue += 1
        elif origin == "letter":
            self.unsaved.letters -= 1
            self.engine.note_parked(-1)

    def finish_all(self, items: list[Item]) -> None:
        """Record that a batch is finished, and save and refill only once for all of it."""
        tracker = self.tracker
        if tracker is None or self.failing or self.redelivering or self.replay is not None:
            for position, _ in items:
                self.finish(position)
            return
        for position, _ in items:
            tracker.finish(position)
        self.queued -= len(items)
        self.mark_progress()

    def pass_over(self, position: int) -> None:
        """Finish a position that was dispatched but enters no lane."""
        self.queued += 1  # ``finish`` subtracts it again
        self.finish(position)
        if self.followed:
            self.mark_attempted(position)

    def mark_progress(self) -> None:
        """Have progress saved, and more events read if there is room for them."""
        self.engine.settlement.mark(self)
        if not self.live and self.queued < BUFFER_LOW and self.engine.feed is not None:
            self.engine.feed.look()  # the feed sleeps while no lagging consumer has room

    def context_of(self, position: int, event: DomainEvent, attempt: int, key: Any) -> DeliveryContext:
        """Return the context that a handler's second parameter receives."""
        return DeliveryContext(
            self.name,
            event.event_id,
            registry.schema_of(kind_of(event)).event_type,
            attempt,
            None if self.tracker is None else position,
            event.correlation_id,
            event.causation_id,
            None if key is UNORDERED or key is BATCH_KEY else key,
        )
