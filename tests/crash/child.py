"""A process of the laboratory, meant to be killed: ``python -m tests.crash.child '{"path": …}'``."""

from __future__ import annotations

import asyncio
import random
import sys
from typing import Any

import msgspec

from pabal import InMemoryEventBus, RetryPolicy, SqliteEventStorage
from pabal.delivery.context import DeliveryContext
from tests.crash.events import Step
from tests.crash.points import ACK, Countdown, WatchedStorage, die, watch_statements
from tests.crash.record import ACKED, BEGUN, DONE, FAILED, STARTED, STOPPED, Record
from tests.pragmas import set_pragma


class Settings(msgspec.Struct, frozen=True):
    """What the process does."""

    path: str
    record: str
    round: int = 0
    durability: str = "full"
    publishers: int = 4
    """Number of tasks that publish, each with its own key."""
    per_publisher: int | None = None
    """Number of publishes per task; None to publish until the process ends."""
    prefix: str = "p"
    """Prefix of the keys; it tells apart processes that publish at the same time."""
    consume: bool = True
    failing: float = 0.05
    """Share of attempts that fail."""
    poison: int | None = None
    """Handling this number kills the process."""
    project: bool = False
    """Whether the handler adds to a sum in the same file, in a transaction."""
    checkpoint_pages: int | None = None
    """Pages in the write-ahead log that trigger a checkpoint; None for pabal's own setting."""
    point: str | None = None
    nth: int = 1
    seed: int = 0


class Consumer:
    """A handler that records what it does, fails now and then, and may kill the process."""

    def __init__(
        self, settings: Settings, record: Record, countdown: Countdown, storage: SqliteEventStorage
    ) -> None:
        self._settings = settings
        self._record = record
        self._countdown = countdown
        self._storage = storage
        self._chance = random.Random(settings.seed)

    async def handle(self, event: Step, context: DeliveryContext) -> None:
        fields = (context.position, event.key, event.number, context.attempt)
        self._countdown.reached("before a handler")
        self._record.note(BEGUN, *fields)
        self._countdown.reached("in a handler")
        if event.number == self._settings.poison:
            die()
        await asyncio.sleep(0)
        if self._chance.random() < self._settings.failing:
            self._record.note(FAILED, *fields)
            raise ConnectionError("the exchange did not answer")
        if self._settings.project:
            await self._storage.transact(lambda tx: _add(tx, context.position, event.number))
        self._record.note(DONE, *fields)
        self._countdown.reached("after a handler")


def _add(tx: Any, position: int | None, number: int) -> None:
    """Add to the read model, unless this position was added already: its row is the watermark."""
    tx.execute("CREATE TABLE IF NOT EXISTS sums (total INT, count INT)")
    tx.execute("CREATE TABLE IF NOT EXISTS added (position INTEGER PRIMARY KEY)")
    if tx.execute("INSERT OR IGNORE INTO added VALUES (?)", (position,)).rowcount == 0:
        return
    if tx.execute("UPDATE sums SET total = total + ?, count = count + 1", (number,)).rowcount == 0:
        tx.execute("INSERT INTO sums VALUES (?, 1)", (number,))


async def publish(
    bus: InMemoryEventBus, settings: Settings, record: Record, countdown: Countdown, index: int
) -> None:
    """Publish steps under one key, singly or a few together, and record the acks."""
    chance = random.Random(settings.seed * 1000 + index)
    key = f"{settings.prefix}{index}"
    number = settings.round << 20
    made = 0
    while settings.per_publisher is None or made < settings.per_publisher:
        count = 1 if chance.random() < 0.8 else chance.randrange(2, 6)
        steps = [Step(key, number + n, "x" * chance.randrange(0, 200)) for n in range(count)]
        number += count
        made += 1
        receipts = await bus.publish_batch(steps) if count > 1 else [await bus.publish(steps[0])]
        for step, receipt in zip(steps, receipts, strict=True):
            record.note(ACKED, receipt.position, step.event_id, key, step.number)
        countdown.reached(ACK)
        if made == 1 and index == 0:
            print("published", flush=True)


async def run(settings: Settings) -> None:
    record = Record(settings.record)
    record.note(STARTED, settings.round)
    countdown = Countdown(settings.point, settings.nth)
    watch_statements(countdown)
    async with WatchedStorage(settings.path, settings.durability, record, countdown) as storage:  # type: ignore[arg-type]
        if settings.checkpoint_pages is not None:
            await set_pragma(storage, f"wal_autocheckpoint = {settings.checkpoint_pages}")
        bus = InMemoryEventBus(storage, seed=settings.seed)
        if settings.consume:
            policy = RetryPolicy(max_attempts=3 if settings.poison is not None else 50, base_delay=0.001)
            consumer = Consumer(settings, record, countdown, storage)
            bus.subscribe(Step, consumer, name="consumer", start="beginning", retry=policy)
        async with bus:
            await asyncio.gather(
                *(publish(bus, settings, record, countdown, n) for n in range(settings.publishers))
            )
            if settings.consume:
                await bus.drain()
    record.note(STOPPED)


if __name__ == "__main__":
    asyncio.run(run(msgspec.json.decode(sys.argv[1], type=Settings)))
