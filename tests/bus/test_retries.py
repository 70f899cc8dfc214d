"""Failed attempts: how many there are, when, and for which errors. Promises 22 and 24."""

from __future__ import annotations

import re
from datetime import timedelta
from decimal import Decimal
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pabal import DomainEvent, NotRetryableError, RetryPolicy
from pabal.delivery.retry import GiveUp, RetryAfter, decide_retry
from pabal.domain.registry import registry
from pabal.errors import DecodeError, SubscriptionError
from pabal.ports.telemetry import AttemptFailed, EventParked
from pabal.testing import VirtualClock
from tests.bus.samples import Moved, NoteTaken
from tests.bus.support import ONE_ATTEMPT, Backend, Recorder, numbers, reports_of, statistics_of


class OddError(BaseException):
    """An exception as some libraries raise it to bypass ``except Exception``."""


async def attempt_times(backend: Backend, clock: VirtualClock, **options: Any) -> list[float]:
    """Return the times at which a handler that always fails was called, until its event was parked."""
    bus = await backend.start_bus(clock=clock)
    times: Recorder[float] = Recorder()
    parked = reports_of(bus, EventParked)

    async def fail(event: Moved) -> None:
        times.add(clock.monotonic())
        raise ValueError("no")

    bus.subscribe(Moved, fail, **options)
    await bus.publish(Moved("rook"))
    await times.reach(1)
    await clock.advance(25)
    await parked.reach(1)
    await bus.drain(60)
    return list(times)


@pytest.mark.parametrize("count", [1, 2, 5])
async def test_a_delivery_is_attempted_exactly_as_often_as_its_policy_says(
    backend: Backend, count: int
) -> None:
    """Promise 22. One attempt too few loses a delivery, one too many repeats a side effect."""
    times = await attempt_times(backend, VirtualClock(), retry=RetryPolicy(max_attempts=count))
    assert len(times) == count


async def test_the_default_is_three_retries(backend: Backend) -> None:
    """A delivery would be attempted more or less often than the documentation states."""
    assert len(await attempt_times(backend, VirtualClock())) == 4


@pytest.mark.parametrize("retries", [0, 1, 6])
async def test_retry_count_counts_the_attempts_after_the_first(backend: Backend, retries: int) -> None:
    """The option counts retries, a policy counts attempts: one more."""
    assert len(await attempt_times(backend, VirtualClock(), retry_count=retries)) == retries + 1


async def test_delays_grow_exponentially_up_to_the_limit(backend: Backend) -> None:
    """Promise 22. The virtual clock shows each delay to the microsecond."""
    policy = RetryPolicy(max_attempts=7, base_delay=1.0, multiplier=2.0, max_delay=5.0, jitter=0.0)
    times = await attempt_times(backend, VirtualClock(), retry=policy)
    assert times == pytest.approx([0, 1, 3, 7, 12, 17, 22])


async def test_a_delivery_without_a_key_follows_the_same_delays(backend: Backend) -> None:
    """Promise 22. Retries without a key are kept elsewhere than those that block their key."""
    clock = VirtualClock()
    bus = await backend.start_bus(clock=clock)
    times: Recorder[float] = Recorder()

    async def fail(event: NoteTaken) -> None:
        times.add(clock.monotonic())
        raise ValueError("no")

    bus.subscribe(
        NoteTaken, fail, retry=RetryPolicy(max_attempts=4, base_delay=0.5, multiplier=3.0, jitter=0.0)
    )
    await bus.publish(NoteTaken())
    await times.reach(1)
    await clock.advance(8)
    await bus.drain(60)
    assert list(times) == pytest.approx([0, 0.5, 2.0, 6.5])


