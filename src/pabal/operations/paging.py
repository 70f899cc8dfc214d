"""Arrange the events that a search found as a page, with the cursors of the pages around it."""

from __future__ import annotations

from collections.abc import Sequence

from pabal.ports.operations import CutShort, EventPage, EventView


def make_page(
    found: Sequence[EventView], limit: int, *, oldest_first: bool, begins_below: bool = False
) -> EventPage:
    """Return the page of up to ``limit`` events, newest first, that a search for one more has found.

    The search either went up, ``oldest_first``, or down. ``begins_below`` says that it went down from a
    cursor: then there are newer events. If the source cut it short, the next page in its direction begins
    where it stopped.
    """
    events = list(found[:limit])
    ahead = found.at if isinstance(found, CutShort) else None
    if len(found) > limit:
        ahead = events[-1].cursor
    if oldest_first:
        events.reverse()
        return EventPage(tuple(events), older=events[-1].cursor if events else None, newer=ahead)
    behind = events[0].cursor if events and begins_below else None
    return EventPage(tuple(events), older=ahead, newer=behind)
