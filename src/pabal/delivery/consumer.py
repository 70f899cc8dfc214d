"""One subscription at work: its lanes, its watermark, its failures, its figures."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from pabal.delivery.arrivals import Arrivals
from pabal.delivery.bookkeeping import Failing, Figures, Unsaved
from pabal.delivery.buffers import BUFFER_LOW
from pabal.delivery.context import Call, DeliveryContext
from pabal.delivery.lane import GATED, IDLE, READY, RUNNING, WAITING, Item, Lane
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
    """Take deliveries for one subscription and keep track of them until each is finished."""

    __slots__ = (
        "_by_key",
        "_lanes",
        "_prune_at",
        "_wants",
        "apart",
        "arrivals",
        "bare",
        "blocked",
        "call",
        "copies",
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
        "journal",
        "live",
        "lowers",
        "number",
        "opened",
        "outside",
        "plain",
        "queued",
        "reason",
        "reopenings",
        "replay",
        "replays",
        "saved",
        "shared",
        "slice",
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
        self.bare = False
        """The handler takes the event alone and no middleware is around it."""
        self.plain = False
        """Nothing to do around the handler: workers take the short way."""
        self.copies = False
        """Some of its events have fields that a handler could change: each attempt gets a copy of its own."""
        self.arrivals = Arrivals(self)
        self.shared = Lane(self, UNORDERED, shared=True)
        self.delayed: dict[int, Item] = {}
        """Deliveries without a key that failed and wait for their next attempt, out of their lane."""
        self.apart: set[Lane] = set()
        """Lanes of single deliveries without a key that wait at a gate of priority."""
        self._lanes: dict[str | None, dict[Any, Lane]] = {}
        self._by_key: dict[Any, Lane] = {}
        self._prune_at = _PRUNE_ABOVE
        self._wants: dict[type, bool] = {}
        self.failing: dict[int, Failing] = {}
        self.blocked: dict[str, int] = {}
        """Keys that wait behind a dead letter, with the number of deliveries queued there in this run."""
        self.figures = Figures()
        self.in_flight = 0
        self.slice = 1  # it grows where handlers prove quick: until then, each worker's would add up
        self.state = STARTING
        self.reason = ""
        # What follows is for a log underneath, or for priorities.
        self.tracker: WatermarkTracker | None = None
        self.journal: AttemptJournal | None = None
        self.number = self.epoch = self.reopenings = 0
        self.opened = False
        """What its cursor left unfinished is in its lanes again, so later events may follow."""
        self.live = False
        """Takes events as they are committed; otherwise the feed reads them from the log."""
        self.queued = self.spilled = 0
        self.crowded: tuple[int, ...] | None = None  # what it held when no room could be made of that
        self.saved = 0
        """How far the last save reached."""
        self.unsaved = Unsaved()
        self.outside: set[int] = set()
        """Positions under way that the watermark has passed: dead letters, and what queued behind them."""
        self.replay: ReplayRun | None = None
        """The range of the log that is delivered again just now."""
        self.replays: frozenset[int] = frozenset()
        """The replays that its opening knew of."""
        self.lowers: tuple[Consumer, ...] = ()
        self.followed = False
        self.unattempted: set[int] = set()
        self.held_lanes: dict[int, list[Lane]] = {}

    @property
    def is_opening(self) -> bool:
        """Tell whether what its cursor says is being loaded."""
        loading = self.state == ACTIVE and self.tracker is not None and not self.opened
        return loading or self.state == STARTING

    def is_open(self, tracker: WatermarkTracker | None) -> bool:
        """Tell whether this is still the same opening of an active subscription: not ended, nor reopened."""
        return self.state == ACTIVE and self.tracker is tracker

    def rewire(self, call: Call, *, with_middleware: bool) -> None:
        """Take another call, and find out anew whether there is anything to do around the handler."""
        subscription = self.subscription
        self.call = call
        self.bare = subscription.handler.direct is not None and not with_middleware
        was_plain = self.plain
        self.plain = (
            self.bare
            and not self.copies
            and subscription.timeout is None
            and subscription.where is None
            and subscription.batch is None
            and subscription.matcher.only_domain_events
            and not self.lowers
            and not self.followed
        )
        if was_plain and not self.plain:
            self.end_slices()

    # -- routing --------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """Return the durable name."""
        return self.subscription.name

    def wants(self, kind: type) -> bool:
        """Tell whether events of this class are for this subscription."""
        wanted = self._wants.get(kind)
        if wanted is None:
            wanted = self._wants[kind] = self.subscription.matcher.matches_class(kind)
            if wanted and registry.schema_of(kind).mutable and not self.copies:
                self._begin_to_copy()
        return wanted

    def _begin_to_copy(self) -> None:
        self.copies = True
        if self.plain:
            self.plain = False
            self.end_slices()

    def end_slices(self) -> None:
        """Have workers in the middle of a slice end with their delivery; what is left stays in its lane."""
        self.arrivals.recall()
        for lane in self.all_lanes():
            lane.items, slice_under_way = deque(lane.items), lane.items
            slice_under_way.clear()

    def lanes_of(self, kind: type) -> dict[Any, Lane] | None:
        """Return the lanes that aggregate ids of this class index, or None where keys are computed."""
        subscription = self.subscription
        if subscription.batch is not None or subscription.ordering != BY_AGGREGATE:
            return None
        return self._lanes.setdefault(registry.schema_of(kind).aggregate_type, {})

    def lane_for(self, event: DomainEvent, lanes: dict[Any, Lane] | None) -> Lane:
        """Return the lane of an event, new if need be. May raise what a user's ordering function raises."""
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
        """Return the lane of a key; by default that of a subscription that ``is_one_lane``."""
        return self._by_key.get(key) or self._by_key.setdefault(key, Lane(self, key))

    def _prune(self, lanes: dict[Any, Lane]) -> None:
        """Forget lanes that are empty, so that ever new keys take no ever growing room."""
        for key in [key for key, lane in lanes.items() if lane.state == IDLE and not lane.items]:
            del lanes[key]
        self._prune_at = max(_PRUNE_ABOVE, 2 * len(lanes))

    def all_lanes(self) -> list[Lane]:
        """Return every lane there is now."""
        groups = [*self._lanes.values(), self._by_key]
        return [self.shared, *self.apart, *(lane for group in groups for lane in group.values())]

    def queue_length(self) -> int:
        """Return how many deliveries wait in lanes."""
        return len(self.arrivals) + sum(len(lane.items) for lane in self.all_lanes())

    def held_by_retries(self) -> int:
        """Return how many deliveries cannot go on before a retry is due, their own or that of one ahead."""
        waiting = (len(lane.items) for lane in self.all_lanes() if lane.state in (WAITING, GATED))
        return len(self.delayed) + sum(waiting)

    def drop_lanes(self) -> int:
        """Forget what waits, and return how many deliveries that were; running handlers are not touched."""
        dropped = self.arrivals.drop()
        for lane in self.all_lanes():
            dropped += len(lane.items)
            lane.items.clear()
            lane.spilled = None
            if lane.state not in (READY, RUNNING):
                lane.state = IDLE
        dropped += len(self.delayed)
        self.delayed.clear()
        self.apart.clear()
        # A worker may still hold the old one; whatever it does with it concerns nobody any more.
        self.shared = Lane(self, UNORDERED, shared=True)
        self._lanes.clear()
        self._by_key.clear()
        self.engine.router.forget()
        self.engine.dead_letters.call_off_retries(self.name, self.failing)  # with a log there are none
        self.failing.clear()
        self.queued = self.spilled = 0
        self.crowded = None
        self.release_followers()
        return dropped

    def spill_behind(self, lane: Lane, position: int) -> None:
        """Add a position to the part of a lane that is left on disk, of which there is some already."""
        assert lane.spilled is not None
        lane.spilled.append(position)
        self.spilled += 1

    # -- priorities -----------------------------------------------------------------------------------

    def holder(self, position: int, event: DomainEvent) -> Consumer | None:
        """Return a subscription of a lower priority number that has not attempted this event yet."""
        for lower in self.lowers:
            if lower.state == STARTING and lower.wants(kind_of(event)):
                return lower  # it is being opened; where it begins is settled already
            if lower.state != ACTIVE:
                continue  # one that does not run must not hold up those that do
            if position in lower.unattempted:
                return lower
            if lower.tracker is not None and position > lower.tracker.seen and lower.wants(kind_of(event)):
                return lower
        return None

    def set_followed(self, followed: bool) -> None:
        """Begin or end to note first attempts, as those of higher numbers come or go."""
        self.followed = followed
        self.release_followers()
        if followed and self.tracker is not None:
            self.unattempted.update(p for p in self.tracker.unfinished() if p not in self.failing)

    def hold(self, position: int, lane: Lane) -> None:
        """Let a lane of a higher priority number wait for this subscription's attempt on ``position``."""
        lane.state = GATED
        self.held_lanes.setdefault(position, []).append(lane)

    def attempted(self, position: int) -> None:
        """Note the first attempt on ``position`` and let those who waited for it go on."""
        self.unattempted.discard(position)
        for lane in self.held_lanes.pop(position, ()):
            self.engine.make_ready(lane)

    def passed_over(self, upto: int) -> None:
        """Let go who waits for positions up to ``upto`` that turned out to need no attempt here."""
        if self.held_lanes:
            due = [p for p in self.held_lanes if p <= upto and p not in self.unattempted]
            for position in due:
                self.attempted(position)

    def release_followers(self) -> None:
        """Let everyone go who waits for this subscription."""
        self.unattempted.clear()
        for position in list(self.held_lanes):
            self.attempted(position)

    # -- bookkeeping ----------------------------------------------------------------------------------

    def finished(self, position: int) -> None:
        """Note that nothing remains to be done for a position."""
        tracker = self.tracker
        if self.failing and self.failing.pop(position, None) is not None and tracker is not None:
            self.unsaved.retries.pop(position, None)
            self.unsaved.cleared.add(position)
        if tracker is not None:
            self.queued -= 1
            if self.outside and position in self.outside:
                self.outside.discard(position)
                self.unsaved.cleared.add(position)
            elif self.replay is None or not self.replay.finish(position):
                tracker.finish(position)
            self.noted()

    def all_finished(self, items: list[Item]) -> None:
        """Note the same for everything in a batch, and look only once at what follows."""
        tracker = self.tracker
        if tracker is None or self.failing or self.outside or self.replay is not None:
            for position, _ in items:
                self.finished(position)
            return
        for position, _ in items:
            tracker.finish(position)
        self.queued -= len(items)
        self.noted()

    def pass_over(self, position: int) -> None:
        """Finish a position that is under way but enters no lane."""
        self.queued += 1  # ``finished`` takes it off again
        self.finished(position)
        if self.followed:
            self.attempted(position)

    def noted(self) -> None:
        """See that progress is saved, and that more is read once there is room."""
        self.engine.settlement.mark(self)
        if not self.live and self.queued < BUFFER_LOW and self.engine.feed is not None:
            self.engine.feed.look()  # it sleeps while those who lag have no room

    def context_of(self, position: int, event: DomainEvent, attempt: int, key: Any) -> DeliveryContext:
        """Make what a handler's second parameter receives."""
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
