"""The dead letters of a group: every process sees those that any process parked."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from pabal.brokers.redis.cursors import (
    UNREADABLE,
    SavedLetter,
    as_pairs,
    decode_letter,
    encode_retry,
    encode_row,
    field,
    letter_place,
    queue_key,
    shown_letter,
)
from pabal.brokers.redis.keys import GroupKeys
from pabal.brokers.redis.link import Link
from pabal.brokers.redis.scripts import script
from pabal.delivery.dead_letters import edited
from pabal.delivery.turns import iter_slices
from pabal.errors import DeadLetterNotFoundError, DecodeError
from pabal.ports.arguments import check_bounds
from pabal.ports.records import GroupsByError
from pabal.ports.storage import DeadLetterGroup, DeadLetterRecord, PendingRetry

_PAGE = 200
_DAMAGED = "the dead letter cannot be read; discard it"


class Linked(Protocol):
    """An object connected to a server: a log that was joined, or an inspector."""

    @property
    def link(self) -> Link:
        """Return the connection."""
        ...


class GroupDeadLetters:
    """List, retry and discard the dead letters of one group, or of one of its partitions."""

    def __init__(self, log: Linked, keys: GroupKeys, partition: int | None = None) -> None:
        self._log = log
        self._keys = keys
        self._partition = partition

    async def list_dead_letters(
        self,
        *,
        subscription: str | None = None,
        event_type: str | None = None,
        error_type: str | None = None,
        after: int = 0,
        limit: int = 100,
    ) -> list[DeadLetterRecord]:
        """Return up to ``limit`` matching dead letters by ascending id, above the id ``after``."""
        check_bounds(limit, after=after)
        found: list[DeadLetterRecord] = []
        bound = str(after)
        while len(found) < limit:
            ids = await self._log.link.call(
                "ZRANGEBYSCORE", self._keys.letter_ids, f"({bound}", "+inf", "WITHSCORES", "LIMIT", 0, _PAGE
            )
            if not ids:
                break
            bound = ids[-1].decode()
            numbers = [int(one) for one in ids[::2] if one.isdigit()]  # pabal assigns no other ids
            for _, record in await self._load(numbers, subscription):
                assert record.record is not None
                if event_type in (None, record.record.event_type) and (
                    error_type is None or record.error_type == error_type
                ):
                    found.append(record)
        return found[:limit]

    async def group_dead_letters(self) -> list[DeadLetterGroup]:
        """Count dead letters by subscription and type of their last error, largest group first."""
        counted = GroupsByError()
        after = 0
        while page := await self.list_dead_letters(after=after, limit=_PAGE):
            counted.add(page)
            after = page[-1].id
        return counted.groups()

    async def get_dead_letter(self, dead_letter_id: int) -> DeadLetterRecord:
        """Return one dead letter. Raises DeadLetterNotFoundError."""
        return (await self.find(dead_letter_id))[1]

    async def find_dead_letters(self, dead_letter_ids: Sequence[int]) -> list[DeadLetterRecord]:
        """Return those of some dead letters that there are, in this order."""
        return [record for _, record in await self._load(dead_letter_ids)]

    async def find(self, dead_letter_id: int) -> tuple[int, DeadLetterRecord]:
        """Return a dead letter's partition and the dead letter. Raises DeadLetterNotFoundError."""
        for letter, record in await self._load([dead_letter_id]):
            return letter.partition, record
        raise DeadLetterNotFoundError(dead_letter_id=dead_letter_id)

    async def count(self) -> int:
        """Return how many dead letters there are, those of forgotten subscriptions included."""
        return (await self.count_by_name()).total()

    async def count_by_name(self) -> Counter[bytes]:
        """Return how many dead letters each name has, those of forgotten subscriptions included."""
        found: Counter[bytes] = Counter()
        async for some in iter_slices(await self._log.link.call("HKEYS", self._keys.letter_index)):
            places = filter(None, map(letter_place, some))
            found.update(name for partition, name, _ in places if self._partition in (None, partition))
        return found

    async def _load(
        self, ids: Sequence[int], subscription: str | None = None
    ) -> list[tuple[SavedLetter, DeadLetterRecord]]:
        """Return the dead letters with these ids, of this partition and of ``subscription`` if given."""
        if not ids:
            return []
        call = self._log.link.call
        keys = self._keys
        calls = [call("HMGET", key, *ids) for key in (keys.letters, keys.letter_rows, keys.letter_states)]
        bodies, rows, states = [await one for one in calls]
        found = [
            # A missing one was discarded in between.
            (number, decode_letter(body) or await self._as_indexed(number), row, state)
            for number, body, row, state in zip(ids, bodies, rows, states, strict=True)
            if body is not None and row is not None
        ]
        # Not later: each partition loads the dead letters of all others when it is taken.
        found = [
            one
            for one in found
            if self._partition in (None, one[1].partition) and subscription in (None, one[1].subscription)
        ]
        # Ask about all at once: thousands of blocking dead letters would take thousands of round trips.
        asked = [self._ask_behind(number, letter) for number, letter, _, _ in found]
        loaded: list[tuple[SavedLetter, DeadLetterRecord]] = []
        for (number, letter, row, state), behind in zip(found, asked, strict=True):
            queued = 0
            if behind is not None:
                blocks, queued = await behind[0], int(await behind[1])
                if not blocks:  # a reset has ended the blocking; others of the key may block it now
                    letter, queued = msgspec.structs.replace(letter, key=None), 0
            loaded.append((letter, shown_letter(number, letter, row, state, queued)))
        return loaded

    def _ask_behind(
        self, number: int, letter: SavedLetter
    ) -> tuple[asyncio.Future[Any], asyncio.Future[Any]] | None:
        """Send the questions whether a dead letter blocks its key, and how many events queue behind it."""
        if letter.key is None:
            return None
        call, of = self._log.link.call, self._keys.of(letter.partition)
        prefix = f"{letter.subscription}\0{queue_key(letter.key)}"
        return (
            call("HEXISTS", of.blocking, field(letter.subscription, number)),
            call("ZLEXCOUNT", of.queue, f"[{prefix}\0", f"({prefix}\1"),
        )

    async def _as_indexed(self, number: int) -> SavedLetter:
        """Return what the index says about a dead letter that is damaged or foreign."""
        name, partition, position = "", 0, 0
        for at, found in as_pairs(await self._log.link.call("HGETALL", self._keys.letter_index)).items():
            place = letter_place(at)
            if place is not None and found == b"%d" % number:
                partition, known, position = place
                name = known.decode(errors="replace")
        return SavedLetter(name, partition, position, _DAMAGED, (), 0.0, None)

    async def begin_retry(
        self, dead_letter_id: int, payload: bytes | None, now: float
    ) -> DeadLetterRecord | None:
        """Mark a dead letter as being retried, and return it; None if it is being retried already.

        ``payload``, if given, replaces its own. Raises DeadLetterNotFoundError, and DecodeError if the dead
        letter cannot be decoded.
        """
        partition, letter = await self.find(dead_letter_id)
        assert letter.record is not None
        if not letter.subscription or letter.record.event_type == UNREADABLE:
            raise DecodeError(event_type=UNREADABLE, position=letter.position, reason=_DAMAGED)
        row = b""
        if payload is not None:
            row = encode_row(edited(letter.record, payload))
        retry = PendingRetry(letter.position, 0, now, letter.failures, from_dead_letter=True)
        keys = self._keys.of(partition)
        begun = await self._log.link.run(
            script("retry"),
            (self._keys.letter_states, self._keys.letter_rows, keys.retries, keys.calls),
            dead_letter_id,
            row,
            field(letter.subscription, letter.position),
            encode_retry(retry),
        )
        if begun == -1:
            raise DeadLetterNotFoundError(dead_letter_id=dead_letter_id)
        return await self.get_dead_letter(dead_letter_id) if begun else None

    async def discard_dead_letter(self, dead_letter_id: int) -> DeadLetterRecord:
        """Delete a dead letter and return it. Raises DeadLetterNotFoundError."""
        partition, letter = await self.find(dead_letter_id)
        keys = self._keys.of(partition)
        at = field(letter.subscription, letter.position)
        gone = await self._log.link.run(
            script("discard"),
            (
                self._keys.letters,
                self._keys.letter_rows,
                self._keys.letter_states,
                self._keys.letter_index,
                self._keys.letter_ids,
                keys.retries,
                keys.blocking,
                keys.calls,
            ),
            dead_letter_id,
            f"{partition}\0{at}",
            at,
            field(letter.subscription, dead_letter_id),
            f"{at}\0{letter.key or ''}",
        )
        if not gone:
            raise DeadLetterNotFoundError(dead_letter_id=dead_letter_id)
        return letter
