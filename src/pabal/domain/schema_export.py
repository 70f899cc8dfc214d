"""The schemas of all registered events as one document, to be kept under version control."""

from __future__ import annotations

from typing import Any

from pabal.domain.json_schema import describe_payloads
from pabal.domain.registry import EventRegistry, registry

FORMAT = 3
"""The version of the document's layout."""
OWN_PREFIX = "pabal."
"""The prefix of pabal's own events, which are not part of an application's schema."""


def export_schema(events: EventRegistry = registry) -> dict[str, Any]:
    """Return the JSON Schema of every registered event by type name, with its version and aggregate type.

    Equal registrations give equal documents. Raises UnsupportedFieldError for a class with an annotation
    that names something unknown.

    >>> from pabal import DomainEvent
    >>> with registry.isolated():
    ...     class DoorOpened(DomainEvent):
    ...         event_type = "door.opened"
    ...         door: str
    ...     export_schema()["events"]["door.opened"]["schema"]["required"]
    ['door']
    """
    described = {
        name: _describe(events, name) for name, _ in sorted(events.names()) if not name.startswith(OWN_PREFIX)
    }
    return {"format": FORMAT, "events": described}


def _describe(events: EventRegistry, name: str) -> dict[str, Any]:
    known = events.schema_named(name)
    (top,), definitions = describe_payloads((known.payload_type,))
    schema = definitions.pop(top["$ref"].rpartition("/")[2])
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": known.cls.__name__,
    }
    if definitions:
        schema["$defs"] = {key: definitions[key] for key in sorted(definitions)}
    return {"version": known.version, "aggregate_type": known.aggregate_type, "schema": schema}
