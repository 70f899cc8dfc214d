"""Control requests to subscriptions: pause, resume, reset, replay, removal.

A request is stored with the subscription, and the counter ``controls`` in the table ``meta`` is increased, so
that the process that handles the subscription notices it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from pabal.errors import SubscriptionInUseError, SubscriptionNotFoundError, UsageError
from pabal.ports.storage import Control, Replay, Start
from pabal.storage.sqlite.connection import Connection
from pabal.storage.sqlite.cursors import (
    SubscriptionRow,
    move,
    read_halts,
    read_move,
    read_replays,
    read_subscription,
    start_position,
)
from pabal.storage.sqlite.journal import is_alive
from pabal.storage.sqlite.statements import numbered, statements
from pabal.storage.sqlite.transaction import Transaction


def pause(tx: Transaction, name: str) -> bool:
    """Pause a subscription; False if it is paused already."""
    _existing(tx, name)
    return _announce_if(tx, _set_paused(tx, name, True))


def resume(tx: Transaction, name: str) -> bool:
    """Continue a paused or halted subscription; False if it is neither."""
    _existing(tx, name)
    halted = name in read_halts(tx)
    tx.execute(statements()["end_halt"], (name,))
    return _announce_if(tx, _set_paused(tx, name, False) or halted)


def _set_paused(tx: Transaction, name: str, paused: bool) -> bool:
    return tx.execute(statements()["set_paused"], numbered(int(paused), name)).rowcount > 0


def _announce_if(tx: Transaction, changed: bool) -> bool:
    if changed:
        _announce(tx)
    return changed


def reset(tx: Transaction, database: Path, name: str, start: Start, epoch: int | None) -> int:
    """Move a cursor and return its position.

    Raises SubscriptionInUseError if the subscription is held in an epoch other than ``epoch``.
    """
    row = _existing(tx, name)
    if not _is_free(row, database) and row.epoch != epoch:
        raise SubscriptionInUseError(name=name)
    position = start_position(tx, start)
    move(tx, name, position)
    _announce(tx)
    return position


def request_reset(tx: Transaction, database: Path, name: str, start: Start) -> int | None:
    """Move a cursor and return its position; if it is held, ask the holder to move it and return None."""
    if _is_free(_existing(tx, name), database):
        return reset(tx, database, name, start, None)
    place = None if start == "now" else start_position(tx, start)
    tx.execute(statements()["request_move"], (name, place))
    request_reopening(tx, name)
    return None


def request_reopening(tx: Transaction, name: str) -> None:
    """Ask the holder of a subscription, if there is one, to take it again from its stored state."""
    if tx.execute(statements()["request_reopening"], (name,)).rowcount:
        _announce(tx)


def request_replay(tx: Transaction, name: str, first: int, last: int) -> Replay:
    """Store a request to deliver positions ``first`` to ``last`` again.

    The range is cut to positions that are in the log and that the subscription has reached. Raises UsageError
    if none is left.
    """
    sql = statements()
    frontier = _existing(tx, name).frontier
    begin = tx.execute(sql["first"]).fetchone()[0] or 1
    if first <= last < begin:
        raise UsageError(f"positions {first} to {last} hold nothing to replay: the log begins at {begin}")
    first, last = max(begin, first), min(last, frontier)
    if first > last:
        raise UsageError(
            f"positions {first} to {last} hold nothing to replay: "
            f"{name!r} has reached position {frontier}, and later events are delivered anyway"
        )
    number = tx.execute(sql["request_replay"], (name, first, last, first - 1)).fetchone()[0]
    _announce(tx)
    return Replay(number, name, first, last, first - 1)


def cancel_replays(tx: Transaction, name: str) -> int:
    """Delete all replays of a subscription; return how many there were."""
    _existing(tx, name)
    count = tx.execute(statements()["forget_replays"], (name,)).rowcount
    if count:
        _announce(tx)
    return count


def forget(tx: Transaction, database: Path, name: str) -> bool:
    """Delete a subscription; its dead letters stay. Raises SubscriptionInUseError if it is held."""
    sql = statements()
    row = read_subscription(tx, name)
    if row is None:
        return False
    if not _is_free(row, database):
        raise SubscriptionInUseError(name=name)
    for statement in (
        "forget_retries",
        "forget_queue",
        "forget_replays",
        "forget_recoveries",
        "settle_letters",
        "end_halt",
        "end_move",
        "forget_subscription",
    ):
        tx.execute(sql[statement], (name,))
    return True


def read(connection: Connection, names: Sequence[str]) -> list[Control]:
    """Return the state requested for each of these subscriptions; unknown names are left out."""
    found: list[Control] = []
    halts = read_halts(connection)
    for name in names:
        row = read_subscription(connection, name)
        if row is not None:
            replays, asked = read_replays(connection, name), read_move(connection, name)
            found.append(Control(name, bool(row.paused), replays, row.reopenings, asked, name in halts))
    return found


def _existing(tx: Transaction, name: str) -> SubscriptionRow:
    """Return a subscription's row. Raises SubscriptionNotFoundError."""
    row = read_subscription(tx, name)
    if row is None:
        names = [known for (known,) in tx.execute(statements()["subscription_names"])]
        raise SubscriptionNotFoundError(name=name, known=", ".join(names) or "none")
    return row


def _is_free(row: SubscriptionRow, database: Path) -> bool:
    """Return whether no living process holds a lease on a subscription."""
    if row.owner is None or row.lease_until <= time.time_ns() // 1000:
        return True
    return not is_alive(database, row.owner)


def _announce(tx: Transaction) -> None:
    """Increase the counter by which other processes notice a request."""
    tx.execute(statements()["count_control"])
