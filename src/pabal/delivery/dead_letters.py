"""Dead letters kept in memory, for buses without storage and for the in-memory storage."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from itertools import count, islice

import msgspec

from pabal.delivery.bookkeeping import Block
from pabal.delivery.lane import Item
from pabal.domain.envelope import StoredRecord
from pabal.domain.event import AdoptedEvent, kind_of, replace_header
from pabal.domain.registry import registry
from pabal.errors import DeadLetterNotFoundError
from pabal.ports.arguments import check_bounds
from pabal.ports.records import GroupsByError
from pabal.ports.storage import DeadLetterGroup, DeadLetterRecord, ParkedDelivery

_COUNTED_AT_ONCE = 1000


class MemoryDeadLetters:
    """Keep dead letters, and the deliveries queued behind parked keys, for the life of this object.

    ``limit`` bounds the two together. When ``is_full``, a subscription halts instead of parking another
    delivery: nothing is dropped silently.
    """

    def __init__(self, limit: int = 100_000) -> None:
        self._by_id: dict[int, DeadLetterRecord] = {}
        self._order: list[int] = []
        """The ids, ascending; ids of removed dead letters stay until the next sweep."""
        self._by_delivery: dict[tuple[str, int], int] = {}
        self._queues: dict[str, dict[str, deque[Item]]] = {}
        """Deliveries queued behind parked keys, by subscription and key."""
        self._queued = 0
        self._ids = count(1)
        self._limit = limit

    def __len__(self) -> int:
        """Return the number of dead letters."""
        return len(self._by_id)

    @property
    def is_full(self) -> bool:
        """Return whether the limit has been reached."""
        return len(self._by_id) + self._queued >= self._limit

    def park(self, subscription: str, parked: ParkedDelivery) -> DeadLetterRecord:
        """Keep a delivery as a dead letter; one that is parked again keeps its id."""
        known = self._by_delivery.get((subscription, parked.position))
        letter = DeadLetterRecord(
            id=next(self._ids) if known is None else known,
            subscription=subscription,
            position=parked.position,
            record=parked.record,
            event=parked.event,
            reason=parked.reason,
            failures=parked.failures,
            parked_at=datetime.fromtimestamp(parked.parked_at, UTC),
            state="parked",
            key=parked.key if parked.blocks else None,
            queued=0,
        )
        if known is None:
            self._order.append(letter.id)
        self._by_id[letter.id] = letter
        self._by_delivery[subscription, parked.position] = letter.id
        return letter

    def find(self, subscription: str, position: int) -> DeadLetterRecord | None:
        """Return the dead letter of a delivery, or None."""
        known = self._by_delivery.get((subscription, position))
        return None if known is None else self._by_id[known]

    def remove(self, subscription: str, position: int) -> DeadLetterRecord | None:
        """Remove and return a dead letter; None if there is none of this delivery."""
        known = self._by_delivery.pop((subscription, position), None)
        if known is None:
            return None
        letter = self._by_id.pop(known)
        if len(self._order) > 1024 + 2 * len(self._by_id):
            self._order = list(self._by_id)
        return letter

    def finish_retry(self, subscription: str, position: int) -> None:
        """Remove a dead letter whose retry succeeded; one that is still parked stays."""
        known = self._by_delivery.get((subscription, position))
        if known is not None and self._by_id[known].state == "retrying":
            self.remove(subscription, position)

    def cancel_retries(self, subscription: str, positions: Iterable[int]) -> None:
        """Mark dead letters whose retry was called off as parked again, so that they can be retried later."""
        for position in positions:
            letter = self.find(subscription, position)
            if letter is not None:
                self._by_id[letter.id] = msgspec.structs.replace(letter, state="parked")

    def settle(self, subscription: str, after: int) -> None:
        """Remove dead letters above a position, which are delivered again; let the others block no key."""
        for letter in [one for one in self._by_id.values() if one.subscription == subscription]:
            if letter.position > after:
                self.remove(subscription, letter.position)
            else:
                self._by_id[letter.id] = msgspec.structs.replace(letter, state="parked", key=None)

    def blocking_keys(self, subscription: str) -> set[str]:
        """Return the keys that are blocked by a dead letter."""
        return {
            letter.key
            for letter in self._by_id.values()
            if letter.subscription == subscription and letter.key is not None
        }

    def blocks_of(self, subscription: str) -> dict[str, Block]:
        """Return a record for each key that is blocked by a dead letter."""
        return {key: Block() for key in self.blocking_keys(subscription)}

    def positions_of(self, subscription: str) -> list[int]:
        """Return the positions of a subscription's dead letters, ascending."""
        return sorted(position for name, position in self._by_delivery if name == subscription)

    def count_of(self, subscription: str) -> int:
        """Return the number of dead letters of a subscription."""
        return sum(letter.subscription == subscription for letter in self._by_id.values())

    # -- queues behind parked keys --------------------------------------------------------------------

    def queue(self, subscription: str, key: str, item: Item) -> None:
        """Queue a delivery behind a parked key."""
        self._queues.setdefault(subscription, {}).setdefault(key, deque()).append(item)
        self._queued += 1

    def take_queued(self, subscription: str, key: str) -> Item | None:
        """Remove and return the first delivery queued behind a key; None if there is none."""
        queues = self._queues.get(subscription, {})
        queue = queues.get(key)
        if queue is None:
            return None
        item = queue.popleft()
        self._queued -= 1
        if not queue:
            del queues[key]
        return item

    def queued_keys(self, subscription: str) -> list[str]:
        """Return the keys behind which deliveries are queued, whether or not a dead letter blocks them."""
        return list(self._queues.get(subscription, ()))

    def queue_length(self, subscription: str, key: str) -> int:
        """Return how many deliveries are queued behind a key."""
        return len(self._queues.get(subscription, {}).get(key, ()))

    # -- the storage port's calls ---------------------------------------------------------------------

    async def list_dead_letters(
        self,
        *,
        subscription: str | None = None,
        event_type: str | None = None,
        error_type: str | None = None,
        after: int = 0,
        limit: int = 100,
    ) -> list[DeadLetterRecord]:
        """Return dead letters with ids above ``after``, by ascending id."""
        check_bounds(limit, after=after)
        return list(islice(self._matching(subscription, event_type, error_type, after), limit))

    def _matching(
        self, subscription: str | None, event_type: str | None, error_type: str | None, after: int
    ) -> Iterator[DeadLetterRecord]:
        order = self._order
        for place in range(bisect_right(order, after), len(order)):
            letter = self._by_id.get(order[place])
            if (
                letter is not None
                and (subscription is None or letter.subscription == subscription)
                and (event_type is None or _type_of(letter) == event_type)
                and (error_type is None or letter.error_type == error_type)
            ):
                yield self._make_record(letter)

    async def group_dead_letters(self) -> list[DeadLetterGroup]:
        """Count dead letters by subscription and type of the last error, the largest group first."""
        counted = GroupsByError()
        left = iter(list(self._by_id.values()))
        while page := list(islice(left, _COUNTED_AT_ONCE)):
            counted.add(page)
            await asyncio.sleep(0)  # counting 100,000 at once would block the event loop
        return counted.groups()

    async def get_dead_letter(self, dead_letter_id: int) -> DeadLetterRecord:
        """Return a dead letter. Raises DeadLetterNotFoundError."""
        return self._make_record(self._get(dead_letter_id))

    async def begin_retry(
        self, dead_letter_id: int, payload: bytes | None, now: float
    ) -> DeadLetterRecord | None:
        """Mark a dead letter as being retried, with a new payload if given; None if it already is."""
        letter = self._get(dead_letter_id)
        if letter.state == "retrying":
            return None
        if payload is not None:
            letter = _with_payload(letter, payload)
        letter = msgspec.structs.replace(letter, state="retrying")
        self._by_id[letter.id] = letter
        return letter

    async def discard_dead_letter(self, dead_letter_id: int) -> DeadLetterRecord:
        """Remove and return a dead letter. Raises DeadLetterNotFoundError."""
        letter = self._get(dead_letter_id)
        self.remove(letter.subscription, letter.position)
        return letter

    def _get(self, dead_letter_id: int) -> DeadLetterRecord:
        try:
            return self._by_id[dead_letter_id]
        except KeyError:
            raise DeadLetterNotFoundError(dead_letter_id=dead_letter_id) from None

    def _make_record(self, letter: DeadLetterRecord) -> DeadLetterRecord:
        if letter.key is None:
            return letter
        return msgspec.structs.replace(letter, queued=self.queue_length(letter.subscription, letter.key))


def _type_of(letter: DeadLetterRecord) -> str:
    if letter.record is not None:
        return letter.record.event_type
    assert letter.event is not None
    return registry.schema_of(kind_of(letter.event)).event_type


def _with_payload(letter: DeadLetterRecord, payload: bytes) -> DeadLetterRecord:
    """Return the dead letter with an edited payload. Raises DecodeError if the payload does not fit."""
    if letter.record is not None:
        return msgspec.structs.replace(letter, record=edited(letter.record, payload))
    event = letter.event
    assert event is not None
    schema = registry.schema_of(kind_of(event))
    body = schema.decode_body(payload, letter.position)
    if isinstance(event, AdoptedEvent):
        return msgspec.structs.replace(letter, event=replace_header(event, body=body))
    values = dict(zip(schema.fields, schema.values(body), strict=True))
    return msgspec.structs.replace(letter, event=replace_header(event, **values))


def edited(record: StoredRecord, payload: bytes) -> StoredRecord:
    """Return a record with another payload and the current schema version. Raises DecodeError."""
    schema = registry.schema_named(record.event_type, record.position)
    schema.decode_body(payload, record.position)
    return record._replace(payload=payload, schema_version=schema.version)
