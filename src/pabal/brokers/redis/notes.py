"""Count attempts in which processes die: after a death, attempts on suspect events are noted beforehand.

Noting every attempt on the server would cost one call per event. So nothing is noted until a process has
died. The events it had not finished are suspect. The process that takes its partitions notes attempts on
these events, and only these, one by one, on a connection that requests no answers. The kernel has the bytes
before the handler begins, so they reach the server even if the process dies at once. If it does, the next
owner finds the notes and counts these attempts as failed.
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
    entries_of,
    field,
)
from pabal.brokers.redis.keys import GroupKeys
from pabal.brokers.redis.link import pack
from pabal.brokers.redis.log import RedisLog
from pabal.ports.storage import DIED_AMONG_OTHERS, PROCESS_DIED, AttemptFailure, PendingRetry

_log = logging.getLogger("pabal")


class Note(msgspec.Struct, array_like=True):
    """An attempt under way: positions ``first`` to ``last`` of one partition, at one subscription."""

    partition: int
    subscription: int
    first: int
    last: int
    attempt: int


_decode = msgspec.msgpack.Decoder(Note).decode
_encode = msgspec.msgpack.Encoder().encode


class NoteConnection:
    """The connection on which a process sends notes without answers; ``open`` connects it when needed."""

    def __init__(self, url: str, key: str, member: str) -> None:
        self._pool = ConnectionPool.from_url(
            for_client(url), protocol=2, socket_timeout=5.0, client_name="pabal-notes"
        )
        self._key = key
        self._member = member
        self._connection: Any = None
        self.is_broken = False
        """Whether the connection broke when a note was sent; the coordinator then opens it again."""

    async def open(self) -> None:
        """Connect, if not connected. If that fails, nothing is noted, but everything else goes on."""
        if self._connection is None:
            try:
                self._connection = await asyncio.to_thread(self._connect)
            except (RedisError, OSError) as error:
                _log.warning("attempts on suspect events cannot be recorded: %s", error)
            else:
                self.is_broken = False

    def _connect(self) -> Any:
        connection: Any = self._pool.make_connection()
        connection.connect()
        connection.send_command("CLIENT", "REPLY", "OFF")
        return connection

    def write(self, slot: int, note: Note) -> None:
        """Send the note of an attempt that a worker (``slot``) begins."""
        self._send(pack(("HSET", self._key, f"{self._member}\0{slot}", _encode(note))))

    def erase(self, slot: int) -> None:
        """Delete the note of a worker's attempt, which is over."""
        self._send(pack(("HDEL", self._key, f"{self._member}\0{slot}")))

    def _send(self, data: bytes) -> None:
        connection = self._connection
        if connection is None:
            return
        try:
            connection.send_packed_command([data], check_health=False)
        except (RedisError, OSError) as error:
            _log.warning("attempts on suspect events cannot be recorded for now: %s", error)
            self.close()
            self.is_broken = True

    def close(self) -> None:
        """Disconnect."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.disconnect()


class SuspectJournal:
    """Note attempts on events of one partition that a dead process may not have finished: up to ``upto``."""

    def __init__(self, note_connection: NoteConnection, partition: int, upto: int) -> None:
        self._note_connection = note_connection
        self._partition = partition
        self._upto = upto
        self._noted: set[int] = set()

    def begin(self, slot: int, subscription: int, first: int, last: int, attempt: int) -> None:
        """Note that ``slot`` starts an attempt on positions ``first`` to ``last``, if they are suspect."""
        if first <= self._upto:
            self._noted.add(slot)
            self._note_connection.write(slot, Note(self._partition, subscription, first, last, attempt))

    def reserve(self, slots: int) -> int:
        """Return 0: slots are the numbers of the process's workers, and need no space reserved."""
        return 0

    def end(self, slot: int) -> None:
        """Delete the note of the slot's attempt, which is over."""
        if slot in self._noted:
            self._noted.discard(slot)
            self._note_connection.erase(slot)


def _note_of(data: bytes) -> Note | None:
    try:
        return _decode(data)
    except msgspec.MsgspecError:  # what keeps a partition from being taken would keep it from everybody
        _log.warning("a record of an attempt cannot be read and is not counted")
        return None


async def deaths_in(log: RedisLog, keys: GroupKeys, partition: int, dead: str) -> list[str | bytes]:
    """Return retries that count the noted attempts of a dead process in a partition as failed.

    They are fields and values for the script ``take``, which writes them in the same step in which it takes
    the partition. If the new owner wrote them separately and died in between, nobody would count these
    attempts: the next process would look for notes of the new owner, not of the first one.
    """
    call = log.link.call
    noted = as_pairs(await call("HGETALL", keys.notes))
    notes = [note for data in entries_of(noted, dead).values() if (note := _note_of(data))]
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
            continue  # the delivery was finished, and its progress was saved
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
    """Delete the notes of a dead process; all its partitions have other owners by now."""
    prefix = f"{member}\0".encode()
    for at in await log.link.call("HKEYS", keys.notes):
        if at.startswith(prefix):
            await log.link.call("HDEL", keys.notes, at)
