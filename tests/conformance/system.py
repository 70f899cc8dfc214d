"""A bus on any storage, with handlers that fail as their events say, and everything observable about it."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable
from decimal import Decimal
from typing import Any, ClassVar

import msgspec

from pabal import DomainEvent, InMemoryEventBus, NotRetryableError, RetryPolicy
from pabal.bus.dead_letters import DeadLetter
from pabal.errors import PabalError
from pabal.ports.inspection import DeliveryRecord
from pabal.ports.storage import EventStorage
from pabal.testing import VirtualClock

SECONDS = 20.0
"""Seconds after which a bus that has not come to rest is considered stuck."""
STEP = 10.0
"""Virtual seconds from a failure to the next attempt."""
ATTEMPTS = 3


class NoteTaken(DomainEvent):
    """An event that says how often each subscription fails on it; ``fatal`` allows no retry."""

    event_type: ClassVar[str] = "model.note_taken"
    aggregate_type: ClassVar[str | None] = "note"
    key: str | None
    number: int
    fails: int = 0
    fatal: bool = False
    price: float = 1.0
    tags: list[Decimal] = msgspec.field(default_factory=list)

    @property
    def aggregate_id(self) -> str | None:
        """Return the key."""
        return self.key


class Quiet(DomainEvent):
    """An event that few subscriptions want."""

    event_type: ClassVar[str] = "model.quiet"
    number: int
    fails: int = 0
    fatal: bool = False


SUBSCRIPTIONS: dict[str, dict[str, Any]] = {
    "parks": {"event_type": NoteTaken},
    "parks-keys": {"event_type": NoteTaken, "on_exhausted": "park_key"},
    # One key for all: how far other keys are when one halts the subscription depends on timing.
    "stops": {"event_type": NoteTaken, "on_exhausted": "stop", "ordering": lambda event: "all"},
    "waits-its-turn": {"event_type": (NoteTaken, Quiet), "priority": 2},
    "picks": {"event_type": "model.*", "where": lambda event: event.number % 2 == 0},
    "unordered": {"event_type": "*", "ordering": None},
    "by-parity": {
        "event_type": NoteTaken,
        "ordering": lambda event: event.number % 2,
        "on_exhausted": "park_key",
    },
}


class System:
    """Run commands on a bus and observe it; two systems given the same commands must agree."""

    def __init__(self, make_storage: Callable[[], EventStorage]) -> None:
        self.clock = VirtualClock()
        self.storage: Any = make_storage()
        self.subscribed: dict[str, Any] = {}
        """The application's subscriptions by name, across all restarts."""
        self.handled: dict[str, list[tuple[Any, int]]] = defaultdict(list)
        self.attempts: Counter[tuple[str, int]] = Counter()
        self.failures_fixed = False
        self.bus = self._make_bus()

    def _make_bus(self) -> InMemoryEventBus:
        bus = InMemoryEventBus(self.storage, clock=self.clock, seed=0)
        for name, start in self.subscribed.items():
            self._subscribe(bus, name, start)
        return bus

    def _subscribe(self, bus: InMemoryEventBus, name: str, start: Any) -> Any:
        async def handle(event: Any) -> None:
            self.attempts[name, event.number] += 1
            if not self.failures_fixed and event.fatal:
                raise NotRetryableError(f"fatal {event.number}")
            if not self.failures_fixed and self.attempts[name, event.number] <= event.fails:
                raise ValueError(f"attempt {self.attempts[name, event.number]} on {event.number}")
            self.handled[name].append((event.aggregate_id, event.number))

        options = dict(SUBSCRIPTIONS[name])
        retry = RetryPolicy(max_attempts=ATTEMPTS, base_delay=STEP, multiplier=1.0, jitter=0.0)
        return bus.subscribe(
            options.pop("event_type"), handle, name=name, retry=retry, start=start, **options
        )

    # -- commands -------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start the bus."""
        await self.bus.start()

    async def restart(self) -> None:
        """Stop the bus and start another one with the same subscriptions on the same storage."""
        await self.bus.stop()
        self.bus = self._make_bus()
        await self.bus.start()

    async def subscribe(self, name: str, start: Any) -> None:
        """Subscribe under a name."""
        self.subscribed[name] = start
        self._subscribe(self.bus, name, start)

    async def unsubscribe(self, name: str) -> bool:
        """End the subscription of a name."""
        del self.subscribed[name]
        [subscription] = [
            consumer.subscription for consumer in self.bus._engine.consumers.values() if consumer.name == name
        ]
        return self.bus.unsubscribe(subscription)

    async def letter_at(self, index: int) -> DeadLetter | None:
        """Return a dead letter by index, in an order that does not depend on their ids."""
        letters = await self.bus.dead_letters.list(limit=1000)
        letters.sort(key=lambda letter: (letter.subscription, letter.position))
        return letters[index % len(letters)] if letters else None

    async def advance(self, steps: int) -> None:
        """Let time pass, and everything that becomes due happen."""
        for _ in range(steps):
            await self.clock.advance(STEP)
            await self.settle()

    async def settle(self) -> None:
        """Wait until nothing more happens by itself."""
        await self.bus.drain(timeout=SECONDS, retries=False)

    async def log(self) -> list[Any]:
        """Return every event stored."""
        return [envelope.event async for envelope in self.storage.read()]

    # -- what can be observed -------------------------------------------------------------------------

    async def observe(self, floor: int) -> dict[str, Any]:
        """Return everything an application can observe of the bus, and of its storage above a position."""
        letters = await self.bus.dead_letters.list(limit=1000)
        statistics = self.bus.get_statistics()
        return {
            "handled": {name: self._handled_by_key(name) for name in self.handled},
            "attempts": dict(self.attempts),
            "dead letters": sorted(map(_dead_letter_row, letters)),
            "log": [
                (one.position, one.stream_version, one.event_id, one.event.to_dict())
                async for one in self.storage.read(floor)
            ],
            "streams": {
                key: [one.number for one in await self.storage.get_events_by_aggregate(key, "note")][-left:]
                for key, left in (await self._streams_above(floor)).items()
            },
            "subscriptions": {
                name: {figure: value for figure, value in figures.items() if figure in _FIGURES}
                for name, figures in statistics["subscriptions"].items()
            },
            "queue": {name: statistics[name] for name in ("queue_size", "retry_queue_size")},
            "health": self.bus.health().status,
        }

    async def observe_storage(self, floor: int) -> dict[str, Any]:
        """Return what is stored about subscriptions; complete only while no bus runs."""
        there = {envelope.event_id async for envelope in self.storage.read(floor)}
        unprocessed = await self.storage.get_unprocessed_events(1000)
        return {
            "cursors": [
                (one.name, one.watermark, one.frontier, one.unfinished, one.retries, one.parked, one.queued)
                for one in await self.storage.list_subscriptions()
            ],
            "deliveries": [
                (position, *_delivery_row(one))
                for position in range(floor + 1, await self.storage.head() + 1)
                for one in await self.storage.deliveries_at(position)
            ],
            "unprocessed": [event.number for event in unprocessed if event.event_id in there],
        }

    async def _streams_above(self, floor: int) -> Counter[str]:
        found = [one.event.aggregate_id async for one in self.storage.read(floor, types=[NoteTaken])]
        return Counter(key for key in found if key is not None)

    def _handled_by_key(self, name: str) -> dict[Any, list[int]]:
        by_key: dict[Any, list[int]] = defaultdict(list)
        for key, number in self.handled[name]:
            by_key[{"stops": "all", "by-parity": number % 2, "unordered": None}.get(name, key)].append(number)
        # Without a key, four workers may finish in any order.
        return {key: sorted(numbers) if key is None else numbers for key, numbers in by_key.items()}


