"""Dead letters on disk."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from pabal.delivery.dead_letters import edited
from pabal.domain.envelope import StoredRecord, checksum_at, checksum_of, verify
from pabal.errors import CorruptDeadLetterError, CorruptLogError, DeadLetterNotFoundError
from pabal.ports.arguments import MAX_POSITION, check_bounds
from pabal.ports.storage import AttemptFailure, DeadLetterGroup, DeadLetterRecord
from pabal.storage.sqlite.connection import Connection
from pabal.storage.sqlite.cursors import decode_failures, encode_failures, read_subscription
from pabal.storage.sqlite.faults import readable
from pabal.storage.sqlite.statements import numbered, statements
from pabal.storage.sqlite.transaction import Transaction


def list_letters(
    connection: Connection,
    path: str,
    subscription: str | None,
    event_type: str | None,
    error_type: str | None,
    after: int,
    limit: int,
) -> list[DeadLetterRecord]:
    """Return up to ``limit`` dead letters above the id ``after`` that match, by ascending id."""
    check_bounds(limit, after=after)
    rows = connection.execute(
        statements()["dead_letters"], numbered(after, subscription, event_type, error_type, limit)
    )
    return [_letter(row, path) for row in rows]


def count_letters(connection: Connection) -> int:
    """Return how many dead letters there are."""
    return int(connection.execute(statements()["count_dead_letters"]).fetchone()[0])


def group_letters(connection: Connection) -> list[DeadLetterGroup]:
    """Count dead letters by subscription and type of their last error, largest group first."""
    return [
        DeadLetterGroup(
            name, error, count, datetime.fromtimestamp(first, UTC), datetime.fromtimestamp(last, UTC), newest
        )
        for name, error, count, first, last, newest in connection.execute(statements()["dead_letter_groups"])
    ]


def get_letter(connection: Connection, path: str, dead_letter_id: int) -> DeadLetterRecord:
    """Return one dead letter. Raises DeadLetterNotFoundError, CorruptLogError."""
    return _letter(_row(connection, dead_letter_id), path)


def _row(connection: Connection, dead_letter_id: int) -> Any:
    row = None
    if isinstance(dead_letter_id, int) and abs(dead_letter_id) <= MAX_POSITION:  # no other value can be an id
        row = connection.execute(statements()["dead_letter"], (dead_letter_id,)).fetchone()
    if row is None:
        raise DeadLetterNotFoundError(dead_letter_id=dead_letter_id)
    return row


def damaged_letters(connection: Connection, path: str) -> list[str]:
    """Return a sentence for each damaged dead letter."""
    damaged: list[str] = []
    for row in connection.execute(statements()["dead_letters"], numbered(0, None, None, None, -1)):
        try:
            _letter(row, path)
        except CorruptLogError as error:
            damaged.append(str(error))
    return damaged


def _letter(row: Any, path: str, *, whole: bool = True) -> DeadLetterRecord:
    """Make a dead letter of its row; if not the ``whole``, without what may be damaged."""
    number, subscription, position, state, reason, failures, parked_at, key, queued, *columns = row
    record: StoredRecord | None = None
    attempts: tuple[AttemptFailure, ...] = ()
    if whole:
        record = StoredRecord._make(columns)
        try:
            with readable(path):
                verify(record, path)
                attempts = decode_failures(failures)
        except CorruptLogError as error:
            raise CorruptDeadLetterError(
                path=path, position=position, dead_letter_id=number, reason=error.reason
            ) from error
    return DeadLetterRecord(
        id=number,
        subscription=subscription,
        position=position,
        record=record,
        event=None,
        reason=reason,
        failures=attempts,
        parked_at=datetime.fromtimestamp(parked_at, UTC),
        state=state,
        key=key,
        queued=queued,
    )


def begin_retry(
    tx: Transaction, path: str, dead_letter_id: int, payload: bytes | None, now: float
) -> DeadLetterRecord | None:
    """Mark a dead letter as being retried and store the retry, unless its subscription was deleted.

    Returns None if it is being retried already. ``payload``, if given, replaces the dead letter's own.
    """
    letter = get_letter(tx, path, dead_letter_id)
    if letter.state == "retrying":
        return None
    assert letter.record is not None
    record = letter.record
    if payload is not None:
        record = edited(record, payload)
        checksum = checksum_at(
            checksum_of(record[1:11]), record.position, record.stream_version, record.recorded_at
        )
        record = record._replace(checksum=checksum)
    tx.execute(
        statements()["begin_retry"], (record.payload, record.schema_version, record.checksum, letter.id)
    )
    if read_subscription(tx, letter.subscription) is not None:
        tx.execute(
            statements()["put_retry"],
            (letter.subscription, letter.position, 0, now, encode_failures(letter.failures), 1),
        )
    return get_letter(tx, path, dead_letter_id)


def discard(tx: Transaction, path: str, dead_letter_id: int) -> DeadLetterRecord:
    """Delete a dead letter, and its retry if one is under way; return it without its event and failures.

    A damaged one can be deleted, too.
    """
    letter = _letter(_row(tx, dead_letter_id), path, whole=False)
    tx.execute(statements()["delete_dead_letter"], (dead_letter_id,))
    tx.execute(statements()["delete_retry"], (letter.subscription, letter.position))
    return letter
