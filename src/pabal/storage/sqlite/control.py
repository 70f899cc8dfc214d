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
from pabal.storage.sqlite.cursors import move, read_halts, read_move, read_replays, start_position
from pabal.storage.sqlite.journal import is_alive
from pabal.storage.sqlite.reader import Connection
from pabal.storage.sqlite.statements import numbered, statements
from pabal.storage.sqlite.transaction import Transaction


def pause(tx: Transaction, name: str) -> bool:
    """Pause a subscription; False if it is paused already."""
    _known(tx, name)
    return _counted(tx, _set_paused(tx, name, True))


def resume(tx: Transaction, name: str) -> bool:
    """Continue a paused or halted subscription; False if it is neither."""
    _known(tx, name)
    halted = name in read_halts(tx)
    tx.execute(statements()["end_halt"], (name,))
    return _counted(tx, _set_paused(tx, name, False) or halted)


def _set_paused(tx: Transaction, name: str, paused: bool) -> bool:
    return tx.execute(statements()["set_paused"], numbered(int(paused), name)).rowcount > 0


def _counted(tx: Transaction, changed: bool) -> bool:
    if changed:
        _count(tx)
    return changed


def reset(tx: Transaction, database: Path, name: str, start: Start, epoch: int | None) -> int:
    """Move a cursor and return its position.

    Raises SubscriptionInUseError if the subscription is held in an epoch other than ``epoch``.
    """
    _known(tx, name)
    if not _is_free(tx, database, name) and _epoch(tx, name) != epoch:
        raise SubscriptionInUseError(name=name)
    position = start_position(tx, start)
    move(tx, name, position)
    _count(tx)
    return position


def request_reset(tx: Transaction, database: Path, name: str, start: Start) -> int | None:
    """Move a cursor and return its position; if it is held, ask the holder to move it and return None."""
    _known(tx, name)
    if _is_free(tx, database, name):
        return reset(tx, database, name, start, None)
    place = None if start == "now" else start_position(tx, start)
    tx.execute(statements()["request_move"], (name, place))
    request_reopening(tx, name)
    return None


def request_reopening(tx: Transaction, name: str) -> None:
    """Ask the holder of a subscription, if there is one, to take it again from its stored state."""
    if tx.execute(statements()["request_reopening"], (name,)).rowcount:
        _count(tx)


def request_replay(tx: Transaction, name: str, first: int, last: int) -> Replay:
    """Store a request to deliver positions ``first`` to ``last`` again.

    The range is cut to positions that are in the log and that the subscription has reached. Raises UsageError
    if none is left.
    """
    sql = statements()
    _known(tx, name)
    frontier = tx.execute(sql["subscription"], (name,)).fetchone()[3]
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
    _count(tx)
    return Replay(number, name, first, last, first - 1)


def cancel_replays(tx: Transaction, name: str) -> int:
    """Delete all replays of a subscription; return how many there were."""
    _known(tx, name)
    count = tx.execute(statements()["forget_replays"], (name,)).rowcount
    if count:
        _count(tx)
    return count


def forget(tx: Transaction, database: Path, name: str) -> bool:
    """Delete a subscription; its dead letters stay. Raises SubscriptionInUseError if it is held."""
    sql = statements()
    if tx.execute(sql["subscription"], (name,)).fetchone() is None:
        return False
    if not _is_free(tx, database, name):
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
        row = connection.execute(statements()["subscription"], (name,)).fetchone()
        if row is not None:
            replays, asked = read_replays(connection, name), read_move(connection, name)
            found.append(Control(name, bool(row[8]), replays, row[9], asked, name in halts))
    return found


def _known(tx: Transaction, name: str) -> None:
    if tx.execute(statements()["subscription"], (name,)).fetchone() is None:
        names = [known for (known,) in tx.execute(statements()["subscription_names"])]
        raise SubscriptionNotFoundError(name=name, known=", ".join(names) or "none")


def _is_free(tx: Transaction, database: Path, name: str) -> bool:
    row = tx.execute(statements()["subscription"], (name,)).fetchone()
    owner, lease_until = row[5], row[6]
    held = owner is not None and lease_until > time.time_ns() // 1000
    return owner is None or not held or not is_alive(database, owner)


def _epoch(tx: Transaction, name: str) -> int:
    return int(tx.execute(statements()["subscription"], (name,)).fetchone()[7])


def _count(tx: Transaction) -> None:
    tx.execute(statements()["count_control"])