_FIGURES = (
    "state",
    "handled",
    "filtered",
    "failed_attempts",
    "retried",
    "parked",
    "retrying",
    "blocked_keys",
)


def _dead_letter_row(letter: DeadLetter) -> tuple[Any, ...]:
    attempts = tuple((one.attempt, one.error_type, one.message) for one in letter.attempts)
    kept = (letter.state, letter.key or "", letter.queued, letter.event_id, letter.event_type)
    return (letter.subscription, letter.position, letter.reason, *kept, attempts, str(letter.payload))


def _delivery_row(delivery: DeliveryRecord) -> tuple[Any, ...]:
    failures = tuple((one.attempt, one.error_type, one.message) for one in delivery.failures)
    return (delivery.subscription, delivery.state, delivery.attempts, delivery.finished_at, *failures)


def is_for(name: str, event: Any) -> bool:
    """Return whether a subscription wants an event."""
    options = SUBSCRIPTIONS[name]
    wanted = isinstance(options["event_type"], str) or isinstance(event, options["event_type"])
    return wanted and ("where" not in options or bool(options["where"](event)))


async def outcome_of(call: Any) -> Any:
    """Return what a call returns or raises, in a form that can be compared."""
    try:
        return await call
    except PabalError as error:
        # Ids follow the order of parking, which may differ between several subscriptions.
        return type(error).__name__, re.sub(r"dead letter \d+", "dead letter", str(error))
