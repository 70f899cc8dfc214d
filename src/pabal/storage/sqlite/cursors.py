"""Subscriptions on disk: cursors, leases, retries, and the queues behind parked keys.

A cursor is a *watermark*, up to which every event is finished; a *frontier*, the last position that the
subscription has reached; and the few positions between them that are unfinished.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from pabal.domain.envelope import from_microseconds
from pabal.ports.arguments import checked_start
from pabal.ports.records import Move
from pabal.ports.storage import (
    DIED_AMONG_OTHERS,
    PROCESS_DIED,
    RECOVERIES_KEPT,
    AttemptFailure,
    Cursor,
    ParkedDelivery,
    PendingRetry,
    Progress,
    RecoveredDelivery,
    Replay,
    Start,
    SubscriptionRecord,
)
from pabal.storage.sqlite.connection import Connection
from pabal.storage.sqlite.journal import Attempt, dead_journals, is_alive, remove_journal
from pabal.storage.sqlite.places import first_recorded_since
from pabal.storage.sqlite.statements import numbered, statements
from pabal.storage.sqlite.transaction import Transaction

LEASE_SECONDS = 10.0
"""How long a lease on a subscription lasts; its holder renews it every three seconds."""

_failures_decoder = msgspec.json.Decoder(tuple[AttemptFailure, ...])
_encode = msgspec.json.encode
_pack = msgspec.msgpack.encode
_unpack = msgspec.msgpack.Decoder(list[int]).decode


class SubscriptionRow(NamedTuple):
    """A row of the table ``subscriptions``."""

    number: int
    name: str
    watermark: int
    frontier: int
    packed: bytes | None
    """The unfinished positions, for ``unpack_positions``."""
    owner: str | None
    lease_until: int
    """Microseconds since 1970."""
    epoch: int
    paused: int
    reopenings: int


def read_subscription(connection: Connection, name: str) -> SubscriptionRow | None:
    """Return a subscription's row, or None if there is none of this name."""
    row = connection.execute(statements()["subscription"], (name,)).fetchone()
    return None if row is None else SubscriptionRow._make(row)


def encode_failures(failures: tuple[AttemptFailure, ...]) -> bytes:
    """Return the failures of a delivery's attempts as JSON."""
    return _encode(failures)


def decode_failures(data: bytes) -> tuple[AttemptFailure, ...]:
    """Return the failures that ``encode_failures`` encoded."""
    return _failures_decoder.decode(data)


def pack_positions(base: int, positions: Sequence[int]) -> bytes | None:
    """Encode ascending positions as differences, the first one from ``base``; None if there are none."""
    if not positions:
        return None
    steps: list[int] = []
    for position in positions:
        steps.append(position - base)
        base = position
    return _pack(steps)


def unpack_positions(base: int, data: bytes | None) -> tuple[int, ...]:
    """Return the positions that ``pack_positions`` packed."""
    positions: list[int] = []
    for step in _unpack(data) if data else ():
        base += step
        positions.append(base)
    return tuple(positions)


def take(tx: Transaction, name: str, start: Start, owner: str, database: Path) -> Cursor | None:
    """Make ``owner`` the holder of a subscription, created if new; None if another owner holds it."""
    sql = statements()
    now = time.time_ns() // 1000
    lease = now + int(LEASE_SECONDS * 1e6)
    row = read_subscription(tx, name)
    if row is None:
        watermark = start_position(tx, start)
        number = tx.execute(
            sql["insert_subscription"], (name, watermark, watermark, owner, lease, now, now)
        ).fetchone()[0]
        # Of a deleted subscription of this name, dead letters that are delivered again go, as after a reset.
        tx.execute(sql["forget_letters_above"], numbered(name, watermark))
        tx.execute(sql["settle_letters"], (name,))  # the others block no key of the new one
        return Cursor(name, number, 1, watermark, watermark, (), (), ())
    if row.owner is not None and row.owner != owner:
        if not is_alive(database, row.owner):
            count_interrupted(tx, database, owner)
        elif row.lease_until > now:
            return None
    asked = read_move(tx, name)
    if asked is not None:
        move(tx, name, start_position(tx, asked.start))
        row = read_subscription(tx, name)
        assert row is not None
    epoch = tx.execute(sql["take_subscription"], (owner, lease, name)).fetchone()[0]
    unfinished = unpack_positions(row.watermark, row.packed)
    replays = read_replays(tx, name)
    _drop_cancelled_replays(tx, name, row.frontier, unfinished, replays)
    retries = tuple(
        PendingRetry(position, attempts, due_at, decode_failures(failures), bool(from_letter))
        for position, attempts, due_at, failures, from_letter in tx.execute(sql["retries"], (name,))
    )
    blocked = tuple(key for (key,) in tx.execute(sql["blocked_keys"], numbered(name)))
    return Cursor(
        name,
        row.number,
        epoch,
        row.watermark,
        row.frontier,
        unfinished,
        retries,
        blocked,
        bool(row.paused),
        replays,
        row.reopenings,
    )


