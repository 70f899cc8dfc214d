"""Arrange the events of one correlation id as a tree of causes and effects."""

from __future__ import annotations

from collections.abc import Sequence

from pabal.ports.operations import EventView, Trace, TraceNode

_MAX_DEPTH = 500
"""Longer chains are cut, and continue as new roots, so that recursive readers do not overflow the stack."""


def build_trace(correlation_id: str, events: Sequence[EventView], *, complete: bool) -> Trace:
    """Return the tree of events, given oldest first; an event whose cause is not among them is a root."""
    known = {event.event_id: event for event in events}
    effects: dict[str, list[EventView]] = {}
    roots: list[EventView] = []
    depth: dict[str, int] = {}
    for event in events:
        cause = event.causation_id
        # An event cannot be caused by a later one, and a cycle would not be a tree.
        if cause is None or cause not in depth or depth[cause] >= _MAX_DEPTH:
            roots.append(event)
            depth[event.event_id] = 0
        else:
            effects.setdefault(cause, []).append(event)
            depth[event.event_id] = depth[cause] + 1
    nodes: dict[str, TraceNode] = {}
    for event in sorted(known.values(), key=lambda event: -depth[event.event_id]):
        children = tuple(nodes[effect.event_id] for effect in effects.get(event.event_id, ()))
        nodes[event.event_id] = TraceNode(event, children)
    return Trace(correlation_id, tuple(nodes[root.event_id] for root in roots), len(known), complete)
