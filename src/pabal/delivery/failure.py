"""Act on a failed attempt: retry later, park, park the key, or stop. ``retry`` makes the decision."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import Enum, auto
from typing import TYPE_CHECKING

from pabal.delivery.bookkeeping import Failing, with_failure
from pabal.delivery.consumer import Consumer
from pabal.delivery.lane import Item, Lane
from pabal.delivery.letters_in_memory import call_off
from pabal.delivery.redelivery import NO_ROOM
from pabal.delivery.retry import GiveUp, RetryAfter, decide_retry
from pabal.delivery.subscription import UNORDERED, key_text
from pabal.delivery.tracebacks import message_of, storable, traceback_text
from pabal.domain.counting import counted
from pabal.domain.envelope import StoredRecord
from pabal.domain.event import DomainEvent, kind_of
from pabal.domain.registry import registry
from pabal.errors import UnknownEventTypeError
from pabal.ports.storage import AttemptFailure, ParkedDelivery, PendingRetry, RecoveredDelivery
from pabal.ports.telemetry import AttemptFailed, EventParked, EventSkipped

if TYPE_CHECKING:
    from pabal.delivery.engine import Engine

_TRACEBACK_MOST = 16_000
"""How many characters of a traceback are kept: its end, which names the cause."""


class Verdict(Enum):
    """Say what a worker does with the lane after a failure: go on with it, or leave it."""

    GO_ON = auto()
    SET_ASIDE = auto()


class Failures:
    """Carry out the decisions about deliveries that did not succeed."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.keeps_unknown = False
        """Park events whose type this process has not imported, instead of passing over them."""

    def failed(
        self, lane: Lane, consumer: Consumer, items: list[Item], attempt: int, error: BaseException
    ) -> Verdict:
        """Record a failed attempt, then retry, isolate, park or stop, as decided."""
        engine = self._engine
        consumer.figures.failed_attempts += 1
        items = engine.redelivery.without_discarded(consumer, items)
        if not items:
            return Verdict.GO_ON
        failure = self._describe(attempt, error)
        decision = decide_retry(consumer.subscription.retry, attempt, error, engine.random())
        if lane.isolate:
            decision = GiveUp(f"failed {counted(attempt - 1, 'attempt')} with its batch, and one on its own")
        delay = decision.delay if isinstance(decision, RetryAfter) else None
        for _, event in items[:1]:
            engine.report(
                AttemptFailed(consumer.name, event.event_id, _type_of(event), attempt, error, delay)
            )
        if isinstance(decision, GiveUp) and len(items) == 1:
            return self._give_up(lane, consumer, items[0], decision.reason, failure)
        if isinstance(decision, GiveUp):
            # One bad event must not take its batch with it, so each delivery gets a last attempt on its own.
            lane.isolate = len(items)
            lane.items.extendleft(reversed(items))
            self._remember(consumer, items, attempt, failure, 0.0)
            engine.make_ready(lane)
            return Verdict.SET_ASIDE
        self._remember(consumer, items, attempt, failure, decision.delay)
        consumer.figures.retried += len(items)
        if lane.shared:
            engine.return_later(lane, items[0], decision.delay)
            return Verdict.GO_ON
        lane.items.extendleft(reversed(items))
        engine.wait(lane, decision.delay)
        return Verdict.SET_ASIDE

    def exhausted(self, lane: Lane, consumer: Consumer, items: list[Item]) -> bool:
        """Give up deliveries whose attempts a dead process used up; return whether the lane goes on."""
        if len(items) > 1:
            lane.isolate = len(items)
            lane.items.extendleft(reversed(items))
            self._engine.make_ready(lane)
            return False
        failing = consumer.failing[items[0][0]]
        reason = f"the process died during attempt {failing.attempts} of {failing.attempts}"
        verdict = self._give_up(lane, consumer, items[0], reason, None)
        if consumer.followed:
            consumer.mark_attempted(items[0][0])
        return verdict is Verdict.GO_ON

    def succeeded(self, lane: Lane, consumer: Consumer, items: list[Item]) -> None:
        """Clean up after a success that follows a failure, a dead letter, or a wait behind a parked key."""
        for position, _ in items:
            failing = consumer.failing.get(position)
            if failing is None:
                continue
            if failing.failures and consumer.tracker is not None:
                self._keep_history(consumer, position, failing)
            if failing.from_dead_letter:
                self._engine.redelivery.done(consumer, position)
        if consumer.blocked and not lane.shared:
            self._engine.redelivery.unblock(consumer, lane)

    def unknown(self, consumer: Consumer, record: StoredRecord, error: UnknownEventTypeError) -> None:
        """Pass over an event whose type this process has not imported, or park it if ``keeps_unknown``."""
        if self.keeps_unknown:
            self.reject(consumer, record.position, None, record, error)
            return
        consumer.figures.skipped += 1
        consumer.pass_over(record.position)
        self._engine.report(EventSkipped(consumer.name, record.event_type, record.position))

    def reject(
        self,
        consumer: Consumer,
        position: int,
        event: DomainEvent | None,
        record: StoredRecord | None,
        error: BaseException,
        key: str | None = None,
    ) -> None:
        """Park an event that cannot even be delivered: it does not decode, or its ordering function raises.

        If it is a dead letter being retried, it goes on blocking its ``key``.
        """
        failure = self._describe(1, error)
        consumer.figures.failed_attempts += 1
        event_id = event.event_id if event is not None else record.id_text if record else ""
        event_type = _type_of(event) if event is not None else record.event_type if record else ""
        self._engine.report(AttemptFailed(consumer.name, event_id, event_type, 1, error, None))
        full = self._has_no_room(consumer, position)
        if full or consumer.subscription.on_exhausted == "stop":
            call_off(consumer, (position,))
            self._engine.halt(consumer, f"event {event_id} at position {position}: {message_of(error)}")
            return
        reason = message_of(error)
        earlier = consumer.failing.get(position)
        failures = with_failure(earlier.failures, failure) if earlier else (failure,)
        now = self._engine.clock.time()
        parked = ParkedDelivery(position, reason, failures, now, record, event, key, key is not None)
        self._park(consumer, parked, event_id, event_type)
        if consumer.tracker is not None:
            consumer.queued += 1  # it never entered a lane; finishing it subtracts this again
        if earlier is not None and earlier.from_dead_letter:
            self._engine.redelivery.failed(consumer, position)
        else:
            consumer.finish(position)
        if consumer.followed:
            consumer.mark_attempted(position)

    # -- inside ---------------------------------------------------------------------------------------

    def _describe(self, attempt: int, error: BaseException) -> AttemptFailure:
        text = traceback_text(error)
        return AttemptFailure(
            attempt,
            datetime.fromtimestamp(self._engine.clock.time(), UTC),
            type(error).__name__,
            message_of(error),
            storable(text[-_TRACEBACK_MOST:]),
        )

    def _remember(
        self, consumer: Consumer, items: list[Item], attempt: int, failure: AttemptFailure, delay: float
    ) -> None:
        clock = self._engine.clock
        for position, _ in items:
            earlier = consumer.failing.get(position)
            failures = with_failure(earlier.failures if earlier else (), failure)
            from_dead_letter = earlier is not None and earlier.from_dead_letter
            consumer.failing[position] = Failing(
                attempt, failures, clock.monotonic() + delay, from_dead_letter
            )
            if consumer.tracker is not None:
                consumer.unsaved.retries[position] = PendingRetry(
                    position, attempt, clock.time() + delay, failures, from_dead_letter
                )
                self._engine.settlement.mark(consumer)

    def _keep_history(self, consumer: Consumer, position: int, failing: Failing) -> None:
        """Record how a delivery recovered, for the save that clears its retry."""
        # A retried dead letter counts its attempts from 1 again, but keeps all its failures.
        attempts = max(failing.attempts, len(failing.failures)) + 1
        finished_at = self._engine.clock.time()
        consumer.unsaved.recovered.append(
            RecoveredDelivery(position, attempts, failing.failures, finished_at)
        )

    def _give_up(
        self, lane: Lane, consumer: Consumer, item: Item, reason: str, failure: AttemptFailure | None
    ) -> Verdict:
        engine = self._engine
        position, event = item
        subscription = consumer.subscription
        if self._has_no_room(consumer, position):
            reason = f"{reason}, and {NO_ROOM}"
        elif subscription.on_exhausted != "stop":
            return self._park_item(lane, consumer, item, reason, failure)
        if failure is not None:
            said = f"{failure.error_type}: {failure.message}" if failure.message else failure.error_type
            reason = f"{reason}; the last error was {said}"
        engine.pending -= 1  # it is out of its lane, so ``halt`` does not count it
        call_off(consumer, (position,))
        engine.halt(consumer, f"event {event.event_id} at position {position}: {reason}")
        return Verdict.SET_ASIDE

    def _has_no_room(self, consumer: Consumer, position: int) -> bool:
        """Return whether a delivery cannot become a dead letter; one that already is can be parked again."""
        failing = consumer.failing.get(position)
        is_kept = failing is not None and failing.from_dead_letter
        return not is_kept and self._engine.redelivery.is_full(consumer)

    def _park_item(
        self, lane: Lane, consumer: Consumer, item: Item, reason: str, failure: AttemptFailure | None
    ) -> Verdict:
        engine = self._engine
        position, event = item
        subscription = consumer.subscription
        earlier = consumer.failing.get(position)
        failures = earlier.failures if earlier else ()
        if failure is not None:
            failures = with_failure(failures, failure)
        blocks = subscription.on_exhausted == "park_key" and lane.key is not UNORDERED
        key = key_text(lane.key) if blocks else None
        parked = ParkedDelivery(position, reason, failures, engine.clock.time(), None, event, key, blocks)
        self._park(consumer, parked, event.event_id, _type_of(event))
        if earlier is not None and earlier.from_dead_letter:
            engine.redelivery.failed(consumer, position)
        else:
            consumer.finish(position)
        engine.pending -= 1
        if blocks:
            engine.redelivery.block(consumer, lane, position)
            return Verdict.SET_ASIDE
        return Verdict.GO_ON

    def _park(self, consumer: Consumer, parked: ParkedDelivery, event_id: str, event_type: str) -> None:
        consumer.figures.parked += 1
        earlier = consumer.failing.get(parked.position)
        if earlier is None or not earlier.from_dead_letter:
            self._engine.note_parked(1)
            consumer.unsaved.letters += consumer.tracker is not None
        if consumer.tracker is not None:
            consumer.unsaved.parked.append(parked)
            self._engine.settlement.mark(consumer)
        else:
            self._engine.dead_letters.park(consumer.name, parked)
        failures = parked.failures
        attempts = max(len(failures), failures[-1].attempt if failures else 0)
        self._engine.report(
            EventParked(consumer.name, event_id, event_type, parked.position, attempts, parked.reason)
        )


def _type_of(event: DomainEvent) -> str:
    return registry.schema_of(kind_of(event)).event_type
