"""Convert the results of operations to what the pages show: rows with a preview, details, a graph."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Container
from typing import Any

import msgspec

from pabal.dashboard.bilingual import in_both, why_parked
from pabal.operations import HIDDEN, Masking
from pabal.ports.operations import DeadLetterView, EventDetail, EventView, Trace, TraceNode

_PREVIEW = 160


def event_row(event: EventView) -> dict[str, Any]:
    """Convert an event to a table row, with the beginning of its payload as a preview."""
    row = _plain(event)
    payload = row.pop("payload", None)
    row.pop("metadata", None)
    text = msgspec.json.encode(payload).decode()
    row["preview"] = text if len(text) <= _PREVIEW else text[:_PREVIEW] + "…"
    return row


def _plain(event: EventView) -> dict[str, Any]:
    fields = msgspec.structs.asdict(event)
    if isinstance(event.payload, bytes):
        fields["payload"] = {"base64": base64.b64encode(event.payload).decode()}
    if event.metadata is msgspec.UNSET:
        del fields["metadata"]
    return fields


def detail(found: EventDetail, masking: Masking) -> dict[str, Any]:
    """Convert one event, with its delivery to each subscription."""
    event = _plain(found.event)
    event["masked"] = masking.mode == "none" or HIDDEN in msgspec.json.encode(event.get("payload")).decode()
    deliveries = [
        {
            "subscription": one.subscription,
            "state": one.state,
            "due_at": one.due_at,
            "attempts": one.failures,
            "finished_at": one.finished_at,
            "dead_letter_id": one.dead_letter_id,
        }
        for one in found.deliveries
    ]
    return {"event": event, "deliveries": deliveries}


def chained(found: EventDetail, trace: Trace | None) -> list[EventView]:
    """Return an event with its causes and effects, causes first."""
    if trace is None:
        return [one for one in (found.cause, found.event, *found.effects) if one is not None]
    return [node.event for node in _walked(trace)]


def chain(found: EventDetail, trace: Trace | None, parked: Container[str]) -> dict[str, Any]:
    """Convert the causes and effects of an event to nodes and (cause, effect) edges."""
    events = chained(found, trace)
    if trace is None:
        edges = [(one.causation_id, one.event_id) for one in events if one.causation_id is not None]
    else:
        edges = [
            (node.event.event_id, effect.event.event_id) for node in _walked(trace) for effect in node.effects
        ]
    truncated = trace is not None and not trace.complete
    return {"nodes": [_node(one, parked) for one in events], "edges": edges, "truncated": truncated}


def _walked(trace: Trace) -> list[TraceNode]:
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
        **why_parked(letter),
        "attempts": len(letter.attempts),
        "parked_at": letter.parked_at,
        "state": letter.state,
        "queued": letter.queued,
    }


def letter_detail(shown: DeadLetterView, whole: DeadLetterView) -> dict[str, Any]:
    """Convert one dead letter; ``revision`` changes when its state, parking time or payload does."""
    payload = _plain(shown.event).get("payload")
    return {
        **letter_row(shown),
        "payload": payload,
        "masked": HIDDEN in msgspec.json.encode(payload).decode(),
        "attempts": shown.attempts,
        **in_both("reason", shown.reason),
        "key": shown.key,
        "revision": revision_of(whole),
    }


def revision_of(letter: DeadLetterView) -> str:
    """Return a short text that changes whenever the dead letter does."""
    content = msgspec.json.encode([letter.state, letter.parked_at, _plain(letter.event).get("payload")])
    return hashlib.sha256(content).hexdigest()[:16]


def unmasked(edited: Any, whole: Any) -> Any:
    """Restore the masked values that the user left masked while editing.

    >>> unmasked({"email": "•••", "quantity": 2}, {"email": "kim@example.com", "quantity": 1})
    {'email': 'kim@example.com', 'quantity': 2}
    """
    if edited == HIDDEN:
        return whole
    if isinstance(edited, dict) and isinstance(whole, dict):
        return {name: unmasked(value, whole.get(name, value)) for name, value in edited.items()}
    if isinstance(edited, list) and isinstance(whole, list) and len(edited) == len(whole):
        return [unmasked(value, before) for value, before in zip(edited, whole, strict=True)]
    return edited
