"""Feed consumers from the log: as events are committed, or from disk for a consumer that lags."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterator, Sequence
from threading import get_ident
from typing import TYPE_CHECKING

from pabal.delivery.buffers import BUFFER_HIGH, BUFFER_LIVE, BUFFER_LOW
from pabal.delivery.commits import Commits
from pabal.delivery.consumer import ACTIVE, HALTED, PAUSED, STANDBY, Consumer
from pabal.delivery.control import Controls
from pabal.delivery.lane import IDLE, LOADING, Lane
from pabal.delivery.leases import Leases
from pabal.delivery.pages import decode_for, enter_direct, route_page
from pabal.delivery.shutdown import close_dead_tasks
from pabal.delivery.spilling import has_room
from pabal.domain.envelope import StoredRecord
from pabal.domain.event import kind_of, private_copy
from pabal.errors import CorruptLogError, StorageClosedError, StorageError
from pabal.ports.storage import Committed, EventStorage, Page
from pabal.ports.telemetry import StorageTrouble

if TYPE_CHECKING:
    from pabal.delivery.engine import Engine

_PAGE = 256
_PAGE_BYTES = 256 << 10
"""Rows routed at a time, and bytes of their payloads: about a millisecond of the event loop."""
_READ = 1024
"""Rows read at a time: each read costs a round trip to another thread."""
_POLL_FASTEST = 0.001
_POLL_SLOWEST = 0.05
_POLL_IDLE = 0.2
"""Seconds between looks at what other processes wrote: just after a write, within five seconds, and later.

