"""Tapes: recorded trades or candles from a file, or simulated trades."""

from __future__ import annotations

import csv
import gzip
import math
import random
import re
import zlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec

from pabal.demo.errors import TapeError
from pabal.demo.events import CandleClosed, Side, TapeKind, TickReceived, derived_id
from pabal.domain.counting import counted

SIMULATED = "simulated"
DEFAULT_LENGTH = 30_000

_TRADE_COLUMNS = ("timestamp", "price", "quantity", "side")
_CANDLE_COLUMNS = ("timestamp", "open", "high", "low", "close", "volume")
_NUMBER = re.compile(r"\d{1,20}(\.\d{1,20})?([eE][+-]?\d{1,2})?", re.ASCII)
_SYMBOL = re.compile(r"(.+?)-(?:trades|\d+[smhd])(?:-|\.|$)")
_GZIP = b"\x1f\x8b"


class Trade(msgspec.Struct, frozen=True, gc=False):
    """One row of a tape of trades."""

    symbol: str
    at: datetime
    price: Decimal
    quantity: Decimal
    side: Side


class Bar(msgspec.Struct, frozen=True, gc=False):
    """One row of a tape of candles."""

    symbol: str
    at: datetime
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal


class Tape(msgspec.Struct, frozen=True):
    """A whole, validated tape; ``fingerprint`` identifies its content, ``seconds`` is the candle interval."""

    source: str
    kind: TapeKind
    rows: tuple[Trade | Bar, ...]
    fingerprint: str
    seconds: int
    simulated: bool = False

    @property
    def poison_at(self) -> int:
        """Return the sequence number of the poison event: a third of the way in."""
        return len(self.rows) // 3 + 1

    @property
    def length(self) -> int:
        """Return how many events the feed publishes: one for each row, and the poison event."""
        return len(self.rows) + 1

    def event(self, sequence: int, run: str) -> TickReceived | CandleClosed:
        """Return the event with a sequence number, from 1."""
        poison_at = self.poison_at
        if sequence == poison_at:
            return _poison(self.rows[min(poison_at, len(self.rows)) - 1], sequence, self.seconds, run)
        row = self.rows[sequence - 1 if sequence < poison_at else sequence - 2]
        return _event(row, sequence, self.seconds, run)


def _event(row: Trade | Bar, sequence: int, seconds: int, run: str) -> TickReceived | CandleClosed:
    identity = derived_id(run, "tape", sequence)
    if isinstance(row, Trade):
        return TickReceived(
            row.symbol, sequence, row.at, row.price, row.quantity, row.side, event_id=identity
        )
    return CandleClosed(
        row.symbol,
        sequence,
        row.at,
        seconds,
        row.open,
        row.high,
        row.low,
        row.close,
        row.volume,
        event_id=identity,
    )


def _poison(row: Trade | Bar, sequence: int, seconds: int, run: str) -> TickReceived | CandleClosed:
    """Make an event that no handler can process. It is in no tape, and its metadata says so."""
    invalid_row: Trade | Bar
    if isinstance(row, Trade):
        invalid_row = msgspec.structs.replace(row, price=Decimal(-1))
    else:
        invalid_row = msgspec.structs.replace(row, high=row.low, low=row.high + 1)
    event = _event(invalid_row, sequence, seconds, run)
    return msgspec.structs.replace(event, metadata={"injected": "by the demo"})


# -- files ------------------------------------------------------------------------------------------------


def read_tape(path: Path, limit: int | None = None) -> Tape:
    """Read and validate a whole tape: CSV of trades or of candles, plain or gzipped.

    Trades need the columns timestamp, price, quantity and side; candles timestamp, open, high, low, close
    and volume; other columns are ignored. Times without a zone are UTC. ``limit`` keeps only the first
    rows. Raises TapeError, which names the line and the column.
    """
    content = _read(path)
    rows, kind = _parse(path, _text(path, content))
    if limit is not None:
        rows = rows[:limit]
    seconds = 1
    if kind == "candles" and len(rows) > 1:
        seconds = max(1, round((rows[1].at - rows[0].at).total_seconds()))
    digest = sha256(content).hexdigest()[:16]
    return Tape(str(path), kind, tuple(rows), f"{digest}/{len(rows)}", seconds)


def _read(path: Path) -> bytes:
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if content.startswith(_GZIP) else content
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise TapeError(path=str(path), reason=f"the compressed file is damaged ({error})") from error
    except OSError as error:
        raise TapeError(path=str(path), reason=error.strerror or str(error)) from error


