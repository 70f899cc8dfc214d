"""Record samples of the engine's figures from time to time, so that they outlive the process."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING
from uuid import uuid4

from pabal.delivery.consumer import ACTIVE, Consumer
from pabal.delivery.histogram import quantiles, since
from pabal.errors import StorageError
from pabal.ports.samples import Sample, SampleStore, SubscriptionSample
from pabal.ports.telemetry import StorageTrouble

if TYPE_CHECKING:
    from pabal.delivery.engine import Engine

_EVERY = 10.0
_IDLE = 6
"""While the engine is idle, only one sample in this many is recorded."""


class _Counted:
    """Remember a consumer's counts at the last sample."""

    __slots__ = ("failed", "handled", "histogram")

    def __init__(self, consumer: Consumer) -> None:
        self.handled = consumer.figures.handled + consumer.arrivals.finished
        self.failed = consumer.figures.failed_attempts
        self.histogram = dict(consumer.figures.durations.counts)


class Sampler:
    """Record a sample in the storage every ten seconds, or every minute while nothing happens."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._source = uuid4().hex[:12]
        self._store: SampleStore | None = None
        self._before: dict[Consumer, _Counted] = {}
        self._sampled_at = 0.0
        self._lag = 0
        self._skipped = 0

    def start(self, storage: object) -> None:
        """Begin to sample, if the storage keeps samples."""
        if isinstance(storage, SampleStore):
            self._store = storage
            self._begin()
            self._engine.timers.add(_EVERY, self._due)

    async def stop(self) -> None:
        """Record a last sample, of the time since the one before."""
        if self._store is not None:
            await self._sample()
            self._store = None
            self._before.clear()

    def _begin(self) -> None:
        self._before = {consumer: _Counted(consumer) for consumer in self._engine.consumers.values()}
        self._sampled_at = self._engine.clock.monotonic()
        self._skipped = 0

    def _due(self) -> None:
        if not self._engine.halting:
            self._engine.background.spawn(self._sample())
            self._engine.timers.add(_EVERY, self._due)

    async def _sample(self) -> None:
        sample = self._take()
        quiet = not sample.handled and not sample.failed and sample.lag == self._lag
        self._skipped = self._skipped + 1 if quiet else 0
        if self._store is None or (quiet and self._skipped % _IDLE != 1):
            return
        self._begin_after(sample)
        try:
            await self._store.record_sample(sample)
        except StorageError as error:
            self._engine.report(StorageTrouble("", error))

    def _begin_after(self, sample: Sample) -> None:
        skipped = self._skipped
        self._begin()
        self._skipped = skipped
        self._lag = sample.lag

    def _take(self) -> Sample:
        engine = self._engine
        consumers = [c for c in engine.consumers.values() if c.state == ACTIVE]
        histograms = {consumer: self._histogram(consumer) for consumer in consumers}
        p50, p99 = quantiles(_merge(histograms.values()), 0.5, 0.99)
        subscriptions = {
            consumer.name: SubscriptionSample(
                self._handled(consumer),
                self._lag_of(consumer),
                consumer.in_flight,
                *quantiles(histograms[consumer], 0.5, 0.99),
            )
            for consumer in consumers
        }
        return Sample(
            at=int(engine.clock.time() * 1_000_000),
            source=self._source,
            seconds=round(engine.clock.monotonic() - self._sampled_at, 3),
            handled=sum(self._handled(consumer) for consumer in consumers),
            failed=sum(self._failed(consumer) for consumer in consumers),
            lag=max((one.lag for one in subscriptions.values()), default=0),
            p50=p50,
            p99=p99,
            subscriptions=subscriptions,
        )

    def _lag_of(self, consumer: Consumer) -> int:
        feed = self._engine.feed
        return consumer.queue_length() if feed is None else feed.lag_of(consumer) or 0

    def _handled(self, consumer: Consumer) -> int:
        before = self._before.get(consumer)
        handled = consumer.figures.handled + consumer.arrivals.finished
        return handled - (0 if before is None else before.handled)

    def _failed(self, consumer: Consumer) -> int:
        before = self._before.get(consumer)
        return consumer.figures.failed_attempts - (0 if before is None else before.failed)

    def _histogram(self, consumer: Consumer) -> dict[int, int]:
        before = self._before.get(consumer)
        return since(consumer.figures.durations.counts, {} if before is None else before.histogram)


def _merge(histograms: Iterable[dict[int, int]]) -> dict[int, int]:
    total: dict[int, int] = {}
    for histogram in histograms:
        for step, count in histogram.items():
            total[step] = total.get(step, 0) + count
    return total
