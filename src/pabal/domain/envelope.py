"""An event as stored in the log, and the conversion to and from it."""

from __future__ import annotations

import struct
from datetime import UTC, datetime
from typing import Any, NamedTuple
from zlib import crc32

import msgspec

from pabal.domain.event import NO_METADATA, AdoptedEvent, DomainEvent, body_of
from pabal.domain.registry import registry
from pabal.domain.schema import UNENCODABLE, EventSchema, encode_json
from pabal.errors import (
    CorruptLogError,
    DecodeError,
    InvalidEventError,
    PayloadTooLargeError,
    UnserializableEventError,
    UsageError,
)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_decode_json = msgspec.json.decode
_pack_place = struct.Struct("<qqq").pack
_pack_timestamp = struct.Struct(">BBBIq").pack
"""A MessagePack timestamp: an extension of 12 bytes and type -1 with nanoseconds and seconds since 1970."""
_read_timestamp = msgspec.msgpack.Decoder(datetime).decode
_pack_record = msgspec.msgpack.Encoder().encode


class EventRecord(NamedTuple):
    """An encoded event without a position; the fields are columns of the log."""

    event_id: bytes
    event_type: str
    schema_version: int
    aggregate_type: str | None
    aggregate_id: str | None
    occurred_at: int
    correlation_id: str | None
    causation_id: str | None
    metadata: bytes | None
    payload: bytes
    checksum: int


class StoredRecord(NamedTuple):
    """A row of the log. Times are microseconds since 1970 (UTC)."""

    position: int
    event_id: bytes
    event_type: str
    schema_version: int
    aggregate_type: str | None
    aggregate_id: str | None
    occurred_at: int
    correlation_id: str | None
    causation_id: str | None
    metadata: bytes | None
    payload: bytes
    checksum: int
    stream_version: int | None
    recorded_at: int

    @property
    def id_text(self) -> str:
        """Return the event id as text."""
        return id_to_text(self.event_id)


class Envelope(msgspec.Struct, frozen=True, gc=False):
    """An event together with its place in the log.

    ``position`` counts from 1 over the whole log, ``stream_version`` from 1 within the aggregate (None for an
    event of no aggregate); ``recorded_at`` is the time of the commit, aware, UTC.
    """

    event: Any
    position: int
    stream_version: int | None
    recorded_at: datetime
    event_id: str
    event_type: str


class Receipt(msgspec.Struct, frozen=True, gc=False):
    """The receipt of a publish; always true. ``position`` is None on a bus without storage.

    ``sequence`` numbers the publishes of one run of the bus, for ``wait_for(since=receipt)``.
    """

    event_id: str
    position: int | None = None
    sequence: int = 0

    def __bool__(self) -> bool:
        """Return True: the event was accepted."""
        return True


def to_microseconds(moment: datetime) -> int:
    """Return an aware datetime as microseconds since 1970. Raises UsageError for a naive one."""
    try:
        since = moment - _EPOCH
    except TypeError:
        raise UsageError(f"{moment!r} has no time zone; pass an aware datetime") from None
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def from_microseconds(value: int) -> datetime:
    """Return microseconds since 1970 as an aware datetime (UTC). Raises ValueError outside years 1 to 9999.

    Decoding a MessagePack timestamp takes two thirds of the time of adding a timedelta to 1970.
    """
    seconds, rest = divmod(value, 1_000_000)
    return _read_timestamp(_pack_timestamp(0xC7, 12, 0xFF, rest * 1_000, seconds))


def id_to_bytes(event_id: str, *, strict: bool = False) -> bytes:
    """Return a UUID text as its 16 bytes. Raises InvalidEventError for any other text.

    With ``strict``, only the canonical form is accepted: the text in which the id is returned later.
    """
    digits = ""
    try:
        digits = event_id.replace("-", "")
        raw = bytes.fromhex(digits)
    except (ValueError, AttributeError, TypeError):
        raw = b""
    if len(raw) != 16:
        raise InvalidEventError(
            f"event_id {event_id!r} is not a UUID; leave it out to get one, "
            "or derive a fixed one with str(uuid.uuid5(namespace, text))"
        )
    # In canonical form the digits are lower case, in groups of 8, 4, 4, 4 and 12.
    if strict and not (raw.hex() == digits and len(event_id) == 36 and event_id[8:24:5] == "----"):
        raise InvalidEventError(
            f"event_id {event_id!r} is not in canonical form, write it as {id_to_text(raw)!r}"
        )
    return raw


def id_to_text(raw: bytes) -> str:
    """Return 16 bytes as UUID text."""
    # Cutting the 16 bytes takes three pieces; cutting the 32 digits would take five.
    return f"{raw[:4].hex()}-{raw[4:10].hex('-', 2)}-{raw[10:].hex()}"


