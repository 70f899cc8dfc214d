"""Samples of a bus's activity on disk, and the time series computed from them and the log."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from pabal.ports.samples import Sample, Series, SubscriptionSample, filled
from pabal.storage.sqlite.places import first_recorded_since
from pabal.storage.sqlite.statements import numbered, statements

if TYPE_CHECKING:
    import asyncio

    from pabal.storage.sqlite.connection import Connection
    from pabal.storage.sqlite.reader import Reader
    from pabal.storage.sqlite.transaction import Transaction

T = TypeVar("T")
_SECOND = 1_000_000
_DAY = 86_400 * _SECOND
_WHOLE = _DAY
"""Microseconds for which every sample is kept."""
_THINNED = 7 * _DAY
"""Microseconds for which one sample per five minutes is kept."""
_THIN_TO = 300 * _SECOND
_TAKEN_EVERY = 10 * _SECOND
_decode = msgspec.json.Decoder(dict[str, SubscriptionSample]).decode


class SqliteSamples:
    """Implement ``SampleStore``; a part of ``SqliteEventStorage``, which owns the reader and writer."""

    if TYPE_CHECKING:
        _reader: Reader

        def _do(self, action: Callable[[Transaction], T]) -> asyncio.Future[T]: ...

    async def record_sample(self, sample: Sample) -> None:
        """Store a sample, together with the current number of retries and dead letters."""
        await self._do(lambda tx: _record(tx, sample))

    async def latest_samples(self, since: int) -> list[Sample]:
        """Return the newest sample of each source, unless older than ``since`` (microseconds since 1970)."""
        return await self._reader.run(lambda c: _latest(c, since))

    async def read_series(self, edges: Sequence[int]) -> Series:
        """Return the series between ascending, equally spaced times (seconds since 1970)."""
        return await self._reader.run(lambda c: _series(c, edges))


def _record(tx: Transaction, sample: Sample) -> None:
    sql = statements()
    tx.execute(
        sql["record_sample"],
        (
            sample.at,
            sample.source,
            sample.seconds,
            sample.handled,
            sample.failed,
            sample.lag,
            sample.p50,
            sample.p99,
            msgspec.json.encode(sample.subscriptions),
        ),
    )
    old = sample.at - _WHOLE
    # Thin only the samples that became a day old in the last five minutes. Any missed here are deleted
    # after a week.
    tx.execute(sql["thin_samples"], (old - _THIN_TO, old, _THIN_TO, _TAKEN_EVERY))
    tx.execute(sql["forget_samples"], (sample.at - _THINNED,))


def _latest(connection: Connection, since: int) -> list[Sample]:
    rows = connection.execute(statements()["latest_samples"], (since,))
    return [_sample(row) for row in rows]


def _sample(row: Any) -> Sample:
    at, source, seconds, handled, failed, lag, p50, p99, subscriptions = row
    return Sample(at, source, seconds, handled, failed, lag, p50, p99, _decode(subscriptions))


def _series(connection: sqlite3.Connection, edges: Sequence[int]) -> Series:
    step = edges[1] - edges[0]
    positions = [_position_at(connection, edge * _SECOND) for edge in edges]
    published = [(after - before) / step for before, after in pairwise(positions)]
    bounds = (edges[0] * _SECOND, step * _SECOND, edges[-1] * _SECOND)
    found = connection.execute(statements()["sample_series"], numbered(*bounds))
    known: dict[int, tuple[Any, ...]] = {bucket: tuple(figures) for bucket, *figures in found}
    rows = [known.get(step_at, (None,) * 6) for step_at in range(len(edges) - 1)]
    handled, lag, p50, p99, retrying, letters = (filled(column, step) for column in zip(*rows, strict=True))
    return Series(
        at=tuple(edges[1:]),
        published=tuple(published),
        handled=handled,
        lag=lag,
        p50=p50,
        p99=p99,
        retrying=retrying,
        dead_letters=letters,
    )


def _position_at(connection: Connection, at: int) -> int:
    """Return the highest position recorded before a time (microseconds since 1970)."""
    first = first_recorded_since(connection, at)
    return int(connection.execute(statements()["head"]).fetchone()[0]) if first is None else first - 1