async def test_a_retry_is_not_attempted_before_it_is_due(backend: Backend) -> None:
    """A new event, or any other wake-up, must not bring a retry forward."""
    clock = VirtualClock()
    bus = await backend.start_bus(clock=clock)
    failed = reports_of(bus, AttemptFailed)
    seen: Recorder[Moved] = Recorder()

    async def fail_first(event: Moved) -> None:
        seen.add(event)
        if event.piece == "rook":
            raise ValueError("no")

    bus.subscribe(Moved, fail_first, retry=RetryPolicy(max_attempts=2, base_delay=60, max_delay=60, jitter=0))
    await bus.publish(Moved("rook", 1))
    await failed.reach(1)
    await clock.advance(59.9)
    await bus.publish(Moved("knight", 2))
    await seen.reach(2)
    await bus.drain(10, retries=False)
    assert numbers(seen) == [1, 2]
    assert bus.get_statistics()["retry_queue_size"] == 1
    await clock.advance(0.2)
    await seen.reach(3)
    assert numbers(seen) == [1, 2, 1]
    await bus.drain(60)


async def test_jitter_spreads_the_delays_within_its_bounds(backend: Backend) -> None:
    """Promise 22. Without jitter, a thousand failed deliveries would return at the same moment."""
    clock = VirtualClock()
    bus = await backend.start_bus(clock=clock)
    delays: Recorder[AttemptFailed] = reports_of(bus, AttemptFailed)

    async def fail(event: NoteTaken) -> None:
        raise ValueError("no")

    bus.subscribe(NoteTaken, fail, retry=RetryPolicy(max_attempts=2, base_delay=10.0, jitter=0.25))
    await bus.publish_batch([NoteTaken(n) for n in range(200)])
    await delays.reach(200)
    spread = [report.delay for report in delays if report.delay is not None]
    assert len(spread) == 200
    assert all(7.5 <= delay <= 12.5 for delay in spread)
    assert len(set(spread)) > 150
    assert min(spread) < 8.5 < 11.5 < max(spread)
    await clock.advance(13)
    await bus.drain(60)
    assert len(await bus.dead_letters.list(limit=1000)) == 200


policies = st.builds(
    RetryPolicy,
    max_attempts=st.integers(1, 1000),
    base_delay=st.floats(0, 1000),
    max_delay=st.floats(0, 1000),
    multiplier=st.floats(1, 100),
    jitter=st.floats(0, 1),
)


@given(policies, st.integers(1, 1000), st.floats(0, 1, exclude_max=True))
def test_a_delay_never_leaves_the_bounds_of_its_policy(
    policy: RetryPolicy, attempt: int, chance: float
) -> None:
    """Promise 22. The exponent could overflow, or jitter exceed the maximum."""
    exact = Decimal(policy.base_delay) * Decimal(policy.multiplier) ** (attempt - 1)
    plain = float(min(Decimal(policy.max_delay), exact))
    delay = policy.delay_after(attempt, chance)
    assert 0 <= delay <= policy.max_delay
    assert plain * (1 - policy.jitter) * 0.999999 <= delay <= plain * (1 + policy.jitter) * 1.000001 + 1e-300


@given(policies, st.integers(1, 1001), st.floats(0, 1, exclude_max=True))
def test_the_decision_is_to_retry_exactly_while_attempts_remain(
    policy: RetryPolicy, attempt: int, chance: float
) -> None:
    """Promise 22. The decision is a pure function, so every combination can be tried."""
    decision = decide_retry(policy, attempt, ValueError(), chance)
    assert isinstance(decision, RetryAfter if attempt < policy.max_attempts else GiveUp)


@pytest.mark.parametrize(
    "values",
    [
        {"max_attempts": 0},
        {"base_delay": -1.0},
        {"max_delay": -1.0},
        {"multiplier": 0.5},
        {"jitter": -0.1},
        {"jitter": 1.1},
    ],
)
def test_a_retry_policy_rejects_values_out_of_range(values: dict[str, Any]) -> None:
    """A policy of zero attempts would park every event unattempted."""
    with pytest.raises(SubscriptionError):
        RetryPolicy(**values)


