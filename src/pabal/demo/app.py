"""The trading application: which component takes which event, and what it publishes in turn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from functools import partial
from typing import Any

from pabal import DeliveryContext, InMemoryEventBus, RetryPolicy, SqliteEventStorage
from pabal.demo.candles import Candle, add_tick
from pabal.demo.component import Component
from pabal.demo.errors import RunError
from pabal.demo.events import (
    CandleClosed,
    OrderFilled,
    OrderPlaced,
    RunStarted,
    SignalRaised,
    TickReceived,
)
from pabal.demo.exchange import execute
from pabal.demo.feed import Feed
from pabal.demo.meter import Meter
from pabal.demo.portfolio import Portfolio
from pabal.demo.positions import Position, book
from pabal.demo.report import (
    DeadLetterLine,
    Phase,
    Snapshot,
    SubscriptionFigures,
    SubscriptionSummary,
    Summary,
)
from pabal.demo.risk import Exposure, check
from pabal.demo.runs import result_of, run_finished
from pabal.demo.strategy import Trend, follow
from pabal.demo.tape import Tape

_RETRY = RetryPolicy(max_attempts=5, base_delay=0.01, max_delay=0.5)
_EXCHANGE_RETRY = RetryPolicy(max_attempts=8, base_delay=0.005, max_delay=0.1)
_SUBSCRIPTIONS = ("candles", "strategy", "risk", "exchange", "positions", "portfolio")


class TradingDemo:
    """Play one run to its end, continuing from what its log already holds.

    ``storage`` is open and stays open. ``speed`` is in events per second; None means as fast as possible.
    """

    def __init__(
        self, storage: SqliteEventStorage, run: RunStarted, tape: Tape, speed: float | None = None
    ) -> None:
        self._storage = storage
        self._run = run
        self._tape = tape
        self._speed = speed
        self._bus = InMemoryEventBus(event_storage=storage, worker_count=4)
        self._meter = Meter()
        self._feed = Feed(tape, run.event_id, self._bus, self._meter, speed)
        self._portfolio = Portfolio()
        self._components = self._make_components()
        self._phase: Phase = "starting"
        self._resumed_at: int | None = None
        self._parked = 0

    # -- wiring ---------------------------------------------------------------------------------------

    def _make_components(self) -> list[Component[Any]]:
        run, rules = self._run.event_id, self._run.settings
        make = partial(Component[Any], bus=self._bus, storage=self._storage)

        def candles(candle: Candle | None, tick: TickReceived) -> tuple[Candle, CandleClosed | None]:
            return add_tick(candle, tick, rules.candle_seconds, run)

        def strategy(trend: Trend, candle: CandleClosed) -> tuple[Trend, SignalRaised | None]:
            return follow(trend, candle, rules.fast, rules.slow, run)

        # A tape of candles needs no candle builder.
        builders = [make("candles", TickReceived, candles, None)] if self._tape.kind == "trades" else []
        return [
            *builders,
            make("strategy", CandleClosed, strategy, Trend()),
            make("risk", SignalRaised, partial(check, rules=rules, run=run), Exposure()),
            make("positions", OrderFilled, partial(book, run=run), Position()),
        ]

    def _subscribe(self) -> None:
        bus = self._bus
        # All events of one symbol in order, even across retries: its orders are filled as they were placed.
        options: dict[str, Any] = {"start": "beginning", "ordering": lambda event: event.symbol}
        for component in self._components:
            bus.subscribe(
                component.event_class, component.handle, name=component.name, retry=_RETRY, **options
            )
        bus.subscribe(OrderPlaced, self._exchange, name="exchange", retry=_EXCHANGE_RETRY, **options)
        portfolio = self._portfolio
        bus.subscribe(
            portfolio.event_classes, portfolio.handle, name="portfolio", batch=256, start="beginning"
        )
        bus.use(self._meter.measure)
        bus.listen(self._meter.listen, logs=True)

    async def _exchange(self, order: OrderPlaced, context: DeliveryContext) -> None:
        """Fill an order. It has no state, so being called again does no harm."""
        await self._bus.publish(execute(order, context.attempt, self._run.settings, self._run.event_id))

    # -- playing --------------------------------------------------------------------------------------

    async def play(self) -> Summary:
        """Play the tape to its end and return the summary.

        Raises RunError if another process is playing the same file, or if a subscription halted.
        """
        await self._storage.store_event(self._run)
        before = await self._storage.get_event_statistics()
        source = TickReceived if self._tape.kind == "trades" else CandleClosed
        fed = before["events_by_type"].get(source.event_type, 0)
        self._feed.published = fed
        self._resumed_at = fed or None
        await self._replay_states()
        self._subscribe()
        with self._counting(before["events_by_type"]):
            async with self._bus:
                self._refuse_other_player()
                if fed:
                    self._phase = "catching up"
                    await self._bus.drain()
                self._phase = "playing"
                await self._feed.play(after=fed)
                self._phase = "draining"
                await self._bus.drain()
                self._refuse_halted()
                seconds = self._meter.elapsed
                result = await result_of(self._storage)
                await self._bus.publish(run_finished(self._run, result))
                self._phase = "finished"
                return await self._summary(result, seconds)

    @contextmanager
    def _counting(self, before: dict[str, int]) -> Iterator[None]:
        self._meter.begin(before)
        remove: Callable[[], None] = self._storage.add_listener(self._meter.count)
        try:
            yield
        finally:
            remove()

    async def _replay_states(self) -> None:
        """Fold what earlier processes handled into the components' states, in one pass over the log."""
        records = {record.name: record for record in await self._storage.list_subscriptions()}
        self._parked = sum(record.parked for record in records.values())
        replayed = [component for component in self._components if component.name in records]
        for component in replayed:
            component.resume_from(records[component.name].watermark)
        if not replayed:
            return
        types = {*(component.event_class for component in replayed), *self._portfolio.event_classes}
        async for envelope in self._storage.read(types=types):
            for component in replayed:
                component.replay(envelope)
            if isinstance(envelope.event, self._portfolio.event_classes):
                self._portfolio.apply(envelope.event)

    def _refuse_other_player(self) -> None:
        figures = self._bus.get_statistics()["subscriptions"].values()
        if any(figure["state"] == "standby" for figure in figures):
            raise RunError(
                path=self._storage.path,
                reason="another process is playing this file; wait until it has finished, or choose another "
                "--file",
            )

    def _refuse_halted(self) -> None:
        health = self._bus.health()
        if health.status == "failing":
            raise RunError(path=self._storage.path, reason="; ".join(health.reasons))

    # -- reporting ------------------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        """Return the current state of the run."""
        subscriptions = self._figures()
        return Snapshot(
            phase=self._phase,
            elapsed=self._meter.elapsed,
            fed=self._feed.published,
            length=self._tape.length,
            by_type=dict(self._meter.committed),
            subscriptions=subscriptions,
            retries=self._meter.retries,
            dead_letters=self._parked + sum(subscription.parked for subscription in subscriptions),
            news=self._meter.news,
            holdings=tuple(self._portfolio.sorted_holdings()),
        )

    def _figures(self) -> tuple[SubscriptionFigures, ...]:
        statistics = self._bus.get_statistics()["subscriptions"]
        return tuple(
            SubscriptionFigures(
                name=name,
                handled=statistics[name]["handled"],
                lag=statistics[name]["lag"] or 0,
                retried=statistics[name]["retried"],
                parked=statistics[name]["parked"],
            )
            for name in _SUBSCRIPTIONS
            if name in statistics
        )

    async def _summary(self, result: str, seconds: float) -> Summary:
        meter = self._meter
        subscriptions = self._figures()
        letters = await self._dead_letters()
        holdings = tuple(self._portfolio.sorted_holdings())
        by_type = (await self._storage.get_event_statistics())["events_by_type"]
        return Summary(
            tape=self._run.tape,
            simulated=self._run.simulated,
            file=self._storage.path,
            durability=self._storage.durability,
            resumed_at=self._resumed_at,
            seconds=seconds,
            events=sum(by_type.values()),
            by_type=by_type,
            handled=sum(one.handled for one in subscriptions),
            retried=sum(one.retried for one in subscriptions),
            parked=len(letters),
            events_per_second=meter.fresh / seconds if seconds else 0.0,
            paced_at=self._speed,
            latency_p50=meter.percentile(50),
            latency_p99=meter.percentile(99),
            subscriptions=tuple(
                SubscriptionSummary(
                    one.name,
                    one.handled,
                    one.retried,
                    one.parked,
                    meter.percentile(50, one.name),
                    meter.percentile(99, one.name),
                )
                for one in subscriptions
            ),
            dead_letters=letters,
            holdings=holdings,
            realized=sum((one.realized for one in holdings), Decimal(0)),
            unrealized=sum((one.unrealized for one in holdings), Decimal(0)),
            fees=sum((one.fees for one in holdings), Decimal(0)),
            profit=sum((one.profit for one in holdings), Decimal(0)),
            result=result,
        )

    async def _dead_letters(self) -> tuple[DeadLetterLine, ...]:
        letters = await self._bus.dead_letters.list()
        return tuple(
            DeadLetterLine(
                subscription=letter.subscription,
                event_type=letter.event_type,
                event_id=letter.event_id,
                attempts=len(letter.attempts),
                error=letter.attempts[-1].message if letter.attempts else letter.reason,
                injected=bool(letter.event.metadata.get("injected")),
            )
            for letter in letters
        )
