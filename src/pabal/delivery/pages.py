"""Route a page of the log to the subscriptions that lag, looking each event type up only once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from pabal.delivery.arrivals import LogArrivals
from pabal.delivery.buffers import BUFFER_HIGH
from pabal.delivery.consumer import ACTIVE, Consumer
from pabal.delivery.lane import Lane
from pabal.delivery.spilling import has_room
from pabal.domain.envelope import StoredRecord, decode_event
from pabal.domain.event import DomainEvent
from pabal.domain.registry import registry
from pabal.errors import DecodeError, UnknownEventTypeError

if TYPE_CHECKING:
    from pabal.delivery.engine import Engine


class _Destination(NamedTuple):
    """Describe how events of one type reach one subscription."""

    wanted: bool
    lanes: dict[Any, Lane] | None = None
    """The lanes by aggregate id, if nothing else decides the lane."""
    lane: Lane | None = None
    """The lane, if the subscription has only one."""


_UNWANTED = _Destination(wanted=False)


def route_page(engine: Engine, rows: Sequence[StoredRecord], consumers: Sequence[Consumer]) -> None:
    """Give rows to consumers that have not seen them and have room; each row is decoded once for all.

    A consumer that becomes full or ends stays at the position it has reached. Serving consumers one after the
    other breaks no priority: one that has not seen an event yet holds back those with higher priority
    numbers.
    """
    events: dict[int, DomainEvent] | None = {} if len(consumers) > 1 else None
    for consumer in consumers:
        _follow(engine, rows, consumer, events)


def _follow(
    engine: Engine, rows: Sequence[StoredRecord], consumer: Consumer, events: dict[int, DomainEvent] | None
) -> None:
    tracker, arrivals = consumer.tracker, consumer.arrivals
    assert isinstance(arrivals, LogArrivals)
    arrivals.open()
    destinations: dict[str, _Destination] = {}
    for row in rows:
        if tracker is None or consumer.tracker is not tracker or consumer.state != ACTIVE:
            return
        position = row.position
        if position <= tracker.seen:
            continue
        if consumer.queued >= BUFFER_HIGH and not has_room(consumer, BUFFER_HIGH):
            return
        destination = destinations.get(row.event_type)
        if destination is None:
            destination = destinations[row.event_type] = _find_destination(consumer, row.event_type)
        if not destination.wanted:
            if consumer.failing:
                _forget_retry(engine, consumer, position)
            tracker.seen = position
            continue
        tracker.add(position)
        event = None if events is None else events.get(position)
        if event is None:
            event = decode_for(engine, consumer, row)
            if event is None:
                continue
            if events is not None:
                events[position] = event
        if arrivals.is_open:
            arrivals.enter(position, event)
        elif destination.lane is not None:
            engine.enter_lane(consumer, destination.lane, position, event)
        elif destination.lanes is not None:
            enter_direct(engine, consumer, destination.lanes, position, event)
        else:
            engine.accept(consumer, position, event)


def enter_direct(
    engine: Engine, consumer: Consumer, lanes: dict[Any, Lane] | None, position: int, event: DomainEvent
) -> None:
    """Route like ``accept`` if only the aggregate id decides the lane and no lane is blocked."""
    arrivals = consumer.arrivals
    if isinstance(arrivals, LogArrivals) and arrivals.open():
        arrivals.enter(position, event)
        return
    try:
        lane = consumer.lane_for(event, lanes)
    except Exception:
        engine.accept(consumer, position, event)  # ``accept`` meets the same error and parks the event
    else:
        engine.enter_lane(consumer, lane, position, event)


def _forget_retry(engine: Engine, consumer: Consumer, position: int) -> None:
    """Forget the retry of an event that the subscription, narrowed since, does not take any more."""
    failing = consumer.failing.get(position)
    if failing is not None and not failing.from_dead_letter:
        del consumer.failing[position]
        consumer.unsaved.cleared.add(position)
        engine.settlement.mark(consumer)


def _find_destination(consumer: Consumer, event_type: str) -> _Destination:
    kind = registry.class_named(event_type)
    if kind is None:
        return _Destination(consumer.subscription.matcher.matches_name(event_type))
    if not consumer.wants(kind):
        return _UNWANTED
    if consumer.followed or consumer.blocked:
        return _Destination(wanted=True)
    if consumer.subscription.is_one_lane:
        return _Destination(wanted=True, lane=consumer.lane_of())
    return _Destination(wanted=True, lanes=consumer.lanes_of(kind))


def decode_for(engine: Engine, consumer: Consumer, row: StoredRecord) -> DomainEvent | None:
    """Decode a row for a consumer; None if that failed, in which case the row is already dealt with."""
    try:
        return decode_event(row)
    except UnknownEventTypeError as error:
        engine.failures.unknown(consumer, row, error)
        return None
    except DecodeError as error:
        engine.failures.reject(consumer, row.position, None, row, error)
        return None