@pytest.mark.parametrize(
    ("name", "value"),
    [("max_attempts", "3"), ("base_delay", timedelta(seconds=1)), ("multiplier", None), ("jitter", "0.1")],
)
def test_a_retry_policy_rejects_a_value_of_another_type_and_shows_it(name: str, value: Any) -> None:
    """A duration would end in a TypeError about ``>=``, and the text '3' be reported as the number 3."""
    with pytest.raises(
        SubscriptionError, match=f"RetryPolicy.{name} is {re.escape(repr(value))}; it must be"
    ):
        RetryPolicy(**{name: value})


@pytest.mark.parametrize(
    ("policy", "error"),
    [
        (RetryPolicy(), NotRetryableError("not listed")),
        (RetryPolicy(never=(LookupError,)), KeyError("k")),
        (RetryPolicy(retry_on=(ConnectionError,)), ValueError("v")),
        (RetryPolicy(retry_on=(ConnectionError,), never=(BrokenPipeError,)), BrokenPipeError()),
        (RetryPolicy(), OddError("odd")),
    ],
)
async def test_a_non_retryable_error_parks_the_event_after_one_attempt(
    backend: Backend, policy: RetryPolicy, error: BaseException
) -> None:
    """Promise 24. Retrying a hopeless delivery only delays later events of its key."""
    bus = await backend.start_bus(worker_count=1)
    seen: Recorder[Moved] = Recorder()

    async def fail(event: Moved) -> None:
        seen.add(event)
        if event.n == 1:
            raise error

    bus.subscribe(Moved, fail, retry=policy)
    await bus.publish_batch([Moved("rook", 1), Moved("rook", 2)])
    await bus.drain(60)
    assert numbers(seen) == [1, 2]
    [letter] = await bus.dead_letters.list()
    assert (letter.event, len(letter.attempts)) == (Moved("rook", 1), 1)
    assert letter.attempts[0].error_type == type(error).__name__


async def test_an_error_in_retry_on_is_retried(backend: Backend) -> None:
    """An error listed in ``retry_on`` would be parked at once, as if it were not listed."""
    bus = await backend.start_bus()
    seen: Recorder[Moved] = Recorder()

    async def fail_once(event: Moved) -> None:
        seen.add(event)
        if len(seen) == 1:
            raise ConnectionResetError

    bus.subscribe(Moved, fail_once, retry=RetryPolicy(base_delay=0, retry_on=(ConnectionError,)))
    await bus.publish(Moved("rook", 1))
    await bus.drain(60)
    assert len(seen) == 2
    assert await bus.dead_letters.list() == []


async def test_a_success_after_failures_leaves_no_dead_letter_and_is_counted_once(backend: Backend) -> None:
    """An event that is retried and succeeds counts as handled once, not once per attempt."""
    bus = await backend.start_bus()
    calls = 0

    @bus.on(Moved, name="third-time", retry=RetryPolicy(max_attempts=3, base_delay=0))
    async def third_time(event: Moved) -> None:
        nonlocal calls
        calls += 1
        if calls < 3:
            raise ValueError(calls)

    await bus.publish(Moved("rook"))
    await bus.drain(60)
    counted = statistics_of(bus, "third-time")
    assert (counted["handled"], counted["failed_attempts"], counted["retried"], counted["parked"]) == (
        1,
        2,
        2,
        0,
    )
    assert bus.get_statistics()["events_processed"] == 1
    assert await bus.dead_letters.list() == []


