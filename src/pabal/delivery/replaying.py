"""Replay a range of the log to one subscription before it goes on with new events."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from pabal.delivery.watermark import WatermarkTracker
from pabal.domain.envelope import StoredRecord
from pabal.ports.storage import Cursor, EventStorage, Replay

if TYPE_CHECKING:
    from pabal.delivery.consumer import Consumer
    from pabal.delivery.engine import Engine
    from pabal.delivery.feed import Feed

_PAGE = 256
_ROOM = 2048
"""How many deliveries a replay has under way before it waits."""


class ReplayRun:
    """Track the progress of one replay, with a watermark of its own."""

    __slots__ = ("_tracker", "_under_way", "last", "replay")

    def __init__(self, replay: Replay, frontier: int) -> None:
        self.replay = replay
        self.last = min(replay.last, frontier)
        """The last position to deliver: those above the frontier are delivered anyway."""
        self._tracker = WatermarkTracker(after=replay.watermark)
        self._under_way: set[int] = set()

    def __len__(self) -> int:
        """Return how many deliveries of the replay are under way."""
        return len(self._under_way)

    @property
    def is_full(self) -> bool:
        """Return whether so much is under way that nothing more is read for now."""
        return len(self._under_way) >= _ROOM

    @property
    def only_waits(self) -> bool:
        """Return whether nothing is left to do before some delivery that is under way has finished."""
        return self.is_full or (len(self._under_way) > 0 and self._tracker.seen >= self.last)

    def add(self, position: int) -> None:
        """Record that a position is being delivered again."""
        self._tracker.add(position)
        self._under_way.add(position)

    def finish(self, position: int) -> bool:
        """Record that a position is finished; False if it is not part of this replay."""
        if position not in self._under_way:
            return False
        self._under_way.discard(position)
        self._tracker.finish(position)
        return True

    def pass_over(self, upto: int) -> None:
        """Record that nothing more is to be delivered up to a position."""
        self._tracker.seen = max(self._tracker.seen, upto)

    @property
    def progress(self) -> tuple[int, int]:
        """Return what a save records: the replay's id and its watermark."""
        return self.replay.id, self._tracker.watermark


class Replaying:
    """Run the replays that are listed in a subscription's cursor, one after the other."""

    def __init__(self, engine: Engine, storage: EventStorage, feed: Feed) -> None:
        self._engine = engine
        self._storage = storage
        self._feed = feed

    async def run(self, consumer: Consumer, cursor: Cursor) -> bool:
        """Replay every range; False if the subscription was closed or reopened before the end.

        Newer events are not read until then, so each key keeps the order of the log.
        """
        for replay in cursor.replays:
            run = consumer.replay = ReplayRun(replay, cursor.frontier)
            if not await self._run(consumer, cursor, run):
                return False
        consumer.replay = None
        return True

    async def _run(self, consumer: Consumer, cursor: Cursor, run: ReplayRun) -> bool:
        replay = run.replay
        tracker, background = consumer.tracker, self._engine.background
        known, last = set(cursor.unfinished), run.last  # what the cursor lists is delivered anyway
        after = replay.watermark
        while after < last:
            await background.wait_until(lambda: not run.is_full or not consumer.is_open(tracker))
            if not consumer.is_open(tracker):
                return False
            page = await background.call_with_retry(
                consumer, partial(self._storage.read_page, after, limit=_PAGE)
            )
            if page is None or not consumer.is_open(tracker):
                return False
            upto = min(page.upto, last)
            read = partial(self._storage.parked_positions, consumer.name, after, upto)
            parked = await background.call_with_retry(consumer, read)
            if parked is None or not consumer.is_open(tracker):
                return False
            known.update(parked)
            self._enter(consumer, run, [row for row in page.rows if row.position <= upto], known)
            if not consumer.is_open(tracker):
                return False
            run.pass_over(upto)
            after = upto
            if run.only_waits:
                background.notify_observers()
        await background.wait_until(lambda: not len(run) or not consumer.is_open(tracker))
        if not consumer.is_open(tracker):
            return False
        run.pass_over(replay.last)
        self._engine.settlement.mark(consumer)
        await self._engine.settlement.flush()
        return consumer.is_open(tracker)

    def _enter(self, consumer: Consumer, run: ReplayRun, rows: list[StoredRecord], known: set[int]) -> None:
        for row in rows:
            wanted = consumer.subscription.matcher.matches_name(row.event_type)
            if wanted and row.position not in known and row.position not in consumer.redelivering:
                run.add(row.position)
                self._feed.route_row(row, consumer)
