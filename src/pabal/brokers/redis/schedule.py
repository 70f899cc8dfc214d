"""Scheduled events: stored on the server until they are due and some process appends them to the log."""

from __future__ import annotations

import asyncio
import logging
from functools import partial

import msgspec

from pabal.brokers.redis.cursors import decode_row, encode_row
from pabal.brokers.redis.log import RedisLog
from pabal.brokers.redis.wire import Known, fingerprint, id_field
from pabal.domain.envelope import EventRecord, StoredRecord, decode_event, id_to_text
from pabal.domain.event import DomainEvent
from pabal.errors import DecodeError, DuplicateEventError
from pabal.ports.arguments import check_time

_log = logging.getLogger("pabal")
_AT_ONCE = 100
_UNKNOWN = DomainEvent()


class Schedule:
    """Store events until they are due; an event that two processes release enters the log only once."""

    def __init__(self, log: RedisLog, partition: int | None = None) -> None:
        self._log = log
        self._partition = partition

    async def add(self, event: DomainEvent, due_at: float) -> None:
        """Store an event; while the server is away, wait or fail as an append does.

        Raises BrokerUnavailableError, UsageError for an invalid time, and DuplicateEventError if its id is in
        use for other content.
        """
        check_time(due_at)
        record = self._log.encoded(event)
        partition = self._partition
        if partition is None:
            partition = self._log.partitions_of([event], [record])[0]
        await self._log.insist(partial(self._keep, event, record, partition, due_at))

    async def _keep(self, event: DomainEvent, record: EventRecord, partition: int, due_at: float) -> None:
        refusal = self._log.refusal()
        if refusal is not None:
            raise refusal
        if await self._stored_at(partition, record):
            return
        call, keys = self._log.link.call, self._log.keys
        row = encode_row(StoredRecord(partition, *record, None, 0))
        # All in one iteration of the event loop, so that no other command gets into the transaction.
        calls = [
            call("MULTI"),
            call("HSETNX", keys.scheduled, record.event_id, row),
            call("ZADD", keys.schedule, "NX", due_at, record.event_id),
            call("HGET", keys.scheduled, record.event_id),
            call("EXEC"),
        ]
        known = [await one for one in calls][-1][-1]
        if fingerprint(_record(decode_row(known))) != fingerprint(record):
            raise DuplicateEventError(event_id=event.event_id, position=0)

    async def _stored_at(self, partition: int, record: EventRecord) -> int:
        """Return the position at which an event is already stored in the log, or 0."""
        for key in self._log.keys.append_keys(partition)[2:]:
            value = await self._log.link.call("HGET", key, id_field(record.event_id))
            known = Known.find(record.event_id, value)
            if known is not None:
                if known.fingerprint != fingerprint(record):
                    raise DuplicateEventError(event_id=id_to_text(record.event_id), position=known.position)
                return known.position
        return 0

    async def release(self, now: float) -> float | None:
        """Append all scheduled events that are due; return when the next one is due, or None."""
        call, keys = self._log.link.call, self._log.keys
        while True:
            due = await call("ZRANGEBYSCORE", keys.schedule, "-inf", now, "LIMIT", 0, _AT_ONCE)
            if not due:
                break
            rows = await call("HMGET", keys.scheduled, *due)
            kept = [
                (event_id, None if data is None else self._row_of(event_id, data))
                for event_id, data in zip(due, rows, strict=True)
            ]
            # Concurrently, so that they are appended together, in the order in which they are due.
            entering = [self._enter(row) for _, row in kept if row is not None]
            for error in await asyncio.gather(*entering, return_exceptions=True):
                if error is not None:
                    raise error
            # Delete them only after the append. If that fails in between, they are appended again, and the
            # server recognizes them by their ids.
            entered = [event_id for event_id, row in kept if row is not None]
            if entered:
                await call("HDEL", keys.scheduled, *entered)
            await call("ZREM", keys.schedule, *due)
        following = await call("ZRANGE", keys.schedule, 0, 0, "WITHSCORES")
        return float(following[1]) if following else None

    def _row_of(self, event_id: bytes, data: bytes) -> StoredRecord | None:
        """Decode a scheduled event; None if it is damaged or foreign: it must not hold back the others."""
        try:
            row = decode_row(data)
        except msgspec.MsgspecError as error:
            why = str(error)
        else:
            if 0 <= row.position < self._log.partitions:
                return row
            why = f"there is no partition {row.position}"
        _log.error(
            "a scheduled event is not released (%s); its bytes are kept in %s under %r",
            why,
            self._log.keys.scheduled,
            event_id,
        )
        return None

    async def _enter(self, row: StoredRecord) -> None:
        record = _record(row)
        try:
            event = decode_event(row)
        except DecodeError:
            event = _UNKNOWN  # this process lacks the event's class, but others may have it
        try:
            await self._log.append_records([event], [record], row.position)
        except DuplicateEventError as error:
            _log.error("a scheduled event is dropped: another one was published with its id: %s", error)


def _record(row: StoredRecord) -> EventRecord:
    return EventRecord._make(row[1:12])
