"""Tapes: what is read from files, what is refused, and what is simulated."""

from __future__ import annotations

import gzip
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from pabal.demo.errors import ImpossiblePriceError, TapeError
from pabal.demo.events import CandleClosed, TickReceived
from pabal.demo.runs import plan
from pabal.demo.strategy import Trend, follow
from pabal.demo.tape import Bar, Trade, read_tape, simulate_tape
from tests.demo.support import SHARED

TRADES = """trade_id,timestamp,price,quantity,side
1,2021-01-08T00:00:00.278Z,39432.48,0.000263,sell
2,2021-01-08T00:00:00.310Z,39439.44,0.004376,buy
3,2021-01-08T00:00:01.368Z,39439.22,0.000311,buy
"""
CANDLES = """timestamp,open,high,low,close,volume
2021-12-31 23:01:00.000000,46319.0,46385.0,46319.0,46377.0,2300413.7295
2021-12-31 23:02:00.000000,46377.0,46411.0,46377.0,46411.0,1829623.1938
"""


def written(folder: Path, text: str | bytes, name: str = "btcusdt-trades-2021-01-08.csv") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_trades_are_read_with_their_exact_prices_and_times(tmp_path: Path) -> None:
    """If a price went through a float, profit and loss would drift with every trade."""
    tape = read_tape(written(tmp_path, TRADES))
    at = datetime(2021, 1, 8, 0, 0, 0, 278_000, tzinfo=UTC)
    assert tape.kind == "trades"
    assert tape.rows[0] == Trade("BTCUSDT", at, Decimal("39432.48"), Decimal("0.000263"), "sell")
    assert len(tape.rows) == 3
    assert not tape.simulated


def test_candles_are_read_from_a_gzipped_file_with_their_interval(tmp_path: Path) -> None:
    """A compressed tape would be refused, a time without zone taken as local, or the interval be wrong."""
    path = written(tmp_path, gzip.compress(CANDLES.encode()), "btc-perp-1m-2022-01.csv.gz")
    tape = read_tape(path)
    assert (tape.kind, tape.seconds) == ("candles", 60)
    prices = [Decimal(text) for text in ("46319.0", "46385.0", "46319.0", "46377.0", "2300413.7295")]
    assert tape.rows[0] == Bar("BTC-PERP", datetime(2021, 12, 31, 23, 1, tzinfo=UTC), *prices)


@pytest.mark.parametrize(
    ("text", "line", "column", "part"),
    [
        (TRADES.replace(",quantity", ",amount"), 1, "quantity", "is missing"),
        (TRADES.replace("trade_id", "price"), 1, "price", "appears twice"),
        (CANDLES.replace("close", "last"), 1, "close", "a tape of candles needs"),
        (TRADES.replace("39439.44", "a lot"), 3, "price", "'a lot' is not a number"),
        (TRADES.replace("39439.44", "NaN"), 3, "price", "'NaN' is not a number"),
        (TRADES.replace("39439.44", "-39439.44"), 3, "price", "is not a number"),
        (TRADES.replace("39439.44", "0"), 3, "price", "is not above zero"),
        (TRADES.replace("39439.44", "1" * 5000), 3, "price", "is not a number"),
        (TRADES.replace("0.000311", ""), 4, "quantity", "'' is not a number"),
        (TRADES.replace("sell", "held"), 2, "side", "'held' is neither buy nor sell"),
        (TRADES.replace("2021-01-08T00:00:01.368Z", "08.01.2021"), 4, "timestamp", "is not a time such as"),
        (
            TRADES.replace("00:00:01.368", "23:59:59.999").replace("08T23", "07T23"),
            4,
            "timestamp",
            "is earlier",
        ),
        (TRADES.replace(",buy\n3", "\n3"), 3, None, "4 cells, where the header has 5"),
        (TRADES.replace("sell", "sell,now"), 2, None, "6 cells, where the header has 5"),
        (TRADES.replace("2,2021", '"2,2021'), 4, None, "this is not CSV"),
        (CANDLES.replace("46385.0", "46000.0"), 2, "high", "is not the highest"),
        (CANDLES.replace("46411.0,46377.0", "46411.0,46400.0"), 3, "low", "is not the lowest"),
        (CANDLES.replace("1829623.1938", "-1"), 3, "volume", "is not a number"),
        (TRADES.encode().replace(b"buy", b"b\xffy", 1), 3, None, "not UTF-8"),
        ("", 1, "timestamp", "and this one has none"),
        ("timestamp,price,quantity,side\n", None, None, "no row below the header"),
        (b"\x1f\x8b" + b"x" * 40, None, None, "the compressed file is damaged"),
        (gzip.compress(TRADES.encode())[:-12], None, None, "the compressed file is damaged"),
    ],
)
def test_an_invalid_tape_is_rejected_with_file_line_and_column(
    tmp_path: Path, text: str | bytes, line: int | None, column: str | None, part: str
) -> None:
    """Users would have to search 45,000 lines for the error, or an invalid row be played."""
    path = written(tmp_path, text)
    with pytest.raises(TapeError) as caught:
        read_tape(path)
    error = caught.value
    assert (error.path, error.line, error.column) == (str(path), line, column)
    assert part in str(error)
    assert str(error).startswith(str(path))
    assert str(error).endswith("nothing of the tape was published")


