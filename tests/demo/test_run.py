"""The whole application on a durable bus, in this process."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from pathlib import Path

import pytest

from pabal import DomainEvent, Health, InMemoryEventBus, SqliteEventStorage
from pabal.demo.app import TradingDemo
from pabal.demo.errors import RunError, TapeError
from pabal.demo.events import OrderFilled, OrderPlaced, PositionChanged, SignalRaised, TickReceived
from pabal.demo.feed import READ_AHEAD
from pabal.demo.runs import find_run, load_tape, plan, result_of, tape_of
from pabal.demo.tape import read_tape, simulate_tape
from pabal.ports.storage import Committed
from tests.demo.support import START, _outcome, play, resume, write_candles


class Stranger(DomainEvent):
    note: str


async def test_every_tick_passes_through_the_whole_chain_to_the_position_book(tmp_path: Path) -> None:
    """If a link of the chain were missing, nothing would be traded, without any error."""
    summary = await play(tmp_path / "log.db", simulate_tape(7, 3000))
    counts = summary.by_type
    assert counts["market.tick-received"] == 3001
    assert counts["order.placed"] + counts["order.rejected"] == counts["strategy.signal-raised"] > 0
    assert counts["order.placed"] == counts["order.filled"] == counts["position.changed"] > 0
    assert summary.events == sum(counts.values())
    for one in summary.subscriptions:
        assert one.handled > 0
        assert one.latency_p50 is not None
        assert one.latency_p99 is not None
        assert 0 <= one.latency_p50 <= one.latency_p99


async def test_every_derived_event_can_be_traced_back_to_its_tick(tmp_path: Path) -> None:
    """A position could not be traced back to the tick that changed it."""
    path = tmp_path / "log.db"
    await play(path, simulate_tape(7, 3000))
    async with SqliteEventStorage(path) as storage:
        (changed,) = [envelope.event async for envelope in storage.read(types=[PositionChanged], limit=1)]
        chain: list[type] = []
        event = changed
        while event is not None:
            chain.append(type(event))
            cause = event.causation_id
            event = None if cause is None else await storage.get_event(cause)
        assert chain[:4] == [PositionChanged, OrderFilled, OrderPlaced, SignalRaised]
        assert chain[-1] is TickReceived


async def test_the_poison_event_is_the_only_dead_letter_after_all_its_attempts(
    tmp_path: Path,
) -> None:
    """The demo would lose good events beside the bad one, or hide that it injected the bad one."""
    summary = await play(tmp_path / "log.db", simulate_tape(7, 1000))
    (letter,) = summary.dead_letters
    assert (letter.subscription, letter.event_type) == ("candles", "market.tick-received")
    assert (letter.attempts, letter.injected, summary.parked) == (5, True, 1)
    assert "cannot be true" in letter.error


async def test_every_order_is_filled_despite_exchange_outages(tmp_path: Path) -> None:
    """Outages would never occur and show nothing, or would lose an order."""
    tape = read_tape(write_candles(tmp_path / "x-1m.csv", 800))
    summary = await play(tmp_path / "log.db", tape)
    (exchange,) = [one for one in summary.subscriptions if one.name == "exchange"]
    assert exchange.retried > 0
    assert exchange.parked == 0
    assert summary.by_type["order.filled"] == summary.by_type["order.placed"] == exchange.handled


async def test_a_candle_tape_is_published_as_candles(tmp_path: Path) -> None:
    """Ticks would be invented between recorded candles."""
    tape = read_tape(write_candles(tmp_path / "x-1m.csv", 300))
    summary = await play(tmp_path / "log.db", tape)
    assert "market.tick-received" not in summary.by_type
    assert summary.by_type["market.candle-closed"] == 301
    assert summary.subscriptions[0].name == "strategy"
    assert [letter.subscription for letter in summary.dead_letters] == ["strategy"]


async def test_profit_and_loss_add_up_from_the_fills(tmp_path: Path) -> None:
    """The figures on the screen would not match the log."""
    path = tmp_path / "log.db"
    summary = await play(path, read_tape(write_candles(tmp_path / "x-1m.csv", 800)))
    cash, held = Decimal(0), Decimal(0)
    for fill in (await _outcome(path))["X order.filled"]:
        quantity, price = Decimal(fill["quantity"]), Decimal(fill["price"])
        sign = 1 if fill["side"] == "buy" else -1
        held += sign * quantity
        cash -= sign * quantity * price + Decimal(fill["fee"])
    (holding,) = summary.holdings
    assert holding.quantity == held
    assert holding.last_price is not None
    assert abs(cash + held * holding.last_price - summary.profit) < Decimal("0.0001")
    assert summary.profit == summary.realized + summary.unrealized - summary.fees


async def test_two_runs_of_one_tape_have_the_same_result(tmp_path: Path) -> None:
    """If a result depended on timing, no run could be compared with a resumed one."""
    tape = simulate_tape(5, 2500)
    first = await play(tmp_path / "a.db", tape)
    second = await play(tmp_path / "b.db", tape)
    assert first.result == second.result
    a, b = await _outcome(tmp_path / "a.db"), await _outcome(tmp_path / "b.db")
    assert a == b
    assert any(key.endswith("order.filled") for key in a)


async def test_a_different_outcome_has_a_different_result(tmp_path: Path) -> None:
    """The fingerprint would be the same whatever happened."""
    path = tmp_path / "log.db"
    summary = await play(path, simulate_tape(5, 1500))
    other = await play(tmp_path / "other.db", simulate_tape(6, 1500))
    assert other.result != summary.result
    async with SqliteEventStorage(path) as storage:
        assert await result_of(storage) == summary.result
        await storage.store_event(OrderPlaced("o", "SIM-BTC", "buy", Decimal(1), Decimal(1)))
        assert await result_of(storage) != summary.result


async def test_resuming_a_finished_run_changes_nothing(tmp_path: Path) -> None:
    """The second summary would describe another log than the first."""
    path = tmp_path / "log.db"
    first = await play(path, simulate_tape(7, 1200))
    again = await resume(path)
    assert (again.by_type, again.result, again.holdings) == (first.by_type, first.result, first.holdings)
    assert (again.handled, again.resumed_at, again.latency_p50) == (0, 1201, None)
    assert again.dead_letters == first.dead_letters


async def test_a_cancelled_run_resumes_where_it_stopped(tmp_path: Path) -> None:
    """Ctrl-C would lose or repeat something, or leave the bus running."""
    tape = simulate_tape(7, 4000)
    whole = await play(tmp_path / "whole.db", tape)
    path = tmp_path / "log.db"
    async with SqliteEventStorage(path, durability="normal") as storage:
        trading = TradingDemo(storage, plan(tape, 7, None), tape)
        playing = asyncio.create_task(trading.play())
        reached = asyncio.Event()
        loop = asyncio.get_running_loop()

        def look(batch: Committed) -> None:
            if batch.first > 1500:
                loop.call_soon_threadsafe(reached.set)

        storage.add_listener(look)
        await asyncio.wait_for(reached.wait(), 30)
        playing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await playing
        head = await storage.head()
    assert 1500 < head < 4300
    again = await resume(path)
    assert again.result == whole.result
    assert again.by_type == whole.by_type
    assert again.resumed_at is not None


async def test_the_feed_never_runs_far_ahead_of_the_slowest_subscription(tmp_path: Path) -> None:
    """If the feed filled the log at once, lag would say nothing, and latencies measure the queue."""
    tape = simulate_tape(7, 4000)
    lags: list[int] = []
    async with SqliteEventStorage(tmp_path / "log.db", durability="normal") as storage:
        trading = TradingDemo(storage, plan(tape, 7, None), tape)
        loop = asyncio.get_running_loop()

        def look() -> None:
            lags.append(max((one.lag for one in trading.snapshot().subscriptions), default=0))

        def committed(batch: Committed) -> None:
            loop.call_soon_threadsafe(look)

        storage.add_listener(committed)
        await trading.play()
    assert 0 < max(lags) <= READ_AHEAD + 256


async def test_a_paced_feed_keeps_to_its_speed(tmp_path: Path) -> None:
    """``--speed`` would have no effect."""
    tape = simulate_tape(7, 400)
    async with SqliteEventStorage(tmp_path / "log.db", durability="normal") as storage:
        summary = await TradingDemo(storage, plan(tape, 7, None), tape, speed=1000).play()
    assert summary.seconds >= 0.4
    assert summary.paced_at == 1000


async def test_snapshots_show_the_run_in_progress_and_at_its_end(tmp_path: Path) -> None:
    """The screen would show nothing, or other figures than the summary."""
    tape = simulate_tape(7, 1500)
    async with SqliteEventStorage(tmp_path / "log.db", durability="normal") as storage:
        trading = TradingDemo(storage, plan(tape, 7, None), tape)
        assert trading.snapshot().phase == "starting"
        summary = await trading.play()
        now = trading.snapshot()
    assert (now.phase, now.fed, now.length, now.dead_letters) == ("finished", 1501, 1501, 1)
    assert now.by_type == summary.by_type
    assert now.retries == summary.retried
    assert {news.kind for news in now.news} == {"retry", "dead letter"}


async def test_a_file_being_played_by_another_process_is_rejected(tmp_path: Path) -> None:
    """With two processes on one file, the second would report a run of which it handled nothing."""
    tape = simulate_tape(7, 500)
    path = tmp_path / "log.db"

    async def ignore(event: object) -> None:
        return

    async with SqliteEventStorage(path) as first:
        bus = InMemoryEventBus(event_storage=first)
        bus.subscribe(TickReceived, ignore, name="candles")
        async with bus, SqliteEventStorage(path) as second:
            with pytest.raises(RunError, match="another process is playing this file"):
                await TradingDemo(second, plan(tape, 7, None), tape).play()


# -- which run a file holds -------------------------------------------------------------------------------


async def test_a_run_with_a_halted_subscription_is_not_reported_as_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The summary would cover half the orders, because a halted subscription counts as drained."""
    halted = Health("failing", ("subscription 'risk' halted at position 7",))
    monkeypatch.setattr(InMemoryEventBus, "health", lambda self: halted)
    with pytest.raises(RunError, match="subscription 'risk' halted at position 7"):
        await play(tmp_path / "log.db", simulate_tape(7, 100))


async def test_an_empty_log_has_no_run_and_a_foreign_log_is_rejected(tmp_path: Path) -> None:
    """The demo would publish its ticks into a real log."""
    async with SqliteEventStorage(tmp_path / "log.db") as storage:
        assert await find_run(storage) == (None, False)
        await storage.store_event(Stranger("mine"))
        with pytest.raises(RunError, match="not the demo's; choose another --file"):
            await find_run(storage)


async def test_a_run_rejects_a_different_tape(tmp_path: Path) -> None:
    """If the tape was edited meanwhile, the result would be half of one and half of another."""
    source = write_candles(tmp_path / "x-1m.csv", 50)
    tape = load_tape(source, 7, 40)
    run = plan(tape, 7, 40)
    assert (run.rows, run.settings.candle_seconds, run.occurred_at > START) == (40, 60, True)
    assert tape_of(run, "log.db") == tape
    moved = source.rename(tmp_path / "moved-1m.csv")
    with pytest.raises(TapeError, match="No such file"):
        tape_of(run, "log.db")
    assert tape_of(run, "log.db", moved).fingerprint == tape.fingerprint
    write_candles(source, 50, seed=4)
    with pytest.raises(RunError, match="is not that tape or has changed since"):
        tape_of(run, "log.db")
