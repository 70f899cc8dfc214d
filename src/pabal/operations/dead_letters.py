"""Show and retry stored dead letters without the bus that parked them."""

from __future__ import annotations

import time

from pabal.domain.envelope import decode_event
from pabal.domain.registry import registry
from pabal.errors import UnknownEventTypeError
from pabal.operations.views import letter_view
from pabal.ports.operations import ActionResult, DeadLetterFilter, DeadLetterView
from pabal.ports.storage import DeadLetterRecord, DeadLetterStore


async def matching_letters(
    store: DeadLetterStore, wanted: DeadLetterFilter, *, after: int, limit: int
) -> list[DeadLetterView]:
    """Return a page of matching dead letters, by ascending id."""
    found = await store.list_dead_letters(
        subscription=wanted.subscription,
        event_type=wanted.event_type,
        error_type=wanted.error_type,
        after=after,
        limit=limit,
    )
    return [letter_view(letter) for letter in found]


async def retry_elsewhere(
    store: DeadLetterStore, letter: DeadLetterRecord, payload: bytes | None
) -> ActionResult:
    """Mark a dead letter for retry by the process that handles its subscription, with a new payload if given.

    Raises DecodeError if the payload fits no class, as it would only be parked again.
    """
    if letter.record is not None and payload is None:
        try:
            decode_event(letter.record)
        except UnknownEventTypeError:
            pass  # only the process that handles the subscription needs to know the class
    elif letter.record is not None:
        registry.schema_named(letter.record.event_type, letter.position)
    begun = await store.begin_retry(letter.id, payload, time.time()) is not None
    return ActionResult("retry" if payload is None else "edit", str(letter.id), int(begun), pending=begun)
