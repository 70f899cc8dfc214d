"""How cursors, retries and dead letters are kept on the server: the way there and back."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

from pabal.domain.envelope import StoredRecord, from_microseconds
from pabal.ports.storage import AttemptFailure, Cursor, DeadLetterRecord, ParkedDelivery, PendingRetry, Replay

NEW = b"new:"
"""What a cursor begins with that no save has touched yet; its position follows."""

UNREADABLE = "(unreadable)"
"""The event type that is shown of a dead letter whose event cannot be read."""

_encode = msgspec.msgpack.Encoder().encode


class SavedCursor(msgspec.Struct, array_like=True):
    """Hold what is saved of a subscription in one partition; ``unfinished`` are steps from the watermark."""

    watermark: int
    frontier: int
    unfinished: list[int]
    updated_at: float

    def positions(self) -> tuple[int, ...]:
        """Return the unfinished positions."""
        position = self.watermark
        positions: list[int] = []
        for step in self.unfinished:
            position += step
            positions.append(position)
        return tuple(positions)


class SavedRetry(msgspec.Struct, array_like=True):
    """Hold a retry as it is kept."""

    position: int
    attempts: int
    due_at: float
    failures: tuple[AttemptFailure, ...]
    from_dead_letter: bool


class SavedLetter(msgspec.Struct, array_like=True):
    """Hold a dead letter as it is kept; its row lies beside it."""

    subscription: str
    partition: int
    position: int
    reason: str
    failures: tuple[AttemptFailure, ...]
    parked_at: float
    key: str | None


_cursors = msgspec.msgpack.Decoder(SavedCursor)
_retries = msgspec.msgpack.Decoder(SavedRetry)
_letters = msgspec.msgpack.Decoder(SavedLetter)
_rows = msgspec.msgpack.Decoder(StoredRecord)


def encode_cursor(watermark: int, frontier: int, unfinished: Sequence[int]) -> bytes:
    """Return a cursor as bytes."""
    steps: list[int] = []
    base = watermark
    for position in unfinished:
        steps.append(position - base)
        base = position
    return _encode(SavedCursor(watermark, frontier, steps, time.time()))


def decode_cursor(data: bytes) -> SavedCursor:
    """Return a cursor from bytes."""
    if data.startswith(NEW):
        position = int(data[len(NEW) :])
        return SavedCursor(position, position, [], time.time())
    return _cursors.decode(data)


def opened_cursor(name: str, number: int, opened: Sequence[Any]) -> Cursor:
    """Return what a subscription goes on with: what the script ``open`` has answered."""
    epoch, data, retries, keys, paused, moves, replays, _ = opened
    saved = decode_cursor(data)
    pending = sorted((decode_retry(one) for one in retries), key=lambda retry: retry.position)
    return Cursor(
        name=name,
        number=number,
        epoch=epoch,
        watermark=saved.watermark,
        frontier=saved.frontier,
        unfinished=saved.positions(),
        retries=tuple(pending),
        blocked_keys=tuple(sorted({key_of_queue(key.decode()) for key in keys})),
        paused=bool(paused),
        replays=replays_of(as_pairs(replays), name),
        reopenings=moves,
    )


def replays_of(stored: Mapping[bytes, bytes], name: str) -> tuple[Replay, ...]:
    """Return what a partition is to deliver again to a subscription, oldest request first."""
    prefix = f"{name}\0".encode()
    found = [
        Replay(int(at[len(prefix) :]), name, *(int(part) for part in text.split(b":")))
        for at, text in stored.items()
        if at.startswith(prefix)
    ]
    return tuple(sorted(found, key=lambda replay: replay.id))


def encode_retry(retry: PendingRetry) -> bytes:
    """Return a retry as bytes."""
    return _encode(
        SavedRetry(retry.position, retry.attempts, retry.due_at, retry.failures, retry.from_dead_letter)
    )


def decode_retry(data: bytes) -> PendingRetry:
    """Return a retry from bytes."""
    saved = _retries.decode(data)
    return PendingRetry(saved.position, saved.attempts, saved.due_at, saved.failures, saved.from_dead_letter)


def encode_letter(name: str, partition: int, parked: ParkedDelivery) -> bytes:
    """Return a dead letter as bytes."""
    key = parked.key if parked.blocks else None
    letter = SavedLetter(
        name, partition, parked.position, parked.reason, parked.failures, parked.parked_at, key
    )
    return _encode(letter)


def decode_letter(data: bytes) -> SavedLetter | None:
    """Return a dead letter from bytes, or None where that is not what they are."""
    try:
        letter = _letters.decode(data)
        datetime.fromtimestamp(letter.parked_at, UTC)
    except (msgspec.MsgspecError, ValueError, OverflowError, OSError):
        return None
    return letter


def encode_row(row: StoredRecord) -> bytes:
    """Return a row of the log as bytes."""
    return _encode(row)


def decode_row(data: bytes) -> StoredRecord:
    """Return a row of the log from bytes."""
    return _rows.decode(data)


def shown_row(data: bytes, letter: SavedLetter) -> StoredRecord:
    """Return the row of a dead letter from bytes; where that is not what they are, one that shows them."""
    try:
        row = decode_row(data)
        shown = from_microseconds(row.occurred_at), from_microseconds(row.recorded_at)
        if all(shown) and len(row.event_id) == 16:
            return row
    except (msgspec.MsgspecError, ValueError):
        pass
    moment = int(letter.parked_at * 1_000_000)
    return StoredRecord(
        letter.position,
        bytes(16),
        UNREADABLE,
        1,
        None,
        None,
        moment,
        None,
        None,
        None,
        data,
        0,
        None,
        moment,
    )


def letter_place(at: bytes) -> tuple[int, bytes, int] | None:
    """Return what a field of the index of dead letters says: partition, name, position; None for others."""
    part, _, rest = at.partition(b"\0")
    name, _, position = rest.rpartition(b"\0")
    if not (part.isdigit() and position.isdigit()):
        return None
    return int(part), name, int(position)


def shown_letter(number: int, letter: SavedLetter, row: bytes, state: bytes, queued: int) -> DeadLetterRecord:
    """Return a dead letter as others see it."""
    shown: Literal["parked", "retrying"] = "retrying" if state == b"retrying" else "parked"
    return DeadLetterRecord(
        id=number,
        subscription=letter.subscription,
        position=letter.position,
        record=shown_row(row, letter),
        event=None,
        reason=letter.reason,
        failures=letter.failures,
        parked_at=datetime.fromtimestamp(letter.parked_at, UTC),
        state=shown,
        key=letter.key,
        queued=queued,
    )


def queue_key(key: str) -> str:
    """Return a key as it stands in queues, where a NUL ends it; all but the oddest stay as they are."""
    return key.replace("\1", "\1\1").replace("\0", "\1\2")


def key_of_queue(text: str) -> str:
    """Return the key from what stands in queues."""
    return re.sub("\1([\1\2])", lambda found: "\1" if found[1] == "\1" else "\0", text)


def field(name: str, position: int | str) -> str:
    """Return the name of a field that belongs to a subscription's position."""
    return f"{name}\0{position}"


def as_pairs(flat: Sequence[Any]) -> dict[bytes, bytes]:
    """Return a hash as the server answers it as a dict."""
    return dict(zip(flat[::2], flat[1::2], strict=True))
