"""The log on the server: append events to its partitions by group commit, and read them."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

from pabal.brokers.redis.keys import LogKeys
from pabal.brokers.redis.link import Call, Link
from pabal.brokers.redis.scripts import script
from pabal.brokers.redis.units import Flush, Unit, reject_conflicts
from pabal.brokers.redis.wire import (
    Entry,
    PartitionKey,
    aggregate_key,
    aggregate_partitions,
    decode_entry,
    partition_of,
)
from pabal.delivery.shutdown import end_tasks, is_dead
from pabal.delivery.turns import encode_all
from pabal.domain.envelope import EventRecord, encode_event
from pabal.domain.event import DomainEvent
from pabal.errors import (
    BrokerUnavailableError,
    PabalError,
    PartitionCountError,
    StorageClosedError,
    UsageError,
)

DEFAULT_PARTITIONS = 16
_MOST_EVENTS = 2048
"""The most events in one flush (one call that appends), over all partitions."""
_MOST_BYTES = 4 << 20
_PAUSE = 0.05
"""Seconds before an append that failed is sent again."""
_GENERATION = 20_000
"""The least number of event ids that a partition remembers; the most is twice as many."""

Appended = Callable[[int, int, tuple[DomainEvent, ...]], None]


class RedisLog:
    """Append to the partitions of one log, and read them.

    All events waiting when the server answers are sent together, as one stream entry per partition: a single
    publisher makes entries of one event, a hundred publishers make entries of many. An append whose outcome
    is unknown is sent again; this is harmless, because the server remembers the last ids of each partition.
    """

    def __init__(
        self,
        url: str,
        *,
        namespace: str = "pabal",
        partitions: int | None = None,
        partition_key: PartitionKey = aggregate_key,
        max_payload_bytes: int = 1 << 20,
        patience: float = 30.0,
        when_disconnected: str = "wait",
        answer_within: float = 10.0,
    ) -> None:
        self.keys = LogKeys(namespace)
        self.link = Link(
            url,
            patience=patience,
            answer_within=answer_within,
            on_connect=self._join,
            on_loss=self._connection_lost,
        )
        self.path = self.link.address
        self.max_payload_bytes = max_payload_bytes
        self.partitions = 0
        """Number of partitions of the log; 0 until it is open."""
        self.incarnation = -1
        self.token = ""
        self.run = ""
        self._wanted_partitions = partitions or 0
        self._partition_key = partition_key
        self._patience = patience
        self._fail_at_once = when_disconnected == "fail"
        self._queue: deque[Unit] = deque()
        self._append_task: asyncio.Task[None] | None = None
        self._blockers: set[asyncio.Future[Any]] = set()
        self.on_appended: Appended | None = None
        self.on_raised: Callable[[], None] | None = None
        """Called after joining another incarnation of the log than the last one (see ``join.lua``)."""
        self.on_loss: Callable[[Exception], None] | None = None

    # -- life -----------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Connect, and create or join the log. Raises BrokerUnavailableError, PartitionCountError."""
        await self.link.open()

    def begin(self) -> None:
        """Begin to connect, without waiting; calls wait for the connection."""
        self.link.begin()

    async def close(self, within: float | None = None) -> None:
        """Finish accepted appends, if the server answers within ``within`` seconds, and disconnect."""
        task = self._append_task
        if task is not None:
            if self.link.is_connected and not is_dead(task):
                await asyncio.wait([task], timeout=within)
            await end_tasks(task)
            self._append_task = None
        self._refuse(StorageClosedError(path=self.path, reason="closed"))
        await self.link.close()

    async def _join(self, call: Call) -> None:
        """Join the log on a new connection, so that no position is assigned a second time."""
        info = await call("INFO", "server")
        self.run = next(line[7:] for line in info.decode().splitlines() if line.startswith("run_id:"))
        keys = (self.keys.meta, *(self.keys.part(number) for number in range(max(self.partitions, 1))))
        what, count, incarnation, token = await call(
            "EVAL",
            script("join").text,
            len(keys),
            *keys,
            self._wanted_partitions or self.partitions,
            self.run,
            uuid.uuid4().hex,
            self.incarnation,
            self.token,
            self.partitions or self._wanted_partitions or DEFAULT_PARTITIONS,
            self.keys.parts,
        )
        if what == b"mismatch":
            raise PartitionCountError(
                path=self.path, found=count, wanted=self._wanted_partitions or self.partitions
            )
        raised = self.incarnation >= 0 and token.decode() != self.token
        self.partitions, self.incarnation, self.token = count, incarnation, token.decode()
        if raised and self.on_raised is not None:
            self.on_raised()

    async def rejoin(self) -> None:
        """Join again, after the log on the server turned out to be another one."""
        await self._join(self.link.call)

    def _connection_lost(self, error: Exception) -> None:
        if self._fail_at_once:
            self._refuse(error)
        if self.on_loss is not None:
            self.on_loss(error)

    # -- appending ------------------------------------------------------------------------------------

    def append(
        self, events: Sequence[DomainEvent], partition: int | None = None
    ) -> asyncio.Future[list[int]]:
        """Append events, all or none; the future gets each event's position in its partition.

        Raises InvalidEventError at once, DuplicateEventError and BrokerError through the future.
        """
        return self.append_records(events, [self.encoded(event) for event in events], partition)

    async def append_to_all(self, events: Sequence[DomainEvent]) -> list[tuple[int, int]]:
        """Append events to their partitions, all or none; return each event's partition and position."""
        records = await encode_all(events, self.encoded)
        parts = self.partitions_of(events, records)
        positions = await self._enqueue(events, records, parts)
        return list(zip(parts, positions, strict=True))

    def encoded(self, event: DomainEvent) -> EventRecord:
        """Encode an event, without a checksum: the entry has one. Raises InvalidEventError."""
        return encode_event(event, self.max_payload_bytes, checksummed=False)

    def append_records(
        self, events: Sequence[DomainEvent], records: list[EventRecord], partition: int | None = None
    ) -> asyncio.Future[list[int]]:
        """Append encoded events, all or none, to ``partition`` or to where each belongs."""
        parts = self.partitions_of(events, records) if partition is None else [partition] * len(records)
        return self._enqueue(events, records, parts)

    def _enqueue(
        self, events: Sequence[DomainEvent], records: list[EventRecord], parts: list[int]
    ) -> asyncio.Future[list[int]]:
        unit = Unit(events, records, parts)
        refusal = self.refusal()
        if refusal is not None:
            unit.future.set_exception(refusal)
        elif not records:
            unit.future.set_result([])
        else:
            self._queue.append(unit)
            if self._append_task is None:
                self._append_task = asyncio.create_task(self._run(), name="pabal-redis-append")
        return unit.future

    def refusal(self) -> Exception | None:
        """Return the error to raise now, if disconnected and ``when_disconnected="fail"``, else None."""
        if not self._fail_at_once or self.link.is_connected:
            return None
        return self.link.trouble or BrokerUnavailableError(path=self.path, reason="not connected")

    def _gives_up(self, since: float) -> bool:
        """Return whether an append begun at ``since`` (monotonic) should fail rather than be tried again."""
        return self._fail_at_once or time.monotonic() - since > self._patience

    async def insist(self, work: Callable[[], Awaitable[Any]]) -> None:
        """Do some work; while the server is away, begin it again or fail as an append does."""
        since = time.monotonic()
        while True:
            try:
                await work()
            except BrokerUnavailableError:
                if self._gives_up(since):
                    raise
                await asyncio.sleep(_PAUSE)
            else:
                return

    def partitions_of(self, events: Sequence[DomainEvent], records: Sequence[EventRecord]) -> list[int]:
        """Return each event's partition. Raises UsageError if a key is neither valid text nor None."""
        if self._partition_key is aggregate_key:
            try:
                return aggregate_partitions(records, self.partitions)
            except UnicodeEncodeError:
                pass  # below, the error names the key
        return [self._partition_by_key(*pair) for pair in zip(events, records, strict=True)]

    def _partition_by_key(self, event: DomainEvent, record: EventRecord) -> int:
        key = self._partition_key(event)
        try:
            return partition_of(key, record.event_id, self.partitions)
        except (AttributeError, TypeError, UnicodeEncodeError):
            raise UsageError(
                f"partition_key returned {key!r}; it must return text without lone surrogates, or None"
            ) from None

    def receipt_positions(self, places: Iterable[tuple[int, int]]) -> list[int]:
        """Return a number for each place (partition and position), unique in the whole log, for receipts."""
        partitions = self.partitions
        return [position * partitions + partition for partition, position in places]

    def place_of(self, receipt_position: int) -> tuple[int, int]:
        """Return the partition and position that a number of ``receipt_positions`` stands for."""
        position, partition = divmod(receipt_position, self.partitions)
        return partition, position

    def hold_appends_for(self, work: Awaitable[Any]) -> asyncio.Future[Any]:
        """Make appends from now on wait until ``work`` is done; return its future."""
        blocker = asyncio.ensure_future(work)
        self._blockers.add(blocker)
        blocker.add_done_callback(self._blockers.discard)
        return blocker

    async def _run(self) -> None:
        try:
            while self._queue:
                if self._blockers:
                    await asyncio.wait(set(self._blockers))
                units = self._take()
                try:
                    await self._flush(units)
                except BaseException as error:
                    for unit in units:
                        unit.fail(self._to_pabal_error(error))
                    if not isinstance(error, Exception):
                        raise
        finally:
            self._append_task = None

    def _to_pabal_error(self, error: BaseException) -> BaseException:
        if isinstance(error, PabalError):
            return error
        return BrokerUnavailableError(path=self.path, reason=f"the append was interrupted: {error!r}")

    def _take(self) -> list[Unit]:
        units: list[Unit] = []
        events = size = 0
        while self._queue and (not units or (events < _MOST_EVENTS and size < _MOST_BYTES)):
            unit = self._queue.popleft()
            if unit.future.cancelled():
                continue
            units.append(unit)
            events += len(unit.records)
            size += unit.size
        return units

    async def _flush(self, units: list[Unit]) -> None:
        """Send units until each one is stored, already stored, or failed."""
        units = reject_conflicts(units)
        while units:
            try:
                units = await self._attempt(units)
            except BrokerUnavailableError:
                if self._gives_up(units[0].since):
                    raise
                await asyncio.sleep(_PAUSE)

    async def _attempt(self, units: list[Unit]) -> list[Unit]:
        """Make one call for all events without a position yet; return the units to send again."""
        flush = Flush(units)
        if flush.batches:
            keys, arguments = flush.build_arguments(self.keys)
            answer = await self.link.run(
                script("append"), (self.keys.meta, *keys), self.token, _GENERATION, *arguments
            )
            if answer[0] == -1:
                await self.rejoin()
                return units
            if answer[0] == 0:
                return flush.note_known(answer)
            for partition, first, events in flush.note_stored(answer):
                if self.on_appended is not None:
                    self.on_appended(partition, first, events)
        for unit in units:
            if not unit.future.done():
                unit.future.set_result([position or 0 for position in unit.positions])
        return []

    def _refuse(self, error: Exception) -> None:
        queue, self._queue = self._queue, deque()
        for unit in queue:
            unit.fail(error)

    # -- reading --------------------------------------------------------------------------------------

    async def read_entries(self, partition: int, after: int, limit: int) -> list[Entry]:
        """Read up to ``limit`` entries that hold positions above ``after``."""
        key = self.keys.log(partition)
        found = await self.link.call("XRANGE", key, f"{after + 1}-0", "+", "COUNT", limit)
        return [decode_entry(entry_id, fields, self.path) for entry_id, fields in found]

    async def heads(self, partitions: Iterable[int]) -> list[int]:
        """Return the highest position of each partition."""
        calls = [self.link.call("HGET", self.keys.part(number), "head") for number in partitions]
        return [int(await call or 0) for call in calls]