A timer every 50 ms takes 0.3 % of a processor, which is too much for a bus that no other process writes to.
"""
_IDLE_AFTER = 5.0
_READ_PAUSE = 0.5


class Feed:
    """Give every consumer every position exactly once per run, in order.

    A *live* consumer has seen everything up to ``head`` and takes events straight from commits. Any other
    consumer lags: the feed reads for it, page by page, while it has room. Consumers that lag at the same
    position share their pages.
    """

    def __init__(self, engine: Engine, storage: EventStorage) -> None:
        self._engine = engine
        self._storage = storage
        self.head = 0
        self._commits = Commits(self._route_commit, self.advance_to, lambda: len(engine.consumers))
        self._remove_listener: Callable[[], None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._wake: asyncio.Future[None] | None = None
        self._pause = _POLL_IDLE
        self._last_write_at = -_IDLE_AFTER
        self._stop_listening: Callable[[], None] = _noop
        self.leases = Leases(engine, storage, self)
        self.controls = Controls(engine, storage, self.leases)

    # -- life -----------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Listen for commits, open every subscription, and begin to read for those that lag."""
        loop, thread = asyncio.get_running_loop(), get_ident()

        def committed(batch: Committed) -> None:
            # A storage that commits in the loop's own thread need not wake it, which takes a system call.
            call = loop.call_soon if get_ident() == thread else loop.call_soon_threadsafe
            try:
                call(self.committed, batch)
            except RuntimeError:
                pass  # the loop is closed: the events are in the log

        self._remove_listener = self._storage.add_listener(committed)
        self.head = await self._storage.head()
        self._task = asyncio.create_task(self._run(), name="pabal-feed")
        self.controls.start()
        await self.leases.start()
        if self._storage.capabilities.shared:
            self._stop_listening = self._storage.listen_to_others(self._poll_other_processes)
            self._poll()

    async def stop(self) -> None:
        """Stop reading and listening. May be called again, as after a stop that was cancelled."""
        self.controls.stop()
        stop_listening, self._stop_listening = self._stop_listening, _noop
        stop_listening()
        remove, self._remove_listener = self._remove_listener, None
        if remove is not None:
            remove()
        self._commits.clear()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def discard_closed_loop(self) -> None:
        """Forget the tasks of an event loop that was closed."""
        close_dead_tasks(self._task)
        self._task = self._wake = None
        self.leases.discard_closed_loop()

    # -- other processes ------------------------------------------------------------------------------

    def _poll(self) -> None:
        """Look for writes of other processes: every millisecond after one, then less and less often."""
        if self._engine.halting:
            return
        if self._poll_other_processes():
            self._pause = _POLL_FASTEST
            self._last_write_at = self._engine.clock.monotonic()
        elif self._engine.clock.monotonic() - self._last_write_at > _IDLE_AFTER:
            self._pause = _POLL_IDLE
        self._engine.timers.add(self._pause, self._poll)
        self._pause = max(self._pause, min(_POLL_SLOWEST, self._pause * 1.25))

    def _poll_other_processes(self) -> bool:
        """Take in what other processes wrote; True if they added events."""
        try:
            head = self._storage.poll_head()
            if self._storage.poll_controls():
                self.controls.poll()
        except StorageError:
            head = None  # the next read or write meets the same trouble and reports it
        if head is None or head <= self.head:
            return False
        self.advance_to(head)
        return True

    async def wait_for_growth(self, beyond: int) -> None:
        """Wait until the log is known to extend beyond a position."""
        await self._engine.background.wait_until(lambda: self.head > beyond)

    # -- live -----------------------------------------------------------------------------------------

    def committed(self, batch: Committed) -> None:
        """Route the events of a commit of this process."""
        self._commits.add(batch)

    def _route_commit(self, batch: Committed) -> None:
        engine = self._engine
        last = batch.first + len(batch.events) - 1
        consumers = list(engine.consumers.values())
        if batch.first != self.head + 1:
            # Another process wrote in between: live consumers have to read the gap from the log.
            for consumer in consumers:
                consumer.live = False
        else:
            for consumer in consumers:
                if consumer.unsaved.is_full:
                    consumer.live = False
            self._route_live(batch)
            for consumer in consumers:
                if consumer.live and consumer.tracker is not None:
                    consumer.tracker.seen = max(last, consumer.tracker.seen)
                    consumer.release_up_to(last)
                    engine.settlement.mark_passed(consumer)
        self.head = max(self.head, last)
        self.look()
        engine.background.notify_observers()

    def _route_live(self, batch: Committed) -> None:
        engine = self._engine
        position = batch.first
        for event in batch.events:
            route = engine.router.route(kind_of(event))
            if route.schema.mutable and route.taken_by:
                event = private_copy(event, route.schema)
            for consumer, lanes in route.taken_by:
                tracker = consumer.tracker
                if tracker is None or not consumer.live or position <= tracker.seen:
                    continue  # already read from the log: reading may be ahead of the news of commits
                if consumer.queued >= BUFFER_LIVE and not has_room(consumer, BUFFER_LIVE):
                    consumer.live = False
                    tracker.seen = position - 1
                    continue
                tracker.add(position)
                if route.is_direct:
                    enter_direct(engine, consumer, lanes, position, event)
                else:
                    engine.accept(consumer, position, event)
            position += 1

    def advance_to(self, head: int) -> None:
        """Record that another process wrote up to ``head``."""
        if head > self.head:
            self.head = head
            for consumer in self._engine.consumers.values():
                consumer.live = False
            self.look()
            self._engine.background.notify_observers()

    # -- from disk ------------------------------------------------------------------------------------

    def look(self) -> None:
        """Wake the reading task, if it sleeps, to look for a consumer to read for."""
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    def lag_of(self, consumer: Consumer) -> int | None:
        """Return how many positions of the log a consumer has not seen or not finished.

        None if it has no cursor here: it is being opened, or another process holds it.
        """
        if consumer.tracker is None:
            return None
        return max(0, self.head + self._commits.left - consumer.tracker.seen) + len(consumer.tracker)

    def is_caught_up(self, position: int, besides: Collection[Consumer] = ()) -> bool:
        """Return whether the log reaches ``position``, and all running subscriptions saw all commits.

        Those in ``besides`` need not have seen them.
        """
        return (
            self.head >= position
            and self._commits.is_empty
            and all(
                consumer.live or consumer.state in (HALTED, PAUSED, STANDBY) or consumer in besides
                for consumer in self._engine.consumers.values()
            )
        )

    def _most_lagging(self) -> Consumer | None:
        """Return the consumer that lags most among those with room, or None."""
        best: Consumer | None = None
        for consumer in self._engine.consumers.values():
            tracker = consumer.tracker
            if tracker is None or consumer.live or not consumer.is_loaded or consumer.state != ACTIVE:
                continue
            if tracker.seen >= self.head:
                consumer.live = True
                continue
            if consumer.queued >= BUFFER_LOW and not has_room(consumer, BUFFER_LOW):
                continue
            if consumer.unsaved.is_full:
                continue
            if best is None or tracker.seen < best.tracker.seen:  # type: ignore[union-attr]
                best = consumer
        return best

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            slowest = self._most_lagging()
            if slowest is None:
                self._engine.background.notify_observers()
                self._wake = loop.create_future()
                await self._wake
                self._wake = None
                continue
            assert slowest.tracker is not None
            after = slowest.tracker.seen
            try:
                page = await self._storage.read_page(after, limit=_READ)
            except CorruptLogError as error:
                self._halt_at_damage(after, error)
                continue
            except StorageClosedError:
                return
            except StorageError as error:
                self._engine.report(StorageTrouble(slowest.name, error))
                await self._engine.background.sleep(_READ_PAUSE)
                continue
            for part in _split_page(page):
                async with self._engine.routing:
                    followed = self._route(after, part)
                    # Handlers and publishers share the loop with a lagging subscription: let them run.
                    await asyncio.sleep(0)
                if not followed:
                    break
                after = part.upto

    def _route(self, after: int, page: Page) -> bool:
        """Give a page of rows above ``after`` to the consumers that lag there; False if there are none."""
        lagging = tuple(
            consumer
            for consumer in self._engine.consumers.values()
            if consumer.tracker is not None
            and not consumer.live
            and consumer.is_loaded
            and consumer.state == ACTIVE
            and after <= consumer.tracker.seen < page.upto
            and consumer.queued < BUFFER_HIGH
            and not consumer.unsaved.is_full
        )
        route_page(self._engine, page.rows, lagging)
        for consumer in lagging:
            tracker = consumer.tracker
            if tracker is None or consumer.state != ACTIVE:
                continue
            if not page.rows or tracker.seen >= page.rows[-1].position:
                tracker.seen = max(tracker.seen, page.upto)
            consumer.release_up_to(tracker.seen)
            self._engine.settlement.mark_passed(consumer)
        if self._engine.quarantine.active:
            self._engine.quarantine.release_if_quiet()
        return bool(lagging)

    def _halt_at_damage(self, after: int, error: StorageError) -> None:
        """Halt the consumers that would have to read the damaged row next; all others go on."""
        for consumer in list(self._engine.consumers.values()):
            tracker = consumer.tracker
            if (
                tracker is not None
                and consumer.state == ACTIVE
                and not consumer.live
                and tracker.seen == after
            ):
                self._engine.halt(consumer, f"position {after + 1}: {error}")

    def route_row(self, row: StoredRecord, consumer: Consumer) -> None:
        """Put a row that was already added to the tracker into a lane of one consumer."""
        if consumer.state != ACTIVE:
            return  # it has halted at an earlier row, and reads all of them again when it resumes
        event = decode_for(self._engine, consumer, row)
        if event is not None:
            consumer.wants(kind_of(event))  # sets ``copies_events`` if the class is mutable
            self._engine.accept(consumer, row.position, event)

    # -- again ----------------------------------------------------------------------------------------

    async def requeue(self, consumer: Consumer, positions: Sequence[int]) -> None:
        """Read positions that are unfinished in the tracker, and put their events into lanes."""
        tracker = consumer.tracker
        rows = await self._engine.background.call_with_retry(
            consumer, lambda: self._storage.read_positions(positions)
        )
        if rows is None or not consumer.is_open(tracker):
            return
        for gone in set(positions) - {row.position for row in rows}:
            consumer.pass_over(gone)
        for row in rows:
            if consumer.subscription.matcher.matches_name(row.event_type):
                self.route_row(row, consumer)
            else:
                consumer.pass_over(row.position)

    async def reload(self, lane: Lane) -> None:
        """Read back the next deliveries of a lane whose tail was left on disk."""
        consumer = lane.consumer
        tracker = consumer.tracker
        assert lane.spilled is not None
        chunk = list(lane.spilled[:_PAGE])
        rows = await self._engine.background.call_with_retry(
            consumer, lambda: self._storage.read_positions(chunk)
        )
        if rows is None or consumer.tracker is not tracker or lane.spilled is None or lane.state != LOADING:
            return
        rest = lane.spilled[_PAGE:]
        # While it is None, rows go into the lane itself, so there must be no await until it is set again.
        lane.spilled = None
        consumer.spilled -= len(chunk)
        for gone in set(chunk) - {row.position for row in rows}:
            consumer.pass_over(gone)
        for row in rows:
            self.route_row(row, consumer)
        lane.spilled = rest or None
        if lane.items:
            self._engine.make_ready(lane)
        elif lane.spilled is not None:
            await self.reload(lane)
        else:
            lane.state = IDLE


def _split_page(page: Page) -> Iterator[Page]:
    """Split a page that was read into the parts that are routed one at a time."""
    start = size = 0
    for end, row in enumerate(page.rows):
        if end > start and (end - start == _PAGE or size + len(row.payload) > _PAGE_BYTES):
            yield Page(page.rows[start:end], page.rows[end - 1].position)
            start, size = end, 0
        size += len(row.payload)
    yield Page(page.rows[start:], page.upto)


def _noop() -> None:
    """Do nothing: there is no listener to remove."""
