"""Count attempts that processes die in: after a death, each suspect is noted before its handler runs.

Noting every attempt on the server would cost each event a call. So nothing is noted until a process has died.
What it had not finished is suspect, and whoever takes its partitions notes those attempts, and only those,
one by one, on a connection that wants no answers: the bytes are in the kernel's hands before the handler
begins, and reach the server though the process dies that very moment. The next owner counts what it finds.
"""

from __future__ import annotations

import asyncio
import logging
import time
from datetime import UTC, datetime
from typing import Any

import msgspec
from redis import ConnectionPool
from redis.exceptions import RedisError

from pabal.brokers.redis.address import for_client
from pabal.brokers.redis.cursors import (
    as_pairs,
    decode_cursor,
    decode_retry,
    encode_retry,
    field,
)
from pabal.brokers.redis.keys import GroupKeys
from pabal.brokers.redis.link import pack
from pabal.brokers.redis.log import RedisLog
from pabal.ports.storage import DIED_AMONG_OTHERS, PROCESS_DIED, AttemptFailure, PendingRetry

_log = logging.getLogger("pabal")


class Note(msgspec.Struct, array_like=True):
    """Name the deliveries of one attempt that is under way."""

    partition: int
    subscription: int
    first: int
    last: int
    attempt: int


_decode = msgspec.msgpack.Decoder(Note).decode
_encode = msgspec.msgpack.Encoder().encode


class NoteLine:
    """Send notes without waiting for answers. One for a process; connects when it is needed first."""

    def __init__(self, url: str, key: str, member: str) -> None:
        self._pool = ConnectionPool.from_url(
            for_client(url), protocol=2, socket_timeout=5.0, client_name="pabal-notes"
        )
        self._key = key
        self._member = member
        self._connection: Any = None
        self.is_broken = False
        """It was connected, and a note could not be sent."""

    async def open(self) -> None:
        """Connect, unless that was done; without a connection nothing is noted, and all else goes on."""
        if self._connection is None:
            try:
                self._connection = await asyncio.to_thread(self._connect)
            except (RedisError, OSError) as error:
                _log.warning("attempts on suspect events cannot be noted: %s", error)
            else:
                self.is_broken = False

    def _connect(self) -> Any:
        connection: Any = self._pool.make_connection()
        connection.connect()
        connection.send_command("CLIENT", "REPLY", "OFF")
        return connection

    def write(self, slot: int, note: Note) -> None:
        """Note an attempt that a worker begins."""
        self._send(pack(("HSET", self._key, f"{self._member}\0{slot}", _encode(note))))

    def erase(self, slot: int) -> None:
        """Forget a worker's attempt, which is over."""
        self._send(pack(("HDEL", self._key, f"{self._member}\0{slot}")))

    def _send(self, data: bytes) -> None:
        connection = self._connection
        if connection is None:
            return
        try:
            connection.send_packed_command([data], check_health=False)
        except (RedisError, OSError) as error:
            _log.warning("attempts on suspect events cannot be noted until the next look: %s", error)
            self.close()
            self.is_broken = True

    def close(self) -> None:
        """Disconnect."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.disconnect()


class SuspectJournal:
    """Note attempts on what a dead process left behind in one partition: positions up to ``upto``."""

    def __init__(self, line: NoteLine, partition: int, upto: int) -> None:
        self._line = line
        self._partition = partition
        self._upto = upto
        self._noted: set[int] = set()

    def begin(self, slot: int, subscription: int, first: int, last: int, attempt: int) -> None:
        """Note that ``slot`` starts an attempt on ``first`` … ``last``."""
        if first <= self._upto:
            self._noted.add(slot)
            self._line.write(slot, Note(self._partition, subscription, first, last, attempt))

    def reserve(self, slots: int) -> int:
        """Return 0: slots are those of the process's workers."""
        return 0

    def end(self, slot: int) -> None:
        """Note that the slot's attempt is over."""
        if slot in self._noted:
            self._noted.discard(slot)
            self._line.erase(slot)


def _note_of(data: bytes) -> Note | None:
    try:
        return _decode(data)
    except msgspec.MsgspecError:  # what keeps a partition from being taken would keep it from everybody
        _log.warning("a note of an attempt cannot be read, and is not counted")
        return None


async def deaths_in(log: RedisLog, keys: GroupKeys, partition: int, dead: str) -> list[str | bytes]:
    """Return the retries of a partition, field by field, in which a dead process's attempts have failed.

    They are written in the one step in which the partition is taken: whoever dies, or is cut off, between
    the two would leave attempts that nobody counts, for it is from him that the next one takes it.
    """
    call = log.link.call
    prefix = f"{dead}\0".encode()
    noted = as_pairs(await call("HGETALL", keys.notes))
    notes = [note for at, data in noted.items() if at.startswith(prefix) and (note := _note_of(data))]
    retries: list[str | bytes] = []
    if not any(note.partition == partition for note in notes):
        return retries
    names = {int(number): name for name, number in as_pairs(await call("HGETALL", keys.names)).items()}
    of = keys.of(partition)
    for note in notes:
        name = names.get(note.subscription)
        if note.partition != partition or name is None:
            continue
        saved = await call("HGET", of.cursors, name)
        at = field(name.decode(), note.first)
        known = await call("HGET", of.retries, at)
        cursor = decode_cursor(saved) if saved else None
        if cursor is None or (
            known is None and note.first <= cursor.frontier and note.first not in cursor.positions()
        ):
            continue  # it was finished, and that was saved
        earlier = decode_retry(known) if known else PendingRetry(note.first, 0, 0.0)
        if earlier.attempts >= note.attempt:
            continue
        died = AttemptFailure(
            note.attempt,
            datetime.now(UTC),
            PROCESS_DIED if len(notes) == 1 else DIED_AMONG_OTHERS,
            f"the process {dead} ended while the handler ran",
            "",
        )
        retry = PendingRetry(
            note.first,
            note.attempt,
            time.time(),
            (*earlier.failures, died),
            earlier.from_dead_letter,
        )
        retries += (at, encode_retry(retry))
    return retries


async def forget_notes(log: RedisLog, keys: GroupKeys, member: str) -> None:
    """Remove the notes of a process whose partitions all have other owners by now."""
    prefix = f"{member}\0".encode()
    for at in await log.link.call("HKEYS", keys.notes):
        if at.startswith(prefix):
            await log.link.call("HDEL", keys.notes, at)