@pytest.mark.parametrize("name", ["nowhere.csv", "."])
def test_a_tape_that_cannot_be_opened_says_why(tmp_path: Path, name: str) -> None:
    """There would be a traceback instead of the system's own reason."""
    with pytest.raises(TapeError, match=r"No such file|Is a directory"):
        read_tape(tmp_path / name)


def test_blank_lines_a_byte_order_mark_and_extra_columns_are_ignored(tmp_path: Path) -> None:
    """A tape saved by a spreadsheet would be refused for its formatting."""
    lines = (
        TRADES.replace("\n", ",note\n", 1)
        .replace("sell\n", "sell,x\n")
        .replace("buy\n", "buy,\n")
        .split("\n")
    )
    text = "\ufeff" + "\r\n".join([lines[0], "", *lines[1:]])
    assert read_tape(written(tmp_path, text)).rows == read_tape(written(tmp_path, TRADES)).rows


def test_a_limit_keeps_the_first_rows_and_yields_a_different_tape(tmp_path: Path) -> None:
    """A shortened run would be resumed as if it were the whole tape."""
    path = written(tmp_path, TRADES)
    whole, short = read_tape(path), read_tape(path, 2)
    assert short.rows == whole.rows[:2]
    assert short.fingerprint != whole.fingerprint


def test_a_simulated_tape_is_determined_by_its_seed_and_marked_as_simulated() -> None:
    """Two runs of one seed could not be compared, or simulated prices be mistaken for a market's."""
    tape = simulate_tape(7, 500)
    assert tape == simulate_tape(7, 500)
    assert tape.rows != simulate_tape(8, 500).rows
    assert tape.simulated
    assert {row.symbol for row in tape.rows} == {"SIM-BTC", "SIM-ETH", "SIM-SOL"}
    assert all(before.at <= after.at for before, after in zip(tape.rows, tape.rows[1:], strict=False))


@pytest.mark.parametrize("rows", [1, 2, 3, 500])
def test_the_feed_yields_every_row_once_and_one_marked_poison_event(rows: int) -> None:
    """A row next to the injected event would be lost or doubled, or the injected one look real."""
    tape = simulate_tape(7, rows)
    events = [tape.event(sequence, "run") for sequence in range(1, tape.length + 1)]
    injected = [event for event in events if event.metadata]
    genuine = [event for event in events if not event.metadata]
    assert [event.sequence for event in events if isinstance(event, TickReceived)] == list(range(1, rows + 2))
    assert [event.metadata for event in injected] == [{"injected": "by the demo"}]
    prices = [event.price for event in genuine if isinstance(event, TickReceived)]
    assert prices == [row.price for row in tape.rows if isinstance(row, Trade)]
    assert len({event.event_id for event in events}) == rows + 1


def test_the_strategy_rejects_the_poison_candle_of_a_candle_tape(tmp_path: Path) -> None:
    """If a handler processed the poison event, the demo would show no dead letter."""
    tape = read_tape(written(tmp_path, CANDLES))
    poison = tape.event(tape.poison_at, "run")
    assert isinstance(poison, CandleClosed)
    with pytest.raises(ImpossiblePriceError):
        follow(Trend(), poison, 2, 3, "run")


@pytest.mark.skipif(not SHARED.is_dir(), reason="the recorded data is not beside the repository")
@pytest.mark.parametrize(
    ("name", "kind", "rows", "symbol", "seconds"),
    [
        ("btcusdt-trades-2021-01-08.csv", "trades", 2_001, "BTCUSDT", 1),
        ("btc-perp-1m-2022-01.csv.gz", "candles", 45_031, "BTC-PERP", 60),
    ],
)
def test_the_recorded_tapes_are_read_completely(
    name: str, kind: str, rows: int, symbol: str, seconds: int
) -> None:
    """Validation would be stricter than what an exchange really records."""
    tape = read_tape(SHARED / name)
    assert (tape.kind, len(tape.rows), tape.rows[0].symbol, tape.seconds) == (kind, rows, symbol, seconds)
    assert plan(tape, 7, None).rows == rows


@pytest.mark.skipif(not SHARED.is_dir(), reason="the recorded data is not beside the repository")
def test_a_file_without_a_required_column_is_rejected_naming_the_column() -> None:
    """Daily candles, whose time column is called ``date``, would end in a KeyError."""
    with pytest.raises(TapeError, match="line 1, column 'timestamp': the column is missing"):
        read_tape(SHARED / "krw-btc-daily-2024-10-2025-10.csv")
