"""Convert the results of operations to what the pages show: rows with a preview, details, a graph."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Container
from typing import Any

import msgspec

from pabal.dashboard.bilingual import bilingual, failure_message
from pabal.dashboard.problems import Problem
from pabal.operations import HIDDEN, Masking
from pabal.ports.operations import DeadLetterView, EventDetail, EventView, Trace, TraceNode

_PREVIEW = 160


def event_row(event: EventView) -> dict[str, Any]:
    """Convert an event to a table row, with the beginning of its payload as a preview."""
    row = _event_fields(event)
    payload = row.pop("payload", None)
    row.pop("metadata", None)
    text = msgspec.json.encode(payload).decode()
    row["preview"] = text if len(text) <= _PREVIEW else text[:_PREVIEW] + "…"
    return row


def _event_fields(event: EventView) -> dict[str, Any]:
    fields = msgspec.structs.asdict(event)
    if isinstance(event.payload, bytes):
        fields["payload"] = {"base64": base64.b64encode(event.payload).decode()}
    if event.metadata is msgspec.UNSET:
        del fields["metadata"]
    return fields


def event_detail(detail: EventDetail, masking: Masking) -> dict[str, Any]:
    """Convert one event, with its delivery to each subscription."""
    event = _event_fields(detail.event)
    event["masked"] = masking.mode == "none" or HIDDEN in msgspec.json.encode(event.get("payload")).decode()
    deliveries = [
        {
            "subscription": delivery.subscription,
            "state": delivery.state,
            "due_at": delivery.due_at,
            "attempts": delivery.failures,
            "finished_at": delivery.finished_at,
            "dead_letter_id": delivery.dead_letter_id,
        }
        for delivery in detail.deliveries
    ]
    return {"event": event, "deliveries": deliveries}


def chained_events(detail: EventDetail, trace: Trace | None) -> list[EventView]:
    """Return an event with its causes and effects, causes first."""
    if trace is None:
        return [event for event in (detail.cause, detail.event, *detail.effects) if event is not None]
    return [node.event for node in _nodes_of(trace)]


def causation_graph(detail: EventDetail, trace: Trace | None, parked: Container[str]) -> dict[str, Any]:
    """Convert the causes and effects of an event to nodes and (cause, effect) edges."""
    events = chained_events(detail, trace)
    if trace is None:
        edges = [(event.causation_id, event.event_id) for event in events if event.causation_id is not None]
    else:
        edges = [
            (node.event.event_id, effect.event.event_id)
            for node in _nodes_of(trace)
            for effect in node.effects
        ]
    truncated = trace is not None and not trace.complete
    return {"nodes": [_node(event, parked) for event in events], "edges": edges, "truncated": truncated}


def _nodes_of(trace: Trace) -> list[TraceNode]:
    nodes = list(trace.roots)
    for node in nodes:  # the list grows during the loop
        nodes += node.effects
    return nodes


def _node(event: EventView, parked: Container[str]) -> dict[str, Any]:
    return {
        "event_id": event.event_id,
        "event_type": event.event_type,
        "aggregate_id": event.aggregate_id,
        "occurred_at": event.occurred_at,
        "parked": event.event_id in parked,
    }


def letter_row(letter: DeadLetterView) -> dict[str, Any]:
    """Convert a dead letter to a table row."""
    event = letter.event
    return {
        "id": letter.id,
        "subscription": letter.subscription,
        "event_id": event.event_id,
        "event_type": event.event_type,
        "aggregate_type": event.aggregate_type,
        "aggregate_id": event.aggregate_id,
        "position": event.position,
        "error_type": letter.error_type,
        **failure_message(letter),
        "attempts": len(letter.attempts),
        "parked_at": letter.parked_at,
        "state": letter.state,
        "queued": letter.queued,
    }


def letter_detail(masked: DeadLetterView, unmasked: DeadLetterView) -> dict[str, Any]:
    """Convert one dead letter; ``revision`` changes when its state, parking time or payload does."""
    payload = _event_fields(masked.event).get("payload")
    return {
        **letter_row(masked),
        "payload": payload,
        "masked": HIDDEN in msgspec.json.encode(payload).decode(),
        "attempts": masked.attempts,
        **bilingual("reason", masked.reason),
        "key": masked.key,
        "revision": revision_of(unmasked),
    }


def revision_of(letter: DeadLetterView) -> str:
    """Return a short text that changes whenever the dead letter does."""
    content = msgspec.json.encode(
        [letter.state, letter.parked_at, _event_fields(letter.event).get("payload")]
    )
    return hashlib.sha256(content).hexdigest()[:16]


def restore_masked(edited: Any, original: Any) -> Any:
    """Restore the masked values that the user left masked while editing.

    Raises Problem for a masked value in a place that has no original, such as a list of another length.

    >>> restore_masked({"email": "•••", "quantity": 2}, {"email": "kim@example.com", "quantity": 1})
    {'email': 'kim@example.com', 'quantity': 2}
    """
    if edited == HIDDEN:
        if original is msgspec.UNSET:
            raise Problem(422, "masked", f"a hidden value ({HIDDEN}) can only be kept where it was")
        return original
    if isinstance(edited, dict):
        originals = original if isinstance(original, dict) else {}
        return {
            name: restore_masked(value, originals.get(name, msgspec.UNSET)) for name, value in edited.items()
        }
    if isinstance(edited, list):
        matches = isinstance(original, list) and len(edited) == len(original)
        return [
            restore_masked(value, original[at] if matches else msgspec.UNSET)
            for at, value in enumerate(edited)
        ]
    return edited
