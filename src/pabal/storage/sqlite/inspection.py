"""Queries of operators: rows as stored, streams by name, deliveries of one event, the audit log."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from pabal.domain.envelope import StoredRecord, from_microseconds
from pabal.ports.arguments import check_bounds
from pabal.ports.inspection import ActionRecord, DeliveryRecord, LogFigures, state_of, with_recoveries
from pabal.ports.storage import RecoveredDelivery, Start
from pabal.storage.sqlite import control, reader
from pabal.storage.sqlite.cursors import decode_failures, unpack_positions
from pabal.storage.sqlite.statements import numbered, statements

if TYPE_CHECKING:
    import asyncio

    from pabal.storage.sqlite.connection import Connection
    from pabal.storage.sqlite.reader import Reader
    from pabal.storage.sqlite.transaction import Transaction
    from pabal.storage.sqlite.writer import Writer

T = TypeVar("T")


class SqliteInspection:
    """Implement ``LogInspection``; a part of ``SqliteEventStorage``, which owns the reader and writer."""

    if TYPE_CHECKING:
        path: str
        _reader: Reader
        _writer: Writer

        def _do(self, action: Callable[[Transaction], T]) -> asyncio.Future[T]: ...
        async def _submit_control(self, action: Callable[[Transaction], T]) -> T: ...

    async def measure(self) -> LogFigures:
        """Return the extent of the log, at a cost that does not grow with its size."""
        return await self._reader.run(lambda c: _measure(c, Path(self.path)))

    async def noted_durability(self) -> str | None:
        """Return the durability of the last process that began to append; None if the file has none noted."""
        row = await self._reader.run(lambda c: c.execute(statements()["durability"]).fetchone())
        return None if row is None else str(row[0])

    async def find_record(self, event_id: str) -> StoredRecord | None:
        """Return the row of an event id; None if there is none or the text is not a UUID."""
        return await self._reader.run(lambda c: reader.read_event(c, self.path, event_id))

    async def read_stream(
        self, aggregate_id: str, aggregate_type: str | None, *, after_version: int = 0, limit: int = 100
    ) -> list[StoredRecord]:
        """Return up to ``limit`` rows of an aggregate above a version, ordered by type and version."""
        check_bounds(limit, after_version=after_version)

        def read(connection: sqlite3.Connection) -> list[StoredRecord]:
            positions = positions_of(connection, aggregate_id, aggregate_type, after_version, limit)
            rows = reader.read_positions(connection, self.path, positions)
            return sorted(rows, key=lambda row: (row.aggregate_type or "", row.stream_version or 0))

        return await self._reader.run(read)

    async def list_streams(
        self, *, prefix: str = "", after: tuple[str, str] | None = None, limit: int = 100
    ) -> list[tuple[str, str, int]]:
        """Return (aggregate id, aggregate type or ``""``, version) of each stream, ordered by id and type."""
        return await self._reader.run(lambda c: _list_streams(c, prefix, after, limit))

    async def deliveries_at(self, position: int) -> list[DeliveryRecord]:
        """Return the state of one event at every durable subscription, ordered by subscription name."""
        check_bounds(position=position)
        return await self._reader.run(lambda c: _deliveries_at(c, position))

    async def request_reset(self, name: str, start: Start) -> int | None:
        """Move a cursor and return its position, or None if it is held and its holder is asked to move it."""
        return await self._submit_control(lambda tx: control.request_reset(tx, Path(self.path), name, start))

    async def request_reopening(self, name: str) -> None:
        """Ask the holder of a subscription, if there is one, to take it again from its stored state."""
        await self._submit_control(lambda tx: control.request_reopening(tx, name))

    async def begin_action(self, actor: str, action: str, subject: str, details: Any) -> int:
        """Record the start of an operator's action in the audit log and return its number."""
        row = (time.time_ns() // 1000, actor, action, subject, msgspec.json.encode(details))
        return await self._do(lambda tx: int(tx.execute(statements()["begin_action"], row).fetchone()[0]))

    async def finish_action(self, number: int, result: str, *, succeeded: bool) -> None:
        """Record the result of an action in the audit log."""
        row = (result, int(succeeded), number)
        await self._do(lambda tx: tx.execute(statements()["finish_action"], row).rowcount)

    async def list_actions(self, *, before: int | None = None, limit: int = 100) -> list[ActionRecord]:
        """Return up to ``limit`` recorded actions by descending number, below ``before`` if given."""
        check_bounds(limit, before=before or 0)
        rows = await self._reader.run(
            lambda c: c.execute(statements()["actions"], numbered(before, limit)).fetchall()
        )
        return [
            ActionRecord(
                number,
                from_microseconds(at),
                actor,
                action,
                subject,
                msgspec.json.decode(details),
                result,
                None if succeeded is None else bool(succeeded),
            )
            for number, at, actor, action, subject, details, result, succeeded in rows
        ]


def _measure(connection: Connection, path: Path) -> LogFigures:
    first, head, scheduled = connection.execute(statements()["extent"]).fetchone()
    files = (path, Path(f"{path}-wal"))
    return LogFigures(first, head, scheduled, sum(file.stat().st_size for file in files if file.exists()))


def positions_of(
    connection: Connection, aggregate_id: str, aggregate_type: str | None, after_version: int, limit: int
) -> list[int]:
    """Return the positions of an aggregate's events above a version, type by type, each in order."""
    sql = statements()
    kinds = [aggregate_type]
    if aggregate_type is None:
        kinds = [kind for (kind,) in connection.execute(sql["stream_types"], numbered(aggregate_id))]
    found: list[int] = []
    for kind in kinds:
        bounds = numbered(aggregate_id, kind, after_version, limit - len(found))
        found += [position for _, position in connection.execute(sql["stream_page"], bounds)]
    return found


def _list_streams(
    connection: Connection, prefix: str, after: tuple[str, str] | None, limit: int
) -> list[tuple[str, str, int]]:
    """List streams by jumping from one to the next in the index; merge in the rows not indexed yet."""
    check_bounds(limit)
    sql = statements()
    pending = {
        (identity, kind): version
        for identity, kind, version in connection.execute(sql["unindexed_streams"])
        if identity.startswith(prefix) and (after is None or (identity, kind) > after)
    }
    at = after if after is not None and after >= (prefix, "") else (prefix, "")
    inclusive = at != after
    found: dict[tuple[str, str], int] = {}
    while len(found) < limit:
        row = connection.execute(sql["stream_from" if inclusive else "stream_after"], at).fetchone()
        if row is None or not row[0].startswith(prefix):
            break
        at, inclusive = (row[0], row[1]), False
        found[at] = connection.execute(sql["stream_version"], at).fetchone()[0]
    for stream, version in pending.items():
        found[stream] = max(version, found.get(stream, 0))
    return [(*stream, found[stream]) for stream in sorted(found)[:limit]]


def _deliveries_at(connection: Connection, position: int) -> list[DeliveryRecord]:
    sql = statements()
    found: dict[str, DeliveryRecord] = {}
    for name, watermark, frontier, packed in connection.execute(sql["cursors"]):
        unfinished = unpack_positions(watermark, packed) if watermark < position <= frontier else ()
        found[name] = DeliveryRecord(name, state_of(position, frontier, unfinished))
    for (name,) in connection.execute(sql["queued_at"], (position,)):
        found[name] = DeliveryRecord(name, "queued")
    for name, attempts, due_at, failures in connection.execute(sql["retries_at"], (position,)):
        found[name] = DeliveryRecord(name, "retrying", attempts, due_at, decode_failures(failures))
    for name, number, state, failures in connection.execute(sql["dead_letters_at"], (position,)):
        attempts = decode_failures(failures)
        known = found.get(name)
        due_at = known.due_at if known is not None and state == "retrying" else None
        found[name] = DeliveryRecord(name, state, len(attempts), due_at, attempts, number)
    recoveries: dict[str, list[RecoveredDelivery]] = {}
    for name, at, made, failures, finished_at in connection.execute(sql["recoveries_at"], (position,)):
        earlier = RecoveredDelivery(at, made, decode_failures(failures), finished_at)
        recoveries.setdefault(name, []).append(earlier)
    return [with_recoveries(found[name], recoveries.get(name, ())) for name in sorted(found)]
