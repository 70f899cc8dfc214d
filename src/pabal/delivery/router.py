"""Which subscriptions get an event: computed once per event class."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from typing import Any
from weakref import WeakSet

from pabal.delivery.arrivals import EventArrivals
from pabal.delivery.consumer import ACTIVE, Consumer
from pabal.delivery.lane import Lane
from pabal.domain.event import DomainEvent
from pabal.domain.registry import registry
from pabal.domain.schema import EventSchema


class Route:
    """Hold everything needed to publish an event class: which subscriptions get it, and in what way."""

    __slots__ = ("arrivals", "by_arrival", "is_direct", "schema", "taken_by")

    def __init__(self, schema: EventSchema, taken_by: list[tuple[Consumer, dict[Any, Lane] | None]]) -> None:
        self.schema = schema
        self.taken_by = taken_by
        self.is_direct = not (
            schema.mutable
            or schema.has_floats
            or any(
                lanes is None or consumer.followed or consumer.blocked or consumer.state != ACTIVE
                for consumer, lanes in taken_by
            )
        )
        """With a log: there is nothing to copy, and every subscription finds its lane by aggregate id."""
        self.arrivals = tuple(one.arrivals for one, _ in taken_by if isinstance(one.arrivals, EventArrivals))
        self.by_arrival = all(
            consumer.state == ACTIVE and not (consumer.followed or consumer.predecessors)
            for consumer, _ in taken_by
        )
        """Without a log: no subscription needs to number or sort its deliveries yet."""


class Router:
    """Compute routes for the current consumers, and keep them until something changes."""

    def __init__(self, consumers: Mapping[str, Consumer]) -> None:
        self._consumers = consumers
        self._routes: dict[type, Route] = {}
        self._watched = False
        self._levels: Counter[int] = Counter()
        """The number of consumers with each priority."""
        self._levelled = False
        """Whether there was more than one priority when ``wire`` last looked."""
        self.aged = False
        """Whether deliveries may be dropped by age; each is then numbered when it is published."""
        self.stored = False
        """Whether there is a log, which every event has to go through; there are no direct routes then."""
        self.direct: dict[type, Route] = {}
        """Routes on which a bus without storage can publish without any checks."""
        _made.add(self)

    def watch(self, watched: bool) -> None:
        """Turn direct routes off while something has to see every published event, or on again."""
        if watched != self._watched:
            self._watched = watched
            self.forget()

    def forget(self) -> None:
        """Drop all routes; each is computed again when it is next needed."""
        self._routes.clear()
        self.direct.clear()

    def route(self, kind: type) -> Route:
        """Return the route of an event class, by ascending priority. Raises UnregisteredEventError."""
        route = self._routes.get(kind)
        if route is None:
            schema = registry.schema_of(kind)
            consumers = [consumer for consumer in self._consumers.values() if consumer.wants(kind)]
            consumers.sort(key=lambda consumer: consumer.subscription.priority)
            route = self._routes[kind] = Route(
                schema, [(consumer, consumer.lanes_of(kind)) for consumer in consumers]
            )
            route.by_arrival = route.by_arrival and not (self.stored or self.aged)
            is_inspected = self._watched or schema.mutable or schema.has_floats
            if route.by_arrival and not is_inspected and issubclass(kind, DomainEvent):
                self.direct[kind] = route
        return route

    def add_consumer(self, consumer: Consumer) -> list[Consumer]:
        """Count the priority of a consumer that was added; return as ``wire``."""
        self._levels[consumer.subscription.priority] += 1
        return self.wire()

    def remove_consumer(self, consumer: Consumer) -> list[Consumer]:
        """Count the priority of a consumer that was removed; return as ``wire``."""
        priority = consumer.subscription.priority
        self._levels[priority] -= 1
        if not self._levels[priority]:
            del self._levels[priority]
        return self.wire()

    def wire(self) -> list[Consumer]:
        """Work out which consumers wait for which by priority, and drop all routes; return those affected.

        If all priorities are equal, as is usual, no consumer is looked at: thousands may come and go.
        """
        self.forget()
        levels = self._levels
        if len(levels) < 2 and not self._levelled:
            return []
        self._levelled = len(levels) > 1
        consumers = list(self._consumers.values())
        highest = max(levels, default=0)
        predecessors = {
            level: tuple(one for one in consumers if one.subscription.priority < level) for level in levels
        }
        changed: list[Consumer] = []
        for consumer in consumers:
            priority = consumer.subscription.priority
            followed = priority < highest
            if consumer.followed != followed or bool(consumer.predecessors) != bool(predecessors[priority]):
                changed.append(consumer)
            consumer.predecessors = predecessors[priority]
            if consumer.followed != followed:
                consumer.set_followed(followed)
        return changed


_made: WeakSet[Router] = WeakSet()


def _in_child() -> None:
    # A forked child has a copy of the bus but no workers; without direct routes, publishing notices that.
    for router in tuple(_made):
        router.forget()


if hasattr(os, "register_at_fork"):  # pragma: no branch - Windows has none
    os.register_at_fork(after_in_child=_in_child)
