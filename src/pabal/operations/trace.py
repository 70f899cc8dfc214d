"""Order the events of one correlation id as a tree of causes."""

from __future__ import annotations

from collections.abc import Sequence

from pabal.ports.operations import EventView, Trace, TraceNode

_DEEPEST = 500
"""Chains deeper than this are cut and go on as roots, so that no reader of the tree runs out of stack."""


def build_trace(correlation_id: str, events: Sequence[EventView], *, complete: bool) -> Trace:
    """Return the tree of events given oldest first; one whose cause is not among them is a root."""
    known = {event.event_id: event for event in events}
    effects: dict[str, list[EventView]] = {}
    roots: list[EventView] = []
    depth: dict[str, int] = {}
    for event in events:
        cause = event.causation_id
        # Nothing is caused by what came later, and a cycle could not be drawn.
        if cause is None or cause not in depth or depth[cause] >= _DEEPEST:
            roots.append(event)
            depth[event.event_id] = 0
        else:
            effects.setdefault(cause, []).append(event)
            depth[event.event_id] = depth[cause] + 1
    nodes: dict[str, TraceNode] = {}
    for event in sorted(known.values(), key=lambda event: -depth[event.event_id]):
        below = tuple(nodes[effect.event_id] for effect in effects.get(event.event_id, ()))
        nodes[event.event_id] = TraceNode(event, below)
    return Trace(correlation_id, tuple(nodes[root.event_id] for root in roots), len(known), complete)
