"""Encode and decode cursors, retries and dead letters as they are stored on the server."""

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
"""The prefix of a cursor that no save has written yet; its position follows."""

UNREADABLE = "(unreadable)"
"""The event type shown for a dead letter whose event cannot be decoded."""

_encode = msgspec.msgpack.Encoder().encode


class SavedCursor(msgspec.Struct, array_like=True):
    """A subscription's cursor in one partition; ``unfinished`` holds steps, the first from the watermark."""

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
    """A retry as it is stored."""

    position: int
    attempts: int
    due_at: float
    failures: tuple[AttemptFailure, ...]
    from_dead_letter: bool


class SavedLetter(msgspec.Struct, array_like=True):
    """A dead letter as it is stored; its row (the event) is stored separately."""

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
    """Encode a cursor, with the current time."""
    steps: list[int] = []
    base = watermark
    for position in unfinished:
        steps.append(position - base)
        base = position
    return _encode(SavedCursor(watermark, frontier, steps, time.time()))


def decode_cursor(data: bytes) -> SavedCursor:
    """Decode a cursor, saved or new."""
    if data.startswith(NEW):
        position = int(data[len(NEW) :])
        return SavedCursor(position, position, [], time.time())
    return _cursors.decode(data)


def opened_cursor(name: str, number: int, opened: Sequence[Any]) -> Cursor:
    """Decode the answer of the script ``open``: the state with which a subscription continues."""
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


def entries_of(stored: Mapping[bytes, bytes], name: str) -> dict[bytes, bytes]:
    """Return what a hash holds under ``field(name, …)``, by the rest of its field."""
    prefix = field(name, "").encode()
    return {at[len(prefix) :]: data for at, data in stored.items() if at.startswith(prefix)}


def replays_of(stored: Mapping[bytes, bytes], name: str) -> tuple[Replay, ...]:
    """Return a subscription's replays among all of a partition, oldest request first."""
    found = [
        Replay(int(number), name, *(int(part) for part in text.split(b":")))
        for number, text in entries_of(stored, name).items()
    ]
    return tuple(sorted(found, key=lambda replay: replay.id))


def encode_retry(retry: PendingRetry) -> bytes:
    """Encode a retry."""
    return _encode(
        SavedRetry(retry.position, retry.attempts, retry.due_at, retry.failures, retry.from_dead_letter)
    )


def decode_retry(data: bytes) -> PendingRetry:
    """Decode a retry."""
    saved = _retries.decode(data)
    return PendingRetry(saved.position, saved.attempts, saved.due_at, saved.failures, saved.from_dead_letter)


def encode_letter(name: str, partition: int, parked: ParkedDelivery) -> bytes:
    """Encode a dead letter."""
    key = parked.key if parked.blocks else None
    letter = SavedLetter(
        name, partition, parked.position, parked.reason, parked.failures, parked.parked_at, key
    )
    return _encode(letter)


def decode_letter(data: bytes) -> SavedLetter | None:
    """Decode a dead letter; None if the bytes are not one."""
    try:
        letter = _letters.decode(data)
        datetime.fromtimestamp(letter.parked_at, UTC)
    except (msgspec.MsgspecError, ValueError, OverflowError, OSError):
        return None
    return letter


def encode_row(row: StoredRecord) -> bytes:
    """Encode a row of the log."""
    return _encode(row)


def decode_row(data: bytes) -> StoredRecord:
    """Decode a row of the log."""
    return _rows.decode(data)


def shown_row(data: bytes, letter: SavedLetter) -> StoredRecord:
    """Decode the row of a dead letter; if the bytes are not one, return a substitute that shows them."""
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
    """Parse a field of the index of dead letters into partition, name and position; None if it is invalid."""
    part, _, rest = at.partition(b"\0")
    name, _, position = rest.rpartition(b"\0")
    if not (part.isdigit() and position.isdigit()):
        return None
    return int(part), name, int(position)


def shown_letter(number: int, letter: SavedLetter, row: bytes, state: bytes, queued: int) -> DeadLetterRecord:
    """Return a dead letter as the API shows it."""
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
    """Escape an ordering key for use in queues, where NUL ends it; only NUL and U+0001 change."""
    return key.replace("\1", "\1\1").replace("\0", "\1\2")


def key_of_queue(text: str) -> str:
    """Return the ordering key that ``queue_key`` escaped."""
    return re.sub("\1([\1\2])", lambda found: "\1" if found[1] == "\1" else "\0", text)


def field(name: str, position: int | str) -> str:
    """Return the hash field for a subscription's position (or other suffix)."""
    return f"{name}\0{position}"


def as_pairs(flat: Sequence[Any]) -> dict[bytes, bytes]:
    """Return a hash, which the server answers as a flat list, as a dict."""
    return dict(zip(flat[::2], flat[1::2], strict=True))
