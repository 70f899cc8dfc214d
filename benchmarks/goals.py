"""The performance goals of the project, and whether a run reached them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from benchmarks.charts import short
from benchmarks.model import PABAL, Outcome, Series, ratio
from benchmarks.scenarios import (
    catch_up,
    commands,
    durable,
    growth,
    importing,
    in_memory,
    isolation,
    latency,
    memory,
    processes,
    recovery,
    redis_streams,
    retention,
    sourcing,
    specification,
)

Outcomes = Mapping[str, Outcome]


class Verdict(NamedTuple):
    """The verdict on a goal; ``met`` is None if it was not measured."""

    scenario: str
    goal: str
    measured: str
    met: bool | None


class SeriesKey(NamedTuple):
    """Identify one series."""

    scenario: str
    case: str
    rival: str
    metric: str

    def find(self, outcomes: Outcomes) -> Series | None:
        """Return the series if it was measured, else None."""
        outcome = outcomes.get(self.scenario)
        series = None if outcome is None else outcome.find(self.case, self.rival, self.metric)
        return series if series is not None and series.measured else None


class Goal(Protocol):
    """A goal that can be judged by the outcomes."""

    def judge(self, outcomes: Outcomes) -> Verdict:
        """Return the verdict."""
        ...


class Quotient(NamedTuple):
    """Require one figure to be at least, or at most, ``factor`` times another figure of the same run."""

    scenario: str
    mine: SeriesKey
    theirs: SeriesKey
    factor: float
    words: str
    at_most: bool = False

    def judge(self, outcomes: Outcomes) -> Verdict:
        """Compare round by round; the median of the quotients decides."""
        goal = f"{'≤' if self.at_most else '≥'} {self.factor:g} × {self.words}"
        mine, theirs = self.mine.find(outcomes), self.theirs.find(outcomes)
        quotient = None if mine is None or theirs is None else ratio(mine, theirs)
        if mine is None or theirs is None or quotient is None:
            return Verdict(self.scenario, goal, "", None)
        met = quotient.median <= self.factor if self.at_most else quotient.median >= self.factor
        measured = (
            f"{quotient.median:.2f} × ({quotient.low:.2f}–{quotient.high:.2f}): "
            f"{short(mine.median)} to {short(theirs.median)} {self.mine.metric}"
        )
        return Verdict(self.scenario, goal, measured, met)


class Bound(NamedTuple):
    """Require a figure to be at most, or at least, ``limit``."""

    scenario: str
    key: SeriesKey
    limit: float
    words: str
    at_least: bool = False

    def judge(self, outcomes: Outcomes) -> Verdict:
        """Compare the median with the limit."""
        series = self.key.find(outcomes)
        if series is None:
            return Verdict(self.scenario, self.words, "", None)
        measured = f"{short(series.median)} ({short(series.low)}–{short(series.high)}) {self.key.metric}"
        met = series.median >= self.limit if self.at_least else series.median <= self.limit
        return Verdict(self.scenario, self.words, measured, met)


def _in_memory(rival: str, handlers: int = 1, keys: int = 1) -> SeriesKey:
    return SeriesKey(in_memory.NAME, in_memory.case_name(handlers, keys, "asyncio"), rival, in_memory.METRIC)


def _durable(rival: str, publishers: int) -> SeriesKey:
    return SeriesKey(durable.NAME, durable.case_name(publishers, "full"), rival, durable.METRIC)


def _sourcing(case: str, metric: str) -> Quotient:
    mine, theirs = (SeriesKey(sourcing.NAME, case, rival, metric) for rival in (PABAL, sourcing.THEIRS))
    return Quotient(case, mine, theirs, 3, "eventsourcing")


def _batched(rival: str) -> SeriesKey:
    return SeriesKey(durable.BATCH_NAME, durable.case_name(4, "full", 1_000), rival, durable.METRIC)


def _restarted(metric: str) -> SeriesKey:
    return SeriesKey(recovery.NAME, recovery.STOPPED, PABAL, metric)


def _between_processes(metric: str) -> SeriesKey:
    return SeriesKey(processes.NAME, processes.CASE, PABAL, metric)


def _latency(metric: str) -> SeriesKey:
    return SeriesKey(latency.NAME, latency.case_name(20_000), PABAL, metric)


def _batch_publish(rival: str) -> SeriesKey:
    return SeriesKey(in_memory.BATCH_NAME, in_memory.case_name(1, 1_000, "asyncio"), rival, in_memory.METRIC)


def _growth(active: int) -> Quotient:
    case = growth.case_name(active)
    return Quotient(
        f"cost at 5,000,000 events, {case}",
        SeriesKey(growth.NAME, case, growth.LARGE, growth.METRIC),
        SeriesKey(growth.NAME, case, growth.SMALL, growth.METRIC),
        1.3,
        "the cost at 100,000",
        at_most=True,
    )


def _beside(case: str, neighbour: str, metric: str) -> SeriesKey:
    return SeriesKey(isolation.NAME, case, neighbour, metric)


def _through(rival: str) -> SeriesKey:
    return SeriesKey(redis_streams.NAME, redis_streams.THROUGH, rival, redis_streams.RATE)


def _shared(rival: str) -> SeriesKey:
    return SeriesKey(redis_streams.NAME, redis_streams.SHARED, rival, redis_streams.RATE)


def _queued(case: str) -> SeriesKey:
    return SeriesKey(memory.NAME, case, PABAL, memory.PER_EVENT)


_ONE = "in memory, 1 handler, 1 key"
_MANY = "in memory, 1 handler, 1,000 keys"
_RESTART = "restart with 1,000,000 events, 10 subscriptions"
_HUNDRED = "on disk, full, 100 publishers"

GOALS: tuple[Goal, ...] = (
    Quotient(_ONE, _in_memory(PABAL), _in_memory(in_memory.REFERENCE), 1.5, "asyncio.Queue with 4 workers"),
    Quotient(
        _MANY,
        _in_memory(PABAL, 1, 1_000),
        _in_memory(in_memory.REFERENCE, 1, 1_000),
        1.5,
        "asyncio.Queue with 4 workers",
    ),
    Quotient(_ONE, _in_memory(PABAL), _in_memory("deque, 1 worker"), 0.3, "a bare deque worker"),
    Quotient(_ONE, _in_memory(PABAL), _in_memory("nautilus_trader"), 2, "nautilus_trader's message bus"),
    Quotient(_ONE, _in_memory(PABAL), _in_memory("pyee"), 10, "pyee"),
    Quotient(_MANY, _in_memory(PABAL), _in_memory(PABAL, 1, 1_000), 1.25, "the time of 1 key", at_most=True),
    Quotient("in memory, 3 handlers, 1 key", _in_memory(PABAL, 3), _in_memory(PABAL), 0.45, "one handler"),
    Quotient(
        "in memory, publish_batch(1,000)",
        _batch_publish("pabal, publish_batch(1,000)"),
        _batch_publish("pabal, publish"),
        1.5,
        "single publishes",
    ),
    Bound("in memory, 20,000 events/s", _latency("p50 ms"), 0.1, "p50 publish→handler ≤ 0.1 ms"),
    Bound("in memory, 20,000 events/s", _latency("p99 ms"), 0.1, "p99 publish→handler ≤ 0.1 ms"),
    Quotient(
        "a subscription that always fails, in memory",
        _beside(isolation.MEMORY, isolation.FAILING, isolation.P99),
        _beside(isolation.MEMORY, isolation.ALONE, isolation.P99),
        1.1,
        "the others' p99 without it",
        at_most=True,
    ),
    Quotient(
        "a subscription of an event a second, on disk",
        _beside(isolation.DISK, isolation.SLOW, isolation.RATE),
        _beside(isolation.DISK, isolation.ALONE, isolation.RATE),
        0.95,
        "publishing and the others without it",
    ),
    Quotient(
        _HUNDRED, _durable(PABAL, 100), _durable(durable.RAW, 100), 0.65, "raw sqlite3 in batches of 100"
    ),
    Quotient(_HUNDRED, _durable(PABAL, 100), _durable("eventsourcing", 100), 30, "eventsourcing"),
    Quotient(_HUNDRED, _durable(PABAL, 100), _durable("persist-queue", 100), 30, "persist-queue"),
    Quotient(_HUNDRED, _durable(PABAL, 100), _durable("huey", 100), 30, "huey with fsync"),
    Quotient(
        "on disk, full, 1 publisher",
        _durable(PABAL, 1),
        _durable(durable.RAW, 1),
        0.75,
        "raw sqlite3 with a commit per event and per completion",
    ),
    Quotient(
        "on disk, full, publish_batch(1000) from 4 publishers",
        _batched(PABAL),
        _batched(durable.RAW),
        1.3,
        "raw sqlite3 with both indexes, batches of 1,000",
    ),
    Quotient(
        "catch-up with a batch handler",
        SeriesKey(catch_up.NAME, catch_up.CASE, catch_up.BATCHED, catch_up.METRIC),
        SeriesKey(catch_up.NAME, catch_up.CASE, catch_up.RAW, catch_up.METRIC),
        0.5,
        "raw select + decode",
    ),
    Bound(
        "catch-up with a batch handler",
        SeriesKey(catch_up.NAME, catch_up.CASE, catch_up.BATCHED, catch_up.METRIC),
        100_000,
        "≥ 100,000 events/s",
        at_least=True,
    ),
    Bound(_RESTART, _restarted(recovery.STARTED), 1_000, "ready in under 1 s"),
    Bound(_RESTART, _restarted(recovery.GROWTH), 50, "memory grows by less than 50 MB"),
    Bound("from one process to another", _between_processes("p50 ms"), 5, "p50 publish→handler ≤ 5 ms"),
    Bound("from one process to another", _between_processes("p99 ms"), 15, "p99 publish→handler ≤ 15 ms"),
    _sourcing(sourcing.SAVE, sourcing.COMMANDS),
    _sourcing(sourcing.LOAD, sourcing.LOADS),
    Bound(
        "rebuild a read model from 1,000,000 events",
        SeriesKey(sourcing.NAME, sourcing.REBUILD, PABAL, sourcing.EVENTS),
        50_000,
        "≥ 50,000 events/s",
        at_least=True,
    ),
    Bound(
        "a command to its handler",
        SeriesKey(commands.NAME, commands.NAME, PABAL, commands.METRIC),
        2,
        "≤ 2 µs",
    ),
    _growth(growth.ACTIVE[0]),
    _growth(growth.ACTIVE[1]),
    Quotient(
        "publishing while 1,000,000 events are deleted, on disk",
        SeriesKey(retention.NAME, retention.CASE, retention.TRIMMING, retention.P99),
        SeriesKey(retention.NAME, retention.CASE, retention.ALONE, retention.P99),
        3,
        "p99 without it",
        at_most=True,
    ),
    Quotient(
        "through Redis",
        _through(PABAL),
        _through(redis_streams.LOOP),
        2,
        "a pipeline loop on redis-py, one event per entry",
    ),
    Quotient("through Redis", _through(PABAL), _through(redis_streams.FASTSTREAM), 30, "FastStream"),
    Quotient(
        "through Redis, 2 processes, handler of 1 ms",
        _shared(redis_streams.TWO),
        _shared(redis_streams.ONE),
        1.6,
        "one process",
    ),
    Bound(
        "through Redis, 2,000 events/s",
        SeriesKey(redis_streams.NAME, redis_streams.PACED, PABAL, redis_streams.P99),
        10,
        "p99 publish→handler ≤ 10 ms",
    ),
    Bound(
        "kill -9 of a process on Redis",
        SeriesKey(redis_streams.NAME, redis_streams.KILLED, PABAL, redis_streams.SECONDS),
        redis_streams.LEASE + 1,
        "another has handled everything within the lease (2 s) + 1 s",
    ),
    Bound(
        "memory per queued event, 1 key", _queued(memory.queued_case(1)), 200, "≤ 200 bytes beyond the event"
    ),
    Bound(
        "memory per queued event, 1,000 keys",
        _queued(memory.queued_case(1_000)),
        200,
        "≤ 200 bytes beyond the event",
    ),
    Bound(
        "1,000,000 events through a full queue",
        SeriesKey(memory.NAME, memory.THROUGH, PABAL, memory.GROWTH),
        20,
        "memory grows by less than 20 MB",
    ),
    Bound("import pabal", SeriesKey(importing.NAME, importing.CASE, PABAL, importing.METRIC), 60, "≤ 60 ms"),
    Bound(
        "import pabal.domain",
        SeriesKey(importing.NAME, importing.CASE, importing.DOMAIN, importing.HEAVY),
        0,
        "no event loop or database module loaded",
    ),
    Bound(
        "1,000 events in memory",
        SeriesKey(specification.NAME, specification.CASE, specification.IN_MEMORY, specification.TIME),
        20,
        "under 20 ms (the specification: 2,040 ms)",
    ),
    Bound(
        "1,000 events in memory",
        SeriesKey(specification.NAME, specification.CASE, specification.IN_MEMORY, specification.GROWTH),
        1,
        "memory grows by less than 1 MB (the specification: 1.12 MB)",
    ),
)


def judge(outcomes: Outcomes) -> list[Verdict]:
    """Return the verdict on every goal."""
    return [goal.judge(outcomes) for goal in GOALS]
