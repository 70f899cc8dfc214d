"""CloudEvents 1.0: convert events to JSON documents that other systems understand, and back."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5

import msgspec

from pabal.domain.event import AdoptedEvent, DomainEvent, adopt, body_of, kind_of
from pabal.domain.registry import registry
from pabal.domain.schema import encode_json
from pabal.errors import InvalidEventError
from pabal.ports.operations import EventView

__all__ = ["from_cloudevent", "to_cloudevent", "view_to_cloudevent"]

_TRACE_ATTRIBUTES = ("traceparent", "tracestate")
_REQUIRED_ATTRIBUTES = ("specversion", "id", "source", "type")


def to_cloudevent(event: Any, source: str) -> dict[str, Any]:
    """Return an event as a CloudEvent in JSON form (structured mode), ready for ``json.dumps``.

    ``source`` is a URI reference that identifies the publisher. The payload becomes ``data``, and the
    aggregate id ``subject`` and ``partitionkey``. ``correlationid``, ``causationid``, ``traceparent`` and
    ``tracestate`` are extension attributes; the schema version becomes ``pabalversion``, and other metadata
    ``pabalmetadata``, as JSON text. Raises InvalidEventError, also for an empty ``source``.

    >>> class LampLit(DomainEvent):
    ...     room: str
    >>> lit = LampLit("hall")
    >>> document = to_cloudevent(lit, "/houses/1")
    >>> document["type"], document["data"]
    ('LampLit', {'room': 'hall'})
    >>> from_cloudevent(document) == lit
    True
    """
    event = adopt(event)
    schema = registry.schema_of(kind_of(event))
    return _make_document(
        source,
        event_id=event.event_id,
        event_type=schema.event_type,
        occurred_at=event.occurred_at,
        aggregate_id=event.aggregate_id,
        correlation_id=event.correlation_id,
        causation_id=event.causation_id,
        version=schema.version,
        metadata=dict(event.metadata),
        data=msgspec.json.decode(schema.encode(body_of(event), event.event_id)),
    )


def view_to_cloudevent(view: EventView, source: str) -> dict[str, Any]:
    """Convert an event from ``pabal.operations`` to a CloudEvent; its class need not be known.

    The payload is left as stored, in whatever version, and masked values stay masked. A view without a
    payload, as from ``events(payloads=False)``, gives a document without ``data``. Raises InvalidEventError
    for an empty ``source``. ``to_cloudevent`` shows an example of the result.
    """
    return _make_document(
        source,
        event_id=view.event_id,
        event_type=view.event_type,
        occurred_at=view.occurred_at,
        aggregate_id=view.aggregate_id,
        correlation_id=view.correlation_id,
        causation_id=view.causation_id,
        version=view.schema_version,
        metadata=dict(view.metadata or {}),
        data=None if view.payload is msgspec.UNSET else view.payload,
    )


def _make_document(
    source: str,
    *,
    event_id: str,
    event_type: str,
    occurred_at: datetime,
    aggregate_id: str | None,
    correlation_id: str | None,
    causation_id: str | None,
    version: int,
    metadata: dict[str, Any],
    data: Any,
) -> dict[str, Any]:
    if not source:
        raise InvalidEventError("a CloudEvent needs a source: a URI reference such as '/shop/orders'")
    try:
        source.encode()
    except UnicodeEncodeError:
        raise InvalidEventError(
            f"{source!r} contains a lone surrogate, which a CloudEvent cannot hold"
        ) from None
    attributes = {
        "specversion": "1.0",
        "id": event_id,
        "source": source,
        "type": event_type,
        "time": occurred_at.isoformat().replace("+00:00", "Z"),
        "datacontenttype": "application/json",
        "subject": aggregate_id or None,
        "partitionkey": aggregate_id or None,
        "correlationid": correlation_id,
        "causationid": causation_id,
        **{name: metadata.pop(name) for name in _TRACE_ATTRIBUTES if isinstance(metadata.get(name), str)},
        "pabalversion": version,
        "pabalmetadata": encode_json(metadata).decode() if metadata else None,
        "data": data,
    }
    return {name: value for name, value in attributes.items() if value is not None}


def from_cloudevent(document: Mapping[str, Any]) -> Any:
    """Return the event in a CloudEvent in JSON form; its ``type`` must be a registered event type.

    A document from another publisher needs the four required attributes and a JSON object as ``data``; an
    older ``pabalversion`` is upcast. An ``id`` that is a UUID becomes the event's id. Otherwise, the event id
    is a UUID derived from ``id`` and ``source``, which together identify the event (version 5, always the
    same), and both are kept in the metadata as ``cloudevent_id`` and ``cloudevent_source``. A missing
    ``time`` becomes the current time.

    Raises InvalidEventError for anything but a CloudEvent, UnknownEventTypeError, and DecodeError if the data
    does not fit the class.

    >>> class DoorBellRung(DomainEvent):
    ...     door: str
    >>> required = {"specversion": "1.0", "id": "7", "source": "/houses/1", "type": "DoorBellRung"}
    >>> rung = from_cloudevent({**required, "data": {"door": "front"}})
    >>> rung.door, rung.metadata["cloudevent_id"]
    ('front', '7')
    """
    document = {name: value for name, value in document.items() if value is not None}  # null is unset
    missing = [
        name for name in _REQUIRED_ATTRIBUTES if not isinstance(document.get(name), str) or not document[name]
    ]
    if missing:
        raise InvalidEventError(f"this is not a CloudEvent: {', '.join(missing)} missing or not text")
    if document["specversion"] != "1.0":
        raise InvalidEventError(f"CloudEvents {document['specversion']!r} is not supported; send 1.0")
    data = document.get("data")
    if not isinstance(data, Mapping):
        raise InvalidEventError(f"CloudEvent {document['id']!r} has no JSON object as data")
    schema = registry.schema_named(document["type"], None)
    version = document.get("pabalversion", schema.version)
    payload: Any = dict(data)
    if not isinstance(version, int) or isinstance(version, bool):
        raise InvalidEventError(f"CloudEvent {document['id']!r}: pabalversion is {version!r}, not an integer")
    if version != schema.version:
        payload = registry.upcast(schema, version, payload, None)
    body = schema.decode_body(encode_json(payload))
    header = _header_of(document)
    if not issubclass(schema.cls, DomainEvent):
        return AdoptedEvent(body=body, **header)
    return schema.rebuild(body, **header)


def _header_of(document: Mapping[str, Any]) -> dict[str, Any]:
    header: dict[str, Any] = {}
    try:
        for name in ("id", "source"):
            document[name].encode()  # JSON can contain a lone surrogate, which is not valid text
        if "time" in document:
            header["occurred_at"] = _parse_time(document["time"])
        metadata = msgspec.json.decode(document.get("pabalmetadata", "{}"), type=dict[str, Any])
    except (ValueError, TypeError, OverflowError) as error:
        raise InvalidEventError(f"CloudEvent {document['id']!r} has a broken attribute: {error}") from error
    metadata.update({name: document[name] for name in _TRACE_ATTRIBUTES if name in document})
    try:
        header["event_id"] = str(UUID(document["id"]))
    except ValueError:
        header["event_id"] = str(uuid5(uuid5(NAMESPACE_URL, document["source"]), document["id"]))
        metadata.update(cloudevent_id=document["id"], cloudevent_source=document["source"])
    if metadata:
        header["metadata"] = metadata
    for name, attribute in (("correlation_id", "correlationid"), ("causation_id", "causationid")):
        if attribute in document:
            if not isinstance(document[attribute], str):
                raise InvalidEventError(f"CloudEvent {document['id']!r}: {attribute} is not text")
            header[name] = document[attribute]
    return header


def _parse_time(text: Any) -> datetime:
    """Parse an RFC 3339 time, which may be in lower case. Raises ValueError, TypeError, OverflowError."""
    time = datetime.fromisoformat(text.upper() if isinstance(text, str) else text)
    # Near the first and last possible date, some offsets have no equivalent in UTC.
    return time if time.tzinfo is None else time.astimezone(UTC)
