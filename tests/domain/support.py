"""Convert events to their stored form and back, and compare values more strictly than ``==``."""

from __future__ import annotations

import re
from dataclasses import fields as dataclass_fields
from dataclasses import is_dataclass
from datetime import datetime, time
from enum import Enum
from typing import Any

import msgspec

from pabal.domain.envelope import (
    EventRecord,
    StoredRecord,
    checksum_at,
    decode_event,
    encode_event,
    verify,
)
from pabal.domain.event import DomainEvent, adopt, body_of

LIMIT = 1 << 20


def encode(event: Any, limit: int = LIMIT) -> EventRecord:
    return encode_event(adopt(event), limit)


def row_of(
    record: EventRecord, position: int = 1, stream_version: int | None = None, recorded_at: int = 0
) -> StoredRecord:
    checksum = checksum_at(record.checksum, position, stream_version, recorded_at)
    return StoredRecord(position, *record[:10], checksum, stream_version, recorded_at)


def stored_and_read(event: Any) -> Any:
    """Return an event as a storage would return it: encoded, verified, decoded."""
    row = row_of(encode(event), position=7, stream_version=3, recorded_at=11)
    verify(row, "test.db")
    return body_of(decode_event(row))


def stored_as(cls: type[DomainEvent], payload: bytes, version: int) -> StoredRecord:
    """Return the row of an event of ``cls`` as an earlier version of the program wrote it."""
    head = (b"\0" * 16, cls.event_type, version, None, None, 0, None, None, None, payload)
    return row_of(EventRecord(*head, checksum=0))


def exact(value: Any) -> Any:
    """Return a form in which two values are equal only if their types, scales and offsets are equal too."""
    kind = type(value).__qualname__
    if isinstance(value, Enum):
        return kind, value.name
    if isinstance(value, (datetime, time)):
        return kind, value.replace(tzinfo=None, fold=0).isoformat(), value.utcoffset(), value.tzinfo is None
    if isinstance(value, dict):
        return kind, tuple((exact(key), exact(one)) for key, one in value.items())
    if isinstance(value, (set, frozenset)):
        return kind, frozenset(map(exact, value))
    if isinstance(value, (list, tuple)):
        return kind, tuple(map(exact, value))
    if isinstance(value, msgspec.Struct):
        return kind, tuple(exact(getattr(value, name)) for name in value.__struct_fields__)
    if is_dataclass(value):
        return kind, tuple(exact(getattr(value, field.name)) for field in dataclass_fields(value))
    return kind, repr(value)


def label(value: Any) -> str:
    """Name a parameter in a test's id by its ``repr`` without the address, which differs in each process."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))
