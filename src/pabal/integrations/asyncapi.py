"""AsyncAPI 3.0: describe the events that an application publishes, and their subscribers."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable
from typing import Any

from pabal.delivery.subscription import Subscription
from pabal.domain.json_schema import describe_payloads
from pabal.domain.registry import registry
from pabal.domain.schema import EventSchema

__all__ = ["asyncapi_document"]

_HEADERS = {
    "type": "object",
    "required": ["event_id", "occurred_at"],
    "properties": {
        "event_id": {"type": "string", "format": "uuid"},
        "occurred_at": {"type": "string", "format": "date-time"},
        "correlation_id": {"type": ["string", "null"]},
        "causation_id": {"type": ["string", "null"]},
        "metadata": {"type": "object"},
    },
}


def asyncapi_document(
    subscriptions: Iterable[Subscription] = (), *, title: str, version: str, event_types: str = ""
) -> dict[str, Any]:
    """Return an AsyncAPI 3.0 document, ready for ``json.dumps``.

    Each registered event type whose name begins with ``event_types`` becomes a channel with one message,
    whose payload is described by JSON Schema, and a ``send`` operation. Each subscription, as returned by
    ``bus.subscribe``, becomes a ``receive`` operation for each of these types that it matches.

    Raises EventDefinitionError if an event class refers to a type that is not defined yet.

    >>> from pabal import DomainEvent
    >>> class BellRung(DomainEvent):
    ...     event_type = "asyncapi.bell_rung"
    ...     tower: str
    >>> document = asyncapi_document(title="Bells", version="1.0", event_types="asyncapi.")
    >>> document["components"]["schemas"]["asyncapi.bell_rung"]["properties"]
    {'tower': {'type': 'string'}}
    """
    named_classes = sorted((name, cls) for name, cls in registry.names() if name.startswith(event_types))
    event_schemas = [registry.schema_of(cls) for _, cls in named_classes]
    payloads, nested = describe_payloads(
        [schema.payload_type for schema in event_schemas], ref_template="#/components/schemas/{name}"
    )
    components = dict(nested)
    schemas: dict[str, EventSchema] = {}
    for schema, payload in zip(event_schemas, payloads, strict=True):
        # Avoid the names of nested types, which are referred to; the payload's own name may be reused.
        taken = schemas.keys() | (nested.keys() - {_component_name(payload)})
        schemas[_identifier(schema.event_type, taken)] = schema
    messages: dict[str, Any] = {}
    channels: dict[str, Any] = {}
    operations: dict[str, Any] = {}
    prefixes = {"publish"}
    for (key, schema), payload in zip(schemas.items(), payloads, strict=True):
        components[key] = _resolved(payload, components)
        messages[key] = _message(key, schema)
        channels[key] = {
            "address": schema.event_type,
            "messages": {key: {"$ref": f"#/components/messages/{key}"}},
        }
        operations[f"publish.{key}"] = _operation("send", key)
    for subscription in subscriptions:
        prefix = _identifier(subscription.name, prefixes)
        prefixes.add(prefix)
        for key, schema in schemas.items():
            if subscription.matcher.matches_class(schema.cls):
                # Without this, "audit" of "orders.placed" and "audit.orders" of "placed" would collide.
                name = _identifier(f"{prefix}.{key}", operations)
                operations[name] = {**_operation("receive", key), "title": subscription.name}
    return {
        "asyncapi": "3.0.0",
        "info": {"title": title, "version": version},
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
        "components": {"messages": messages, "schemas": _only_referenced(components, schemas)},
    }


def _message(key: str, schema: EventSchema) -> dict[str, Any]:
    message = {
        "name": schema.event_type,
        "title": schema.cls.__name__,
        "contentType": "application/json",
        "headers": _HEADERS,
        "payload": {"$ref": f"#/components/schemas/{key}"},
        "x-schema-version": schema.version,
    }
    if schema.aggregate_type is not None:
        message["x-aggregate-type"] = schema.aggregate_type
    return message


def _operation(action: str, key: str) -> dict[str, Any]:
    return {
        "action": action,
        "channel": {"$ref": f"#/channels/{key}"},
        "messages": [{"$ref": f"#/channels/{key}/messages/{key}"}],
    }


def _resolved(payload: dict[str, Any], components: dict[str, Any]) -> dict[str, Any]:
    """Return the schema that a payload's reference points to, to be listed under the event's own name."""
    name = _component_name(payload)
    if name is None:
        return payload
    schema: dict[str, Any] = components[name]
    return schema


def _component_name(payload: dict[str, Any]) -> str | None:
    """Return the name of a payload's schema among the components, or None if it is inline."""
    reference: str | None = payload.get("$ref")
    return None if reference is None else reference.rpartition("/")[2]


def _only_referenced(components: dict[str, Any], roots: Iterable[str]) -> dict[str, Any]:
    """Drop the components that nothing refers to any more: the payload classes under their own names."""
    used: set[str] = set()
    queue = list(roots)
    while queue:
        name = queue.pop()
        if name not in used:
            used.add(name)
            queue += _references(components[name])
    return {name: components[name] for name in sorted(used)}


def _references(node: Any) -> list[str]:
    if isinstance(node, dict):
        names = [node["$ref"].rpartition("/")[2]] if isinstance(node.get("$ref"), str) else []
        return names + [name for value in node.values() for name in _references(value)]
    if isinstance(node, list):
        return [name for value in node for name in _references(value)]
    return []


def _identifier(name: str, taken: Container[str]) -> str:
    """Return a unique key that AsyncAPI allows, made from a name."""
    base = key = re.sub(r"[^A-Za-z0-9._-]", "-", name)
    number = 1
    while key in taken:
        number += 1
        key = f"{base}-{number}"
    return key
