"""The wire format: one stream entry holds several events, and its id says at which positions.

The entry id is ``LAST-COUNT``: the position of its last event, and how many events it holds.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple
from zlib import crc32

import msgspec

from pabal.domain.envelope import EventRecord, StoredRecord
from pabal.domain.event import DomainEvent
from pabal.errors import CorruptLogError

PartitionKey = Callable[[DomainEvent], str | None]

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[EventRecord]).decode
_u32 = struct.Struct("<I")
_known = struct.Struct("<IId")
_header = struct.Struct("<Hd")
_mark = struct.Struct("<BII")


class Entry(NamedTuple):
    """A decoded stream entry: the rows at positions ``first`` to ``last``."""

    first: int
    last: int
    rows: tuple[StoredRecord, ...]


class Known(NamedTuple):
    """What the server remembers of an event id: the event's position, and a fingerprint of its content."""

    position: int
    fingerprint: int

    @classmethod
    def of(cls, value: bytes) -> Known:
        """Decode an answer: fingerprint, number of later events in the entry, the entry's last position."""
        crc, behind, last = _known.unpack(value)
        return cls(int(last) - behind, crc)

    @classmethod
    def find(cls, event_id: bytes, value: bytes | None) -> Known | None:
        """Return what the value of an id's ``id_field`` says of it, if anything (see ``append.lua``)."""
        place = 0
        while value is not None and place < len(value):
            size, last = _header.unpack_from(value, place)
            place += _header.size
            after = place + size * _mark.size
            for tail, crc, behind in _mark.iter_unpack(value[place:after]):
                if tail == event_id[15]:
                    return cls(int(last) - behind, crc)
            place = after
        return None


def id_field(event_id: bytes) -> bytes:
    """Return the field under which the server remembers an event id, with others that begin like it."""
    return event_id[:15]


@lru_cache(maxsize=16_384)
def _crc(text: str) -> int:
    """Return the CRC-32 of a text; cached, because the same aggregates recur."""
    return crc32(text.encode())


def fingerprint(record: EventRecord) -> int:
    """Return a 32-bit hash of an event's content; two contents have the same in one case of 2^32."""
    return crc32(record.payload, _crc_of_source(record.event_type, record.aggregate_id))


@lru_cache(maxsize=16_384)
def _crc_of_source(event_type: str, aggregate_id: str | None) -> int:
    return crc32(f"{event_type}\0{aggregate_id}\0".encode())


def partition_of(key: str | None, event_id: bytes, partitions: int) -> int:
    """Return the partition of a key; events without a key are spread by their id.

    This function is part of the format: all processes that publish to a log must compute the same.
    """
    return (crc32(event_id) if key is None else _crc(key)) % partitions


def aggregate_key(event: DomainEvent) -> str | None:
    """Return the default ordering key: aggregate type and id; None for an event of no aggregate."""
    aggregate_id = event.aggregate_id
    return None if aggregate_id is None else _aggregate_text(event.aggregate_type, aggregate_id)


def _aggregate_text(aggregate_type: str | None, aggregate_id: str) -> str:
    return f"{aggregate_type}/{aggregate_id}"


def aggregate_partitions(records: Iterable[EventRecord], partitions: int) -> list[int]:
    """Return the partitions of events by their ``aggregate_key``, in a third of the time of one by one.

    Raises UnicodeEncodeError for an aggregate id with a lone surrogate.
    """
    return [
        (
            crc32(record.event_id)
            if record.aggregate_id is None
            else _crc_of_aggregate(record.aggregate_type, record.aggregate_id)
        )
        % partitions
        for record in records
    ]


@lru_cache(maxsize=16_384)
def _crc_of_aggregate(aggregate_type: str | None, aggregate_id: str) -> int:
    return crc32(_aggregate_text(aggregate_type, aggregate_id).encode())


def encode_entry(records: Sequence[EventRecord]) -> bytes:
    """Encode the events of one entry, with a checksum in front."""
    body = _encode(records)
    return _u32.pack(crc32(body)) + body


def decode_entry(entry_id: bytes, fields: Sequence[bytes], path: str) -> Entry:
    """Decode an entry. Raises CorruptLogError unless it is exactly what was written."""
    last, count = (int(part) for part in entry_id.split(b"-"))
    first = last - count + 1
    values = dict(zip(fields[::2], fields[1::2], strict=True))
    data = values.get(b"e", b"")
    if len(data) < 4 or _u32.unpack_from(data)[0] != crc32(memoryview(data)[4:]):
        raise CorruptLogError(path=path, position=first, reason="checksum mismatch")
    try:
        records = _decode(memoryview(data)[4:])
        recorded_at = int(values[b"t"])
    except (msgspec.MsgspecError, ValueError, KeyError) as error:
        raise CorruptLogError(
            path=path, position=first, reason=f"not an entry written by pabal: {error}"
        ) from error
    if len(records) != count:
        raise CorruptLogError(path=path, position=first, reason=f"{len(records)} events, not {count}")
    new = tuple.__new__  # the same as calling ``StoredRecord``, in two thirds of the time
    rest = (None, recorded_at)  # no version of an aggregate, and the time
    # Adding tuples takes four fifths of the time of unpacking the record into a new one.
    rows = [new(StoredRecord, (place,) + record + rest) for place, record in enumerate(records, first)]  # noqa: RUF005
    return Entry(first, last, tuple(rows))
