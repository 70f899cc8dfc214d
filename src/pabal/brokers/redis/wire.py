"""How events travel: many in one stream entry, whose id says which positions it holds."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
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
_mark = struct.Struct("<II")


class Entry(NamedTuple):
    """Hold a decoded stream entry: the rows at positions ``first`` to ``last``."""

    first: int
    last: int
    rows: tuple[StoredRecord, ...]


class Known(NamedTuple):
    """Tell what the server remembers of an id: where it is stored, and what is under it."""

    position: int
    fingerprint: int

    @classmethod
    def of(cls, value: bytes) -> Known:
        """Read a fingerprint, how many events stand behind it in its entry, and the last one's position."""
        print_, behind = _mark.unpack_from(value)
        return cls(int(value[8:]) - behind, print_)


@lru_cache(maxsize=16_384)
def _crc(text: str) -> int:
    """Return the CRC-32 of a text; the same aggregates come again and again."""
    return crc32(text.encode())


def fingerprint(record: EventRecord) -> int:
    """Return 32 bits that differ (but for one case in 2^32) where the content under an id differs."""
    return crc32(record.payload, _crc_of_source(record.event_type, record.aggregate_id))


@lru_cache(maxsize=16_384)
def _crc_of_source(event_type: str, aggregate_id: str | None) -> int:
    return crc32(f"{event_type}\0{aggregate_id}\0".encode())


def partition_of(key: str | None, event_id: bytes, partitions: int) -> int:
    """Return where a key lies; events without one are spread by their id.

    The function is part of the format: every process that ever publishes to a log must agree on it.
    """
    return (crc32(event_id) if key is None else _crc(key)) % partitions


def aggregate_key(event: DomainEvent) -> str | None:
    """Return the default key: aggregate type and id."""
    aggregate_id = event.aggregate_id
    return None if aggregate_id is None else f"{event.aggregate_type}/{aggregate_id}"


def encode_entry(records: Sequence[EventRecord]) -> bytes:
    """Return the events of one entry as bytes, with a checksum in front."""
    body = _encode(records)
    return _u32.pack(crc32(body)) + body


def decode_entry(entry_id: bytes, fields: Sequence[bytes], path: str) -> Entry:
    """Return what an entry holds. Raises CorruptLogError unless it is exactly what was written."""
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
        raise CorruptLogError(path=path, position=first, reason=f"no entry of pabal: {error}") from error
    if len(records) != count:
        raise CorruptLogError(path=path, position=first, reason=f"{len(records)} events, not {count}")
    new = tuple.__new__  # what ``StoredRecord`` does, in two thirds of the time
    rows = tuple(
        [
            new(StoredRecord, (position, *record, None, recorded_at))
            for position, record in enumerate(records, first)
        ]
    )
    return Entry(first, last, rows)
