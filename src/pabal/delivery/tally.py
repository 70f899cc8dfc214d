"""Count the dead letters in the storage exactly, although a count takes time and saves go on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from pabal.errors import BusNotRunningError, StorageClosedError, StorageError
from pabal.ports.telemetry import StorageTrouble

if TYPE_CHECKING:
    from pabal.delivery.engine import Engine

_PAUSE = 0.5


class Tally:
    """Count the dead letters in the storage, and never while this process changes their number there.

    A new dead letter counts at once, and is saved later. A save that runs during a count may or may not be in
    the result. So counts and changes wait for each other, and what is not saved yet is added to the result.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._counts: set[object] = set()
        self._changes: set[object] = set()
        self._is_asked = False

    async def count(self) -> None:
        """Count the dead letters, and the deliveries queued behind them. Raises StorageError."""
        engine, counts, mine = self._engine, self._counts, object()
        storage = engine.redelivery.storage
        assert storage is not None
        counts.add(mine)
        self._is_asked = False
        try:
            await engine.background.wait_until(lambda: not (self._changes or engine.settlement.is_saving))
            letters = await storage.count_dead_letters()
            records = await storage.list_subscriptions()
        finally:
            counts.discard(mine)
            engine.background.notify_observers()
        ending = engine.feed.leases.leaving if engine.feed is not None else ()
        held = [each for each in (*engine.consumers.values(), *ending) if each.tracker is not None]
        engine.parked = letters + sum(one.unsaved.letters for one in held)
        waiting = sum(len(one.unsaved.queued) - one.taken_from_queues() for one in held)
        engine.redelivery.waiting = waiting + sum(record.queued for record in records)

    async def wait_until_counted(self) -> None:
        """Return when no count is under way: only then may the number in the storage change."""
        while self._counts:
            await self._engine.background.next_notification()

    @asynccontextmanager
    async def change(self) -> AsyncIterator[None]:
        """Hold off counts while the block changes the number of dead letters in the storage and here."""
        await self.wait_until_counted()
        changes, mine = self._changes, object()
        changes.add(mine)
        try:
            yield
        finally:
            changes.discard(mine)
            self._engine.background.notify_observers()

    # -- counting again -------------------------------------------------------------------------------

    def recount(self) -> None:
        """Count again in the background, because other processes may have changed the number."""
        if self._engine.feed is not None and not (self._engine.halting or self._is_asked):
            self._is_asked = True
            self._engine.background.spawn(self._recount())

    async def _recount(self) -> None:
        await asyncio.sleep(0)  # one count for all calls in this turn of the loop
        try:
            await self.count()
        except (BusNotRunningError, StorageClosedError):
            return
        except StorageError as error:
            self._engine.report(StorageTrouble("", error))
            self._engine.timers.add(_PAUSE, self.recount)

    def discard_closed_loop(self) -> None:
        """Forget the counts and changes of a closed event loop."""
        self._counts, self._changes, self._is_asked = set(), set(), False