def _text(path: Path, content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise TapeError(path=str(path), line=line, reason="this is not UTF-8 text") from error


def _parse(path: Path, text: str) -> tuple[list[Trade | Bar], TapeKind]:
    reader = csv.reader(text.splitlines(keepends=True), strict=True)
    rows: list[Trade | Bar] = []
    try:
        header = [name.strip().lower() for name in next(reader, [])]
        kind, index = _columns(path, header)
        symbol = _symbol_of(path)
        build = _bar if kind == "candles" else _trade
        for cells in reader:
            if not cells:
                continue
            line = _Line(path, reader.line_num, index, cells, len(header))
            row = build(symbol, line)
            if rows and row.at < rows[-1].at:
                raise line.cell_error("timestamp", f"is earlier than the line before ({rows[-1].at})")
            rows.append(row)
    except csv.Error as error:
        raise TapeError(path=str(path), line=reader.line_num, reason=f"this is not CSV ({error})") from error
    if not rows:
        raise TapeError(path=str(path), reason="there is no row below the header")
    return rows, kind


def _columns(path: Path, header: list[str]) -> tuple[TapeKind, dict[str, int]]:
    """Return the kind of tape that has this header, and the index of each column."""
    kind: TapeKind = "trades"
    required: tuple[str, ...] = _TRADE_COLUMNS
    if {"open", "high", "low", "close"} & set(header):
        kind, required = "candles", _CANDLE_COLUMNS
    for name in required:
        if header.count(name) != 1:
            problem = "is missing" if name not in header else "appears twice"
            raise TapeError(
                path=str(path),
                line=1,
                column=name,
                reason=f"the column {problem}; a tape of {kind} needs {', '.join(required)}, "
                f"and this one has {', '.join(header) or 'none'}",
            )
    return kind, {name: header.index(name) for name in required}


class _Line:
    """Parse the cells of one line; errors name the line and column."""

    def __init__(self, path: Path, number: int, index: dict[str, int], cells: list[str], width: int) -> None:
        self._path = path
        self._number = number
        self._index = index
        self._cells = cells
        if len(cells) != width:
            raise TapeError(
                path=str(path),
                line=number,
                reason=f"{counted(len(cells), 'cell')}, where the header has {width}",
            )

    def cell_error(self, column: str, problem: str) -> TapeError:
        """Return the error for an invalid cell."""
        return TapeError(
            path=str(self._path),
            line=self._number,
            column=column,
            reason=f"{self.text(column)[:40]!r} {problem}",
        )

    def text(self, column: str) -> str:
        """Return a cell as text."""
        return self._cells[self._index[column]].strip()

    def number(self, column: str, *, least: Decimal | None = None) -> Decimal:
        """Return a cell as a number, which must be above zero, or at least ``least``."""
        text = self.text(column)
        if not _NUMBER.fullmatch(text):
            raise self.cell_error(column, "is not a number such as 39432.48")
        value = Decimal(text)
        if value < least if least is not None else value <= 0:
            raise self.cell_error(column, "is not above zero" if least is None else f"is below {least}")
        return value

    def moment(self) -> datetime:
        """Return the timestamp as an aware time in UTC."""
        try:
            moment = datetime.fromisoformat(self.text("timestamp"))
            return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
        except (ValueError, OverflowError):
            raise self.cell_error("timestamp", "is not a time such as 2021-01-08T00:00:00.278Z") from None


def _trade(symbol: str, line: _Line) -> Trade:
    side = line.text("side").lower()
    if side not in ("buy", "sell"):
        raise line.cell_error("side", "is neither buy nor sell")
    return Trade(symbol, line.moment(), line.number("price"), line.number("quantity"), side)  # type: ignore[arg-type]


def _bar(symbol: str, line: _Line) -> Bar:
    opened, high, low, closed = (line.number(name) for name in ("open", "high", "low", "close"))
    if high < max(opened, closed, low):
        raise line.cell_error("high", "is not the highest of the four prices")
    if low > min(opened, closed):
        raise line.cell_error("low", "is not the lowest of the four prices")
    volume = line.number("volume", least=Decimal(0))
    return Bar(symbol, line.moment(), opened, high, low, closed, volume)


def _symbol_of(path: Path) -> str:
    """Derive the symbol from a file name such as ``btcusdt-trades-2021-01-08.csv``."""
    found = _SYMBOL.match(path.name)
    return (found[1] if found else path.name.split(".")[0]).upper()


# -- simulated --------------------------------------------------------------------------------------------

_MARKETS = (("SIM-BTC", 4_000_000, 900), ("SIM-ETH", 250_000, 80), ("SIM-SOL", 15_000, 6))
"""Name, first price and largest price step, both in cents."""


def simulate_tape(seed: int, length: int = DEFAULT_LENGTH) -> Tape:
    """Return a tape of random trades in three fictitious markets; the same tape for the same seed."""
    return Tape(
        source=SIMULATED,
        kind="trades",
        rows=tuple(_simulate(random.Random(seed).random, length)),
        fingerprint=f"{SIMULATED}/{seed}/{length}",
        seconds=1,
        simulated=True,
    )


def _simulate(draw: Callable[[], float], length: int) -> Iterator[Trade]:
    """Yield a random walk around a slow wave, about 60 trades a second."""
    at = datetime(2021, 1, 1, tzinfo=UTC)
    prices = [first for _, first, _ in _MARKETS]
    for number in range(length):
        at += timedelta(microseconds=int(draw() * 33_000))
        market = int(draw() * len(_MARKETS))
        symbol, first, step = _MARKETS[market]
        wave = 0.08 * math.sin(number / 900 + market)
        prices[market] = max(first // 2, prices[market] + round((2 * draw() - 1 + wave) * step))
        quantity = Decimal(int(draw() * 900_000) + 1).scaleb(-6)
        side: Any = "buy" if draw() < 0.5 else "sell"
        yield Trade(symbol, at, Decimal(prices[market]).scaleb(-2), quantity, side)