def encode_event(event: DomainEvent, max_payload_bytes: int, *, checksummed: bool = True) -> EventRecord:
    """Encode an event for the log; ``checksummed=False`` if it is sent inside something with a checksum.

    Raises InvalidEventError (several subclasses) if it could not be read back equal, or is too large.
    """
    body = body_of(event)
    schema = registry.schema_of(type(body))
    event_id = event.event_id
    payload = schema.encode(body, event_id)
    if len(payload) > max_payload_bytes:
        raise PayloadTooLargeError(
            event_type=schema.event_type, event_id=event_id, size=len(payload), limit=max_payload_bytes
        )
    aggregate_id = event.aggregate_id
    correlation_id = event.correlation_id
    causation_id = event.causation_id
    if not (
        (aggregate_id is None or type(aggregate_id) is str)
        and (correlation_id is None or type(correlation_id) is str)
        and (causation_id is None or type(causation_id) is str)
    ):
        aggregate_id, correlation_id, causation_id = _plain_texts(event, schema.event_type)
    metadata = event.metadata
    try:
        head = (
            id_to_bytes(event_id, strict=True),
            schema.event_type,
            schema.version,
            schema.aggregate_type,
            aggregate_id,
            to_microseconds(event.occurred_at),
            correlation_id,
            causation_id,
            None if metadata is NO_METADATA else encode_json(dict(metadata)),
            payload,
        )
        checksum = checksum_of(head) if checksummed else 0
    except UNENCODABLE as error:
        raise UnserializableEventError(
            event_type=schema.event_type, event_id=event_id, reason=str(error)
        ) from error
    # What ``_make`` does, in two thirds of the time, as adding is faster than unpacking.
    return tuple.__new__(EventRecord, head + (checksum,))  # noqa: RUF005


def _plain_texts(event: DomainEvent, event_type: str) -> list[str | None]:
    """Return the three ids as plain text, if they are of a subclass such as a StrEnum."""
    texts: list[str | None] = []
    for name in ("aggregate_id", "correlation_id", "causation_id"):
        value = getattr(event, name)
        if value is not None and not isinstance(value, str):
            raise UnserializableEventError(
                event_type=event_type,
                event_id=event.event_id,
                reason=f"{name} is {value!r}, it must be text or None",
            )
        texts.append(None if value is None else str.__str__(value))
    return texts


def checksum_of(head: tuple[Any, ...]) -> int:
    """Return the CRC-32 of all fields of a record but the checksum.

    MessagePack marks the type and length of each field, so no byte can move from one field to the next
    unnoticed.
    """
    return crc32(_pack_record(head))


def checksum_at(checksum: int, position: int, stream_version: int | None = None, recorded_at: int = 0) -> int:
    """Combine a record's checksum with its place in the log, so that a row in another place is noticed."""
    return checksum ^ crc32(
        _pack_place(position, -1 if stream_version is None else stream_version, recorded_at)
    )


def verify(row: StoredRecord, path: str) -> None:
    """Raise CorruptLogError unless a row is exactly what was written at its position."""
    try:
        checksum = checksum_at(checksum_of(row[1:11]), row.position, row.stream_version, row.recorded_at)
        intact = checksum == row.checksum
    except (TypeError, AttributeError, UnicodeError, OverflowError, struct.error):
        intact = False
    if not intact:
        raise CorruptLogError(path=path, position=row.position, reason="checksum mismatch")


def decode_event(row: StoredRecord) -> DomainEvent:
    """Decode a verified row to its event, through upcasters if its version is old.

    Raises DecodeError, or UnknownEventTypeError for a name that is not registered.
    """
    schema = registry.schema_named(row.event_type, row.position)
    payload = row.payload
    if row.schema_version != schema.version:
        payload = _upcast(schema, row)
    occurred_at = _decode_time(row, row.occurred_at)
    body = schema.decode_body(payload, row.position)
    metadata = NO_METADATA if row.metadata is None else _from_json(row, row.metadata)
    try:
        if schema.positional:
            # Passing the header through ``rebuild`` would double the cost of making the event.
            event: DomainEvent = schema.cls(
                *schema.values(body),
                event_id=id_to_text(row.event_id),
                occurred_at=occurred_at,
                correlation_id=row.correlation_id,
                causation_id=row.causation_id,
                metadata=metadata,
            )
            return event
        make = schema.rebuild if issubclass(schema.cls, DomainEvent) else AdoptedEvent
        return make(
            body=body,
            event_id=id_to_text(row.event_id),
            occurred_at=occurred_at,
            correlation_id=row.correlation_id,
            causation_id=row.causation_id,
            metadata=metadata,
        )
    except Exception as error:
        raise DecodeError(
            event_type=row.event_type, position=row.position, reason=f"its class refused it: {error!r}"
        ) from error


def _decode_time(row: StoredRecord, value: int) -> datetime:
    try:
        return from_microseconds(value)
    except ValueError as error:
        reason = f"{value} microseconds since 1970 are not a valid date"
        raise DecodeError(event_type=row.event_type, position=row.position, reason=reason) from error


def _upcast(schema: EventSchema, row: StoredRecord) -> bytes:
    old = _from_json(row, row.payload)
    new = registry.upcast(schema, row.schema_version, old, row.position)
    try:
        return encode_json(new)
    except UNENCODABLE as error:
        raise DecodeError(
            event_type=row.event_type, position=row.position, reason=f"upcast payload: {error}"
        ) from error


def _from_json(row: StoredRecord, data: bytes) -> Any:
    try:
        return _decode_json(data)
    except (ValueError, RecursionError) as error:
        raise DecodeError(event_type=row.event_type, position=row.position, reason=str(error)) from error


def to_envelope(row: StoredRecord) -> Envelope:
    """Decode a verified row to its event and its place in the log."""
    return Envelope(
        body_of(decode_event(row)),
        row.position,
        row.stream_version,
        _decode_time(row, row.recorded_at),
        id_to_text(row.event_id),
        row.event_type,
    )