async def test_a_payload_that_cannot_be_decoded_is_parked_at_once_with_its_bytes(stored: Backend) -> None:
    """Promise 24. A changed class must neither lose events written by the old one, nor stop later events."""
    with registry.isolated():

        class Parcel(DomainEvent):
            event_type: ClassVar[str] = "parcel.sent"
            weight: str

        bus = await stored.start_bus()
        await bus.publish_batch([Parcel("heavy"), Parcel("12")])
        bus = await stored.reopen(bus)

    def redefine() -> Any:
        class Parcel(DomainEvent):
            event_type: ClassVar[str] = "parcel.sent"
            weight: str

            def __post_init__(self) -> None:
                if not self.weight.isdecimal():
                    raise ValueError("weight is a number now")

        return Parcel

    with registry.isolated():
        parcel = redefine()
        seen: Recorder[Any] = Recorder()
        await bus.start()

        async def weigh(event: Any) -> None:
            seen.add(event)

        bus.subscribe(parcel, weigh, name="scales", start="beginning", retry=RetryPolicy(max_attempts=5))
        await bus.drain(60)
        assert [event.weight for event in seen] == ["12"]
        [letter] = await bus.dead_letters.list()
        assert len(letter.attempts) == 1
        assert letter.attempts[0].error_type == "DecodeError"
        assert letter.record.record is not None
        assert letter.record.record.payload == b'{"weight":"heavy"}'
        assert letter.payload == {"weight": "heavy"}
        with pytest.raises(DecodeError, match="weight is a number now"):
            _ = letter.event
        with pytest.raises(DecodeError):
            await bus.dead_letters.retry(letter.id)
        assert await bus.dead_letters.retry("all") == 0
        assert await bus.dead_letters.edit_and_retry(letter.id, {"weight": "7"})
        await bus.drain(60)
        assert [event.weight for event in seen] == ["12", "7"]
        assert await bus.dead_letters.list() == []
        await bus.stop()


async def test_the_failures_of_one_event_do_not_count_for_the_next(backend: Backend) -> None:
    """Attempts are counted per delivery; earlier failures of a subscription must not count for the next
    event.
    """
    bus = await backend.start_bus()
    seen: Recorder[int] = Recorder()

    async def fail(event: Moved) -> None:
        seen.add(event.n)
        raise ValueError("no")

    bus.subscribe(Moved, fail, retry=RetryPolicy(max_attempts=3, base_delay=0))
    for n in range(3):
        await bus.publish(Moved("rook", n))
        await bus.drain(60)
    assert seen == [0, 0, 0, 1, 1, 1, 2, 2, 2]


async def test_failures_of_one_subscription_do_not_affect_the_others(backend: Backend) -> None:
    """Each subscription counts its own attempts: a success of one must not be repeated because another
    failed.
    """
    bus = await backend.start_bus()
    seen: Recorder[int] = Recorder()

    async def fail(event: Moved) -> None:
        raise ValueError("no")

    async def note(event: Moved) -> None:
        seen.add(event.n)

    bus.subscribe(Moved, fail, retry=RetryPolicy(max_attempts=3, base_delay=0))
    bus.subscribe(Moved, note, retry=ONE_ATTEMPT)
    await bus.publish_batch([Moved("rook", n) for n in range(5)])
    await bus.drain(60)
    assert numbers(await _dead_letter_events(bus)) == [0, 1, 2, 3, 4]
    assert seen == [0, 1, 2, 3, 4]


async def _dead_letter_events(bus: Any) -> list[Any]:
    return [letter.event for letter in await bus.dead_letters.list()]


async def test_a_bus_without_a_log_keeps_no_record_of_recovered_deliveries(memory: Backend) -> None:
    """It would never be saved, so a bus that runs for months would grow with each retry."""
    handled: Recorder[int] = Recorder()
    failed: set[int] = set()

    async def fail_once(event: Moved) -> None:
        if event.n not in failed:
            failed.add(event.n)
            raise ValueError("not now")
        handled.add(event.n)

    bus = await memory.start_bus()
    bus.subscribe(Moved, fail_once, name="mover", retry=RetryPolicy(max_attempts=2, base_delay=0.0))
    await bus.publish_batch([Moved(f"p{n}", n) for n in range(20)])
    await bus.drain(60)
    assert len(handled) == 20
    [consumer] = bus._engine.consumers.values()
    assert not consumer.failing
    assert not consumer.unsaved.cleared
