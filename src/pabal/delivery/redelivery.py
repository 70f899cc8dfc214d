"""Deliver dead letters again, and then, in order, what was queued behind a parked key."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from pabal.delivery.bookkeeping import Block, Failing
from pabal.delivery.consumer import ACTIVE, Consumer
from pabal.delivery.lane import IDLE, WAITING, Item, Lane
from pabal.delivery.letters_in_memory import deliver_queue
from pabal.delivery.subscription import key_text
from pabal.delivery.watermark import WatermarkTracker
from pabal.domain.envelope import decode_event
from pabal.domain.event import DomainEvent, kind_of
from pabal.errors import DecodeError
from pabal.ports.storage import DeadLetterRecord, EventStorage

if TYPE_CHECKING:
    from pabal.delivery.engine import Engine

_PAGE = 256
MOST_KEPT = 100_000
"""Dead letters and deliveries queued behind them that a log may hold; above that, subscriptions halt."""
NO_ROOM = "the limit of dead letters, or of events queued behind them, is reached (retry or discard some)"


class Redelivery:
    """Handle everything that happens to a delivery after it was parked."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.storage: EventStorage | None = None
        self._draining: set[tuple[WatermarkTracker, str]] = set()
        """Keys whose queues are being read back, each with the tracker of the opening it belongs to."""
        self._moved: dict[tuple[str, int], str] = {}
        """The key that a dead letter blocks, for one that would not block it if it were parked again: it was
        edited and now belongs to another key, or its subscription blocks keys no more."""
        self.waiting = 0
        """Deliveries queued behind parked keys in the log, counted over all subscriptions."""

    def is_full(self, consumer: Consumer) -> bool:
        """Return whether nothing more may be parked or queued; the subscription halts, dropping nothing."""
        if consumer.tracker is None:
            return self._engine.dead_letters.is_full
        return self._engine.parked + self.waiting >= MOST_KEPT

    # -- a dead letter --------------------------------------------------------------------------------

    def redeliver(self, consumer: Consumer, letter: DeadLetterRecord) -> bool:
        """Deliver a dead letter once more, with a fresh series of attempts.

        Returns False if it is parked again at once: its ordering function raises, or its bytes fit no class
        here. Also if the subscription has halted: the next opening finds that it is to be retried.
        """
        consumer.arrivals.use_lanes()
        if consumer.state != ACTIVE:
            return False
        event, record = letter.event, letter.record
        consumer.failing[letter.position] = Failing(
            0, letter.failures, self._engine.clock.monotonic(), from_dead_letter=True
        )
        try:
            if event is None:
                assert record is not None
                event = decode_event(record)
            lane = self._enter(consumer, letter.position, event, letter.key)
        except Exception as error:
            row = record if event is None else None
            self._engine.failures.reject(consumer, letter.position, event, row, error, letter.key)
            return False
        if letter.key is not None and (
            consumer.subscription.on_exhausted != "park_key"
            or lane.shared
            or key_text(lane.key) != letter.key
        ):
            self._moved[consumer.name, letter.position] = letter.key
        return True

    def done(self, consumer: Consumer, position: int) -> None:
        """Settle a dead letter whose retry succeeded."""
        if consumer.tracker is None:  # with a log, ``finish`` does both
            letter = self._engine.dead_letters.remove(consumer.name, position)
            if letter is not None:  # else it was discarded while its handler ran
                self._engine.note_parked(-1)
                # This subscription may have ended meanwhile, and another of its name have begun.
                holder = self._engine.consumers.get(consumer.name)
                if holder is not None and letter.key in holder.blocked:
                    self.release_key(holder, letter.key)
        self._release_moved(consumer, position)

    def discarded(self, consumer: Consumer, letter: DeadLetterRecord) -> None:
        """Make no further attempt at a discarded dead letter, and release the queue behind it."""
        position = letter.position
        if consumer.redelivering.get(position) == "letter":
            consumer.redelivering[position] = "discarded letter"
        failing = consumer.failing.get(position)
        if failing is not None and failing.from_dead_letter:
            failing.discarded = True  # a worker may be handling it right now
            if consumer.delayed.pop(position, None) is not None:
                self.end_discarded(consumer, position)
            for lane in consumer.all_lanes():
                place = next((place for place, item in enumerate(lane.items) if item[0] == position), None)
                if place is not None:
                    del lane.items[place]
                    lane.isolate -= place < lane.isolate
                    self.end_discarded(consumer, position)
                    if lane.state == WAITING:
                        self._engine.make_ready(lane)
                    break
        # Told late of a discard, an opening has released the queue, and another event of it may be parked.
        if letter.key in consumer.blocked and consumer.blocked[letter.key].position in (None, position):
            self.release_key(consumer, letter.key)

    def end_discarded(self, consumer: Consumer, position: int) -> None:
        """End the delivery of a discarded dead letter without an attempt."""
        self._engine.pending -= 1
        self._moved.pop((consumer.name, position), None)
        consumer.finish(position)
        if consumer.followed:
            consumer.mark_attempted(position)
        self._engine.background.notify_observers()

    def without_discarded(self, consumer: Consumer, items: list[Item]) -> list[Item]:
        """End the deliveries whose dead letter was discarded; return the others."""
        kept: list[Item] = []
        for item in items:
            failing = consumer.failing.get(item[0])
            if failing is not None and failing.discarded:
                self.end_discarded(consumer, item[0])
            else:
                kept.append(item)
        return kept

    def failed(self, consumer: Consumer, position: int) -> None:
        """Record that the retry of a dead letter failed and it was parked again."""
        consumer.failing.pop(position, None)
        if consumer.tracker is not None:
            consumer.redelivering.pop(position, None)
            consumer.queued -= 1
            consumer.unsaved.retries.pop(position, None)
        self._release_moved(consumer, position)

    def _release_moved(self, consumer: Consumer, position: int) -> None:
        key = self._moved.pop((consumer.name, position), None)
        if key in consumer.blocked:
            self.release_key(consumer, key)

    # -- a parked key ---------------------------------------------------------------------------------

    def block(self, consumer: Consumer, lane: Lane, position: int) -> None:
        """Queue everything in a lane behind the delivery at ``position``, which was just parked."""
        key = key_text(lane.key)
        consumer.blocked[key] = Block(position)
        self._engine.router.forget()  # from now on, routing has to look at this subscription's keys
        items = list(lane.items)
        lane.items.clear()
        lane.state = IDLE
        self._engine.pending -= len(items)
        for item in items:
            failing = consumer.failing.get(item[0])
            if failing is not None and failing.from_dead_letter:
                # It has no place in the queue, and no need of one: it has lost its place in the order.
                self._engine.enter(consumer, consumer.shared, *item)
            else:
                self._to_queue(consumer, key, item)
        if lane.spilled is not None:
            spilled, lane.spilled = lane.spilled, None
            consumer.spilled -= len(spilled)
            for position in spilled:
                consumer.queued += 1
                self.waiting += 1
                consumer.unsaved.queued.append((key, position))
                consumer.finish(position)
                if consumer.followed:
                    consumer.mark_attempted(position)
        self._engine.background.notify_observers()

    def queue(self, consumer: Consumer, key: str, item: Item) -> None:
        """Queue a newly routed delivery behind its parked key; halt the subscription if there is no room."""
        if self.is_full(consumer):
            self._engine.halt(consumer, f"position {item[0]}, which waits behind {key!r}: {NO_ROOM}")
            if consumer.tracker is None:
                self._engine.accept(consumer, *item)  # it has halted, so this drops and counts the event
            return
        consumer.blocked[key].queued += 1
        if consumer.tracker is not None:
            consumer.queued += 1
        self._to_queue(consumer, key, item)

    def _to_queue(self, consumer: Consumer, key: str, item: Item) -> None:
        position = item[0]
        self.waiting += consumer.tracker is not None
        if consumer.tracker is None:
            self._engine.dead_letters.queue(consumer.name, key, item)
        elif position in consumer.redelivering:
            # It came from the queue, where its row still is.
            consumer.redelivering.pop(position, None)
            consumer.queued -= 1
        else:
            consumer.unsaved.queued.append((key, position))
            consumer.finish(position)
        if consumer.followed:
            consumer.mark_attempted(position)

    def unblock(self, consumer: Consumer, lane: Lane) -> None:
        """Release the queue of a key whose parked delivery succeeded, once the key's lane is empty."""
        key = key_text(lane.key)
        if key in consumer.blocked and not lane.items:
            self.release_key(consumer, key)

    def release_key(self, consumer: Consumer, key: str) -> None:
        """Deliver what is queued behind ``key``, in order and ahead of the key's later events."""
        if consumer.tracker is None:
            consumer.arrivals.sort_into_lanes()  # events published meanwhile come after the queue
            del consumer.blocked[key]
            self._engine.router.forget()
            deliver_queue(consumer, key)
        elif (consumer.tracker, key) not in self._draining:
            self._draining.add((consumer.tracker, key))
            self._engine.background.spawn(self._drain(consumer, consumer.tracker, key))

    async def _drain(self, consumer: Consumer, tracker: WatermarkTracker, key: str) -> None:
        storage = self.storage
        assert storage is not None
        try:
            # With an eager task factory, this starts before the worker has recorded what it finished.
            await asyncio.sleep(0)
            block = consumer.blocked.get(key)
            while block is not None and consumer.blocked.get(key) is block and consumer.is_open(tracker):
                queued = block.queued
                # The key may be released twice. What is under way now may end, unsaved, before the answer.
                under_way = set(consumer.redelivering)
                await self._engine.settlement.flush()
                positions = await self._engine.background.call_with_retry(
                    consumer, lambda: storage.queued_positions(consumer.name, key, _PAGE)
                )
                if positions is None or not consumer.is_open(tracker):
                    return
                if consumer.blocked.get(key) is not block:
                    return  # one of those under way was parked, so the others wait again
                if any(position in consumer.redelivering for position in positions):
                    return  # their lane calls ``unblock`` after the last of them
                fresh = [position for position in positions if position not in under_way]
                if fresh and await self._load(consumer, tracker, key, fresh):
                    return  # so does the lane of these
                if not positions and block.queued == queued:
                    # Nothing was added in the meantime: from here on events go straight to the lane.
                    consumer.blocked.pop(key, None)
        finally:
            self._draining.discard((tracker, key))

    async def _load(
        self, consumer: Consumer, tracker: WatermarkTracker, key: str, positions: list[int]
    ) -> bool:
        """Put the queued deliveries at these positions into their lane; False if none was entered."""
        assert self.storage is not None
        storage = self.storage
        rows = await self._engine.background.call_with_retry(
            consumer, lambda: storage.read_positions(positions)
        )
        if rows is None or not consumer.is_open(tracker):
            return True
        self.waiting -= len(positions)
        consumer.redelivering.update(dict.fromkeys(positions, "queue"))
        consumer.arrivals.use_lanes()
        entered = False
        for gone in set(positions) - {row.position for row in rows}:
            consumer.pass_over(gone)
        for row in rows:
            if not consumer.is_open(tracker):
                return True  # it has halted, because a row could not be decoded
            try:
                event = decode_event(row)
            except DecodeError as error:
                self._engine.failures.reject(consumer, row.position, None, row, error)
                continue
            if not consumer.wants(kind_of(event)):
                consumer.pass_over(row.position)  # since this was queued, the subscription has been narrowed
                continue
            consumer.queued += 1
            self._engine.enter(consumer, self._lane_of_queue(consumer, key, event), row.position, event)
            entered = True
        return entered

    def _lane_of_queue(self, consumer: Consumer, key: str, event: DomainEvent) -> Lane:
        """Return the lane that reads on in the queue when it becomes empty: the lane of the queue's key.

        If ``ordering`` has changed, the events could belong to lanes of other keys, which would not read on.
        """
        try:
            lane = consumer.lane_for(event, self._engine.lanes_of(consumer, event))
        except Exception:
            return consumer.lane_of(key)
        return lane if not lane.shared and key_text(lane.key) == key else consumer.lane_of(key)

    def _enter(self, consumer: Consumer, position: int, event: DomainEvent, came_from: str | None) -> Lane:
        lane = consumer.lane_for(event, self._engine.lanes_of(consumer, event))
        if consumer.tracker is not None:
            consumer.redelivering[position] = "letter"
            consumer.queued += 1
        if self._is_held_by_another(consumer, lane, came_from):
            lane = consumer.shared  # if it succeeded in its key's lane, it would release the queue there
        self._engine.enter(consumer, lane, position, event)
        return lane

    def _is_held_by_another(self, consumer: Consumer, lane: Lane, came_from: str | None) -> bool:
        """Return whether a lane is blocked by a dead letter other than the one retried."""
        if lane.shared or lane.items or lane.state != IDLE:
            return False
        key = key_text(lane.key)
        return key != came_from and key in consumer.blocked and (consumer.tracker, key) not in self._draining
