"""``bus.dead_letters``: inspect, retry, edit and discard deliveries that were given up."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

import msgspec

from pabal.delivery.consumer import Consumer
from pabal.delivery.engine import Engine
from pabal.delivery.watermark import WatermarkTracker
from pabal.domain.envelope import decode_event
from pabal.domain.event import body_of, kind_of
from pabal.domain.registry import registry
from pabal.domain.schema import encode_json
from pabal.errors import (
    DeadLetterNotFoundError,
    DecodeError,
    InsideHandlerError,
    SubscriptionError,
    UnserializableEventError,
    UsageError,
)
from pabal.ports.storage import AttemptFailure, DeadLetterRecord, DeadLetterStore

_BATCH_SIZE = 100
"""How many dead letters are retried or discarded in one commit."""


class DeadLetter(msgspec.Struct, frozen=True, eq=False):
    """An event that a subscription gave up.

    ``attempts`` holds each failed attempt: its number, time, error type, message and traceback. ``queued`` is
    the number of events of the same key that wait behind it (``on_exhausted="park_key"``).
    """

    id: int
    subscription: str
    event_id: str
    event_type: str
    position: int
    reason: str
    attempts: tuple[AttemptFailure, ...]
    parked_at: datetime
    state: Literal["parked", "retrying"]
    key: str | None
    queued: int
    record: DeadLetterRecord

    def __repr__(self) -> str:
        """Name the delivery and the reason; payload and tracebacks would fill a page, twice."""
        where = f"{self.event_type} at position {self.position}"
        return f"<DeadLetter {self.id} of {self.subscription!r}: {where}, {self.reason}>"

    @property
    def event(self) -> Any:
        """Return the event. Raises DecodeError if its bytes fit no class; ``payload`` can still be read."""
        if self.record.event is not None:
            return body_of(self.record.event)
        assert self.record.record is not None
        return body_of(decode_event(self.record.record))

    @property
    def payload(self) -> Any:
        """Return the payload as plain values, or as bytes if it is not JSON."""
        if self.record.record is None:
            assert self.record.event is not None
            return self.record.event.to_dict()["payload"]
        try:
            return msgspec.json.decode(self.record.record.payload)
        except msgspec.DecodeError:
            return self.record.record.payload


class DeadLetters:
    """List, retry, edit and discard the dead letters of one bus."""

    def __init__(
        self, engine: Engine, storage: DeadLetterStore | None, check_running: Callable[[str], None]
    ) -> None:
        self._engine = engine
        self._store: DeadLetterStore = storage or engine.dead_letters
        self._check_running = check_running
        self._beginning: list[set[int]] = []
        """For each call whose retries are being marked, the dead letters that nobody has discarded."""

    async def list(
        self,
        *,
        subscription: str | None = None,
        event_type: str | None = None,
        error_type: str | None = None,
        after: int = 0,
        limit: int = 100,
    ) -> list[DeadLetter]:
        """Return up to ``limit`` dead letters that match every filter, by ascending id above ``after``."""
        records = await self._store.list_dead_letters(
            subscription=subscription,
            event_type=event_type,
            error_type=error_type,
            after=after,
            limit=limit,
        )
        return [_make_dead_letter(record) for record in records]

    async def get(self, dead_letter_id: int) -> DeadLetter:
        """Return a dead letter. Raises DeadLetterNotFoundError."""
        return _make_dead_letter(await self._store.get_dead_letter(dead_letter_id))

    async def retry(self, which: int | Literal["all"], **filters: str | None) -> int:
        """Deliver a dead letter once more, or ``"all"`` that match the filters of ``list``.

        Returns how many retries were begun; one that is already under way is not begun again. Each retry gets
        a fresh series of attempts; if they fail, it is parked again under the same id.

        Raises DeadLetterNotFoundError; SubscriptionError if nothing on this bus subscribes under its name, or
        it has halted; DecodeError if its bytes fit no class; InsideHandlerError in a handler while the
        subscription is being replayed, because the retry waits for the end of the replay. With ``"all"``,
        dead letters that cannot be retried are left as they are. Raises UsageError if filters are given for a
        single dead letter; ``edit_and_retry`` takes another payload.
        """
        if which != "all":
            _refuse_filters("retry", which, filters)
            return int(await self._begin_retry(which, None))
        return await self._apply_in_pages(filters, self._begin_retries)

    async def edit_and_retry(self, dead_letter_id: int, payload: Mapping[str, Any]) -> bool:
        """Replace the payload of a dead letter and deliver it again; False if a retry is already under way.

        ``payload`` holds every field, as plain values. Raises DecodeError if it does not fit the event class;
        the dead letter is then unchanged.
        """
        try:
            encoded = encode_json(dict(payload))
        except (TypeError, ValueError) as error:
            letter = await self.get(dead_letter_id)
            raise UnserializableEventError(
                event_type=letter.event_type, event_id=letter.event_id, reason=str(error)
            ) from error
        return await self._begin_retry(dead_letter_id, encoded)

    async def discard(self, which: int | Literal["all"], **filters: str | None) -> int:
        """Remove a dead letter, or ``"all"`` that match the filters, for good; return how many.

        Events queued behind it are delivered. Raises DeadLetterNotFoundError.
        """
        if which != "all":
            _refuse_filters("discard", which, filters)
            await self._tell_holders([await self._discard(which)])
            self._engine.tally.recount()
            return 1
        count = await self._apply_in_pages(filters, self._discard_batch)
        self._engine.tally.recount()
        return count

    async def _begin_retry(self, dead_letter_id: int, payload: bytes | None) -> bool:
        self._check_running("retry a dead letter")
        letter = await self._store.get_dead_letter(dead_letter_id)
        consumer = self._find_consumer(letter, payload)
        # While the subscription is being opened it loads retries from the storage: this one would run twice.
        await self._engine.background.wait_until(lambda: not consumer.is_opening)
        (outcome,) = await asyncio.shield(self._redeliver({dead_letter_id: consumer}, payload))
        _raise_errors([outcome])
        return outcome is not None

    async def _begin_retries(self, letters: Sequence[DeadLetter]) -> int:
        """Begin the retries that are possible, in one commit; return how many."""
        self._check_running("retry a dead letter")
        consumers: dict[int, Consumer] = {}
        for letter in letters:
            try:
                consumers[letter.id] = self._find_consumer(letter.record, None)
            except (DecodeError, SubscriptionError):
                continue  # it stays as it is; retrying it alone raises
        await self._engine.background.wait_until(
            lambda: not any(consumer.is_opening for consumer in consumers.values())
        )
        outcomes = await asyncio.shield(self._redeliver(consumers, None))
        _raise_errors(outcomes, allowed=(DecodeError, DeadLetterNotFoundError))
        return sum(isinstance(outcome, DeadLetterRecord) for outcome in outcomes)

    async def _redeliver(self, consumers: Mapping[int, Consumer], payload: bytes | None) -> Sequence[object]:
        """Mark dead letters as being retried and deliver them in this order; return the outcome of each.

        Must not be cancelled: one that was marked but not delivered would wait for the next start.
        """
        now = self._engine.clock.time()
        trackers: dict[int, WatermarkTracker | None] = {}
        elsewhere: set[str] = set()

        async def mark(number: int, consumer: Consumer) -> DeadLetterRecord | None:
            # An opening under way may not find the mark; one that begins from here on finds it.
            await self._engine.background.wait_until(lambda: not consumer.is_opening)
            trackers[number] = consumer.tracker
            return await self._store.begin_retry(number, payload, now)

        kept = set(consumers)
        self._beginning.append(kept)
        marks = (mark(number, consumer) for number, consumer in consumers.items())
        outcomes: Sequence[object] = await asyncio.gather(*marks, return_exceptions=True)
        self._beginning = [other for other in self._beginning if other is not kept]
        for (number, consumer), outcome in zip(consumers.items(), outcomes, strict=True):
            if not isinstance(outcome, DeadLetterRecord) or number not in kept:
                continue
            if trackers[number] is None:
                consumer.arrivals.sort_into_lanes()  # an event of its key may be in delivery without a lane
            if consumer.is_open(trackers[number]) and not self._engine.halting:
                self._engine.redelivery.redeliver(consumer, outcome)
            else:  # with a log, an opening finds the mark; without, nobody would
                self._engine.dead_letters.cancel_retries(consumer.name, (outcome.position,))
                elsewhere.add(consumer.name)
        await self._tell_holders(elsewhere)
        return outcomes

    def _find_consumer(self, letter: DeadLetterRecord, payload: bytes | None) -> Consumer:
        """Return the consumer that can take a dead letter again, with ``payload`` or its own."""
        consumer = self._engine.consumers.get(letter.subscription)
        if consumer is None:
            raise SubscriptionError(
                f"dead letter {letter.id} belongs to {letter.subscription!r}, which is not subscribed "
                "here; subscribe under that name first"
            )
        if self._engine.is_halted(letter.subscription):
            raise SubscriptionError(f"{letter.subscription!r} is halted; call bus.resume() first")
        if payload is None and letter.record is not None:
            decode_event(letter.record)  # raises before anything is changed
        if consumer.is_opening and self._engine.in_handler():
            raise InsideHandlerError(action="retry a dead letter of a subscription that is being replayed")
        return consumer

    async def _tell_holders(self, subscriptions: Iterable[str]) -> None:
        """Let other processes know what became of dead letters of the subscriptions that they hold."""
        for name in subscriptions:
            if self._engine.feed is not None:
                await self._engine.feed.controls.tell_holder(name)

    async def _discard(self, dead_letter_id: int) -> str:
        """Remove a dead letter; return the name of its subscription."""
        async with self._engine.tally.change():
            letter = await self._store.discard_dead_letter(dead_letter_id)
            self._engine.note_parked(-1)
        for kept in self._beginning:
            kept.discard(dead_letter_id)
        consumer = self._engine.consumers.get(letter.subscription)
        if consumer is not None:
            self._engine.redelivery.discarded(consumer, letter)
        return letter.subscription

    async def _discard_batch(self, letters: Sequence[DeadLetter]) -> int:
        """Remove dead letters in one commit; return how many still existed."""
        discards = (self._discard(letter.id) for letter in letters)
        outcomes = await asyncio.gather(*discards, return_exceptions=True)
        of_discarded = [outcome for outcome in outcomes if isinstance(outcome, str)]
        await self._tell_holders(set(of_discarded))
        # One that is gone has succeeded in a retry, or another caller discarded it.
        _raise_errors(outcomes, allowed=(DeadLetterNotFoundError,))
        return len(of_discarded)

    async def _apply_in_pages(
        self, filters: Mapping[str, str | None], action: Callable[[Sequence[DeadLetter]], Awaitable[int]]
    ) -> int:
        """Call ``action`` for all that match now, one commit at a time; return the sum of its results.

        Each page is read only when it is due, so memory does not grow with the number of dead letters. A dead
        letter that is parked again keeps its id; one parked since the call has an id above ``last``.
        """
        last = max((group.newest_id for group in await self._store.group_dead_letters()), default=0)
        count = after = 0
        while after < last:
            page = await self.list(after=after, limit=_BATCH_SIZE, **filters)
            letters = [letter for letter in page if letter.id <= last]
            if not letters:
                break
            after = letters[-1].id
            count += await action(letters)
            await asyncio.sleep(0)  # with dead letters in memory, nothing else yields to the event loop
        return count


def _raise_errors(outcomes: Iterable[object], *, allowed: tuple[type[Exception], ...] = ()) -> None:
    """Raise the first outcome that is an error of a type not allowed."""
    for outcome in outcomes:
        if isinstance(outcome, BaseException) and not isinstance(outcome, allowed):
            raise outcome


def _refuse_filters(call: str, dead_letter_id: int, filters: Mapping[str, Any]) -> None:
    if filters:
        raise UsageError(
            f"{call}({dead_letter_id}) was given {', '.join(filters)}; use filters with {call}('all'), "
            "and edit_and_retry() to change the payload"
        )


def _make_dead_letter(record: DeadLetterRecord) -> DeadLetter:
    if record.record is not None:
        event_id, event_type = record.record.id_text, record.record.event_type
    else:
        assert record.event is not None
        event_id = record.event.event_id
        event_type = registry.schema_of(kind_of(record.event)).event_type
    return DeadLetter(
        id=record.id,
        subscription=record.subscription,
        event_id=event_id,
        event_type=event_type,
        position=record.position,
        reason=record.reason,
        attempts=record.failures,
        parked_at=record.parked_at,
        state=record.state,
        key=record.key,
        queued=record.queued,
        record=record,
    )