def move(tx: Transaction, name: str, position: int) -> None:
    """Set a cursor to a position, and forget retries, queues, replays and dead letters it makes obsolete.

    Everything above the position is delivered (again).
    """
    sql = statements()
    for statement in ("forget_retries", "forget_queue", "forget_replays", "end_move"):
        tx.execute(sql[statement], (name,))
    tx.execute(sql["forget_letters_above"], numbered(name, position))
    tx.execute(sql["settle_letters"], (name,))
    tx.execute(sql["reset_cursor"], numbered(position, time.time_ns() // 1000, name))


def read_move(connection: Connection, name: str) -> Move | None:
    """Return the move that was requested while the subscription was held, or None."""
    row = connection.execute(statements()["requested_move"], (name,)).fetchone()
    return None if row is None else Move(row[0])


def _drop_cancelled_replays(
    tx: Transaction, name: str, frontier: int, unfinished: Sequence[int], replays: Sequence[Replay]
) -> None:
    """Delete retries left over from cancelled replays, which nothing delivers any more."""
    sql = statements()
    for (position,) in tx.execute(sql["retries_beside_the_queue"], numbered(name, frontier)).fetchall():
        if position not in unfinished and not any(r.watermark < position <= r.last for r in replays):
            tx.execute(sql["delete_retry"], (name, position))


def read_replays(connection: Connection, name: str) -> tuple[Replay, ...]:
    """Return a subscription's replays that are not finished, oldest request first."""
    return tuple(Replay(*row) for row in connection.execute(statements()["replays"], (name,)))


def start_position(tx: Transaction, start: Start) -> int:
    """Return the position after which a subscription with this ``start`` begins. Raises SubscriptionError."""
    head: int = tx.execute(statements()["head"]).fetchone()[0]
    if isinstance(start, int):
        return max(0, min(start, head))
    start = checked_start(start)
    if isinstance(start, datetime):
        first = first_recorded_since(tx, start)
        return head if first is None else first - 1
    return head if start == "now" else 0


def count_interrupted(tx: Transaction, database: Path, own: str) -> None:
    """Record the attempts in which processes died as failed, and release the subscriptions they held.

    The journals of the dead processes are removed once this is committed.
    """
    sql = statements()
    for owner, path, attempts in dead_journals(database, own):
        for number, name, watermark, frontier, packed in tx.execute(sql["owned_by"], (owner,)).fetchall():
            unfinished = set(unpack_positions(watermark, packed))
            for replay in read_replays(tx, name):
                unfinished.update(
                    attempt.first for attempt in attempts if replay.watermark < attempt.first <= replay.last
                )
            for attempt in attempts:
                if attempt.subscription == number:
                    _count_attempt(tx, name, attempt, frontier, unfinished, alone=len(attempts) == 1)
        tx.execute(sql["disown"], (owner,))
        tx.after_commit.append(partial(remove_journal, path))


def _count_attempt(
    tx: Transaction, name: str, attempt: Attempt, frontier: int, unfinished: set[int], *, alone: bool
) -> None:
    sql = statements()
    known = tx.execute(sql["retry"], (name, attempt.first)).fetchone()
    if known is None and attempt.first <= frontier and attempt.first not in unfinished:
        return  # the delivery was finished, and its progress was saved
    attempts, failures, from_letter = known or (0, b"[]", 0)
    if attempts >= attempt.attempt:
        return
    died = AttemptFailure(
        attempt.attempt,
        datetime.now(UTC),
        PROCESS_DIED if alone else DIED_AMONG_OTHERS,
        "the process ended while the handler ran" + ("" if alone else ", and others with it"),
        "",
    )
    history = encode_failures((*decode_failures(failures), died))
    tx.execute(sql["put_retry"], (name, attempt.first, attempt.attempt, time.time(), history, from_letter))


def release(tx: Transaction, name: str, epoch: int, owner: str) -> None:
    """Release a subscription, so that another owner can take it."""
    tx.execute(statements()["release_subscription"], (name, epoch, owner))


def note_halt(tx: Transaction, name: str, epoch: int, owner: str, reason: str) -> bool:
    """Record why a subscription has halted; False if the holder of ``epoch`` has lost it."""
    return tx.execute(statements()["note_halt"], (reason, name, epoch, owner)).rowcount > 0


def read_halts(connection: Connection) -> dict[str, str]:
    """Return the reason for each subscription that has halted and is still held, by name."""
    return dict(connection.execute(statements()["halts"], (time.time_ns() // 1000,)))


def renew(tx: Transaction, held: dict[str, int], owner: str) -> list[str]:
    """Renew leases; return the names of subscriptions whose lease is lost."""
    until = time.time_ns() // 1000 + int(LEASE_SECONDS * 1e6)
    sql = statements()["renew_lease"]
    return [
        name for name, epoch in held.items() if tx.execute(sql, (until, name, epoch, owner)).rowcount == 0
    ]


def save(tx: Transaction, changes: Sequence[Progress], owner: str) -> list[str]:
    """Save progress; return the names of subscriptions whose lease is lost. Nothing is saved for these."""
    sql = statements()
    now = time.time_ns() // 1000
    lost: list[str] = []
    for change in changes:
        packed = pack_positions(change.watermark, change.unfinished)
        hit = tx.execute(
            sql["save_progress"],
            (change.watermark, change.frontier, packed, now, change.name, change.epoch, owner),
        )
        if hit.rowcount == 0:
            lost.append(change.name)
            continue
        for position in change.cleared:
            tx.execute(sql["delete_retry"], (change.name, position))
            tx.execute(sql["delete_queued"], (change.name, position))
            tx.execute(sql["dead_letter_done"], (change.name, position))
        if change.recovered:
            _keep_recoveries(tx, change.name, change.recovered)
        for parked in change.parked:
            park(tx, change.name, parked)
        if change.retries:
            tx.executemany(sql["put_retry"], [_retry_row(change.name, retry) for retry in change.retries])
        if change.queued:
            tx.executemany(sql["put_queued"], [(change.name, key, at) for key, at in change.queued])
        if change.replayed:
            for replay, upto in change.replayed:
                tx.execute(sql["advance_replay"], (upto, replay, change.name))
            tx.execute(sql["finish_replays"], (change.name,))
    return lost


def _keep_recoveries(tx: Transaction, name: str, recovered: Sequence[RecoveredDelivery]) -> None:
    """Record deliveries that succeeded after failed attempts, and delete all but the newest records.

    A delivery whose event is no longer in the log is not recorded.
    """
    sql = statements()
    tx.executemany(
        sql["keep_recovery"],
        [
            (name, one.attempts, encode_failures(one.failures), one.finished_at, one.position)
            for one in recovered
        ],
    )
    tx.execute(sql["bound_recoveries"], (RECOVERIES_KEPT,))


def _retry_row(name: str, retry: PendingRetry) -> tuple[Any, ...]:
    return (
        name,
        retry.position,
        retry.attempts,
        retry.due_at,
        encode_failures(retry.failures),
        int(retry.from_dead_letter),
    )


def park(tx: Transaction, name: str, parked: ParkedDelivery) -> None:
    """Make a delivery a dead letter; if it is the retry of one, park that dead letter again."""
    sql = statements()
    failures = encode_failures(parked.failures)
    error_type = parked.failures[-1].error_type if parked.failures else None
    key = parked.key if parked.blocks else None
    described = (parked.reason, failures, error_type, parked.parked_at, key)
    if tx.execute(sql["park_again"], (*described, name, parked.position)).rowcount == 0:
        tx.execute(sql["park"], (name, *described, parked.position))
    tx.execute(sql["delete_retry"], (name, parked.position))
    tx.execute(sql["delete_queued"], (name, parked.position))


def list_records(connection: Connection) -> list[SubscriptionRecord]:
    """Return every durable subscription with its progress and counts, by name."""
    rows = connection.execute(statements()["list_subscriptions"], (time.time_ns() // 1000,)).fetchall()
    halts = read_halts(connection)
    replays: dict[str, list[Replay]] = {}
    for row in connection.execute(statements()["all_replays"]):
        replays.setdefault(row[1], []).append(Replay(*row))
    return [
        SubscriptionRecord(
            name=name,
            watermark=watermark,
            frontier=frontier,
            unfinished=len(unpack_positions(watermark, packed)) + queued,
            retries=retries,
            parked=parked,
            queued=queued,
            owner=owner,
            epoch=epoch,
            updated_at=from_microseconds(updated_at),
            paused=bool(paused),
            replays=tuple(replays.get(name, ())),
            created_at=from_microseconds(created_at),
            halted=halts.get(name, ""),
        )
        for (
            name,
            watermark,
            frontier,
            packed,
            retries,
            parked,
            queued,
            owner,
            epoch,
            updated_at,
            paused,
            created_at,
        ) in rows
    ]
