"""Dead letters and scheduled events on disk."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Any

from pabal.delivery.dead_letters import edited
from pabal.domain.envelope import (
    EventRecord,
    StoredRecord,
    checksum_at,
    checksum_of,
    decode_event,
    id_to_text,
    verify,
)
from pabal.domain.event import DomainEvent
from pabal.errors import (
    CorruptDeadLetterError,
    CorruptLogError,
    DeadLetterNotFoundError,
    DecodeError,
    DuplicateEventError,
)
from pabal.ports.arguments import MAX_POSITION, check_bounds
from pabal.ports.storage import AttemptFailure, DeadLetterGroup, DeadLetterRecord
from pabal.storage.sqlite.cursors import decode_failures, encode_failures
from pabal.storage.sqlite.faults import readable
from pabal.storage.sqlite.statements import numbered, statements
from pabal.storage.sqlite.transaction import Transaction

_log = logging.getLogger("pabal")

_DUE_AT_ONCE = 1000
_UNKNOWN = DomainEvent()


def list_letters(
    connection: Any,
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


def group_letters(connection: Any) -> list[DeadLetterGroup]:
    """Count dead letters by subscription and type of their last error, largest group first."""
    return [
        DeadLetterGroup(
            name, error, count, datetime.fromtimestamp(first, UTC), datetime.fromtimestamp(last, UTC), newest
        )
        for name, error, count, first, last, newest in connection.execute(statements()["dead_letter_groups"])
    ]


def get_letter(connection: Any, path: str, dead_letter_id: int) -> DeadLetterRecord:
    """Return one dead letter. Raises DeadLetterNotFoundError, CorruptLogError."""
    return _letter(_row(connection, dead_letter_id), path)


def _row(connection: Any, dead_letter_id: int) -> Any:
    row = None
    if isinstance(dead_letter_id, int) and abs(dead_letter_id) <= MAX_POSITION:  # no other value can be an id
        row = connection.execute(statements()["dead_letter"], (dead_letter_id,)).fetchone()
    if row is None:
        raise DeadLetterNotFoundError(dead_letter_id=dead_letter_id)
    return row


def damaged_letters(connection: Any, path: str) -> list[str]:
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
    if tx.execute(statements()["subscription"], (letter.subscription,)).fetchone() is not None:
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


def schedule(tx: Transaction, record: EventRecord, due_at: float) -> None:
    """Store an event that enters the log at ``due_at``; scheduling the same event again changes nothing.

    Raises DuplicateEventError if its id is already in use for different content.
    """
    sql = statements()
    stored = tx.execute(sql["stored_event"], (record.event_id,)).fetchone()
    position, known = (stored[0], stored[1:12]) if stored is not None else (0, None)
    known = known or tx.execute(sql["scheduled_event"], (record.event_id,)).fetchone()
    if known is None:
        tx.execute(sql["schedule"], (record.event_id, due_at, *record[1:]))
        return
    known = EventRecord._make(known)
    if (known.event_type, known.payload) != (record.event_type, record.payload):
        raise DuplicateEventError(event_id=id_to_text(record.event_id), position=position)


def release_due(tx: Transaction, path: str, now: float) -> float | None:
    """Move scheduled events that are due into the log; return when the next one is due, or None.

    Damaged events stay where they are, for ``check`` to find; they must not hold back the others.
    """
    sql = statements()
    damaged = released = 0
    while released < _DUE_AT_ONCE:
        due = [EventRecord._make(row) for row in tx.execute(sql["due"], (now, _DUE_AT_ONCE, damaged))]
        gone = [record.event_id for record in due if _is_done_with(tx, path, record)]
        for event_id in gone:
            tx.execute(sql["unschedule"], (event_id,))
        if len(due) < _DUE_AT_ONCE:
            (next_due,) = tx.execute(sql["next_due"], (now,)).fetchone()
            return None if next_due is None else float(next_due)
        released += len(gone)
        damaged += len(due) - len(gone)
    return now  # more are due: the caller comes back at once and moves them in the next commit


def _is_done_with(tx: Transaction, path: str, record: EventRecord) -> bool:
    """Move one due event into the log, or drop it as a duplicate; False if it is damaged and stays."""
    try:
        with readable(path):
            row = scheduled_row(record)
            verify(row, path)
        _release(tx, record, row)
    except CorruptLogError as error:
        _log.error("a scheduled event is not released: %s", error)
        return False
    except DuplicateEventError as error:
        _log.error("a scheduled event is dropped: another one was published with its id: %s", error)
    return True


def _release(tx: Transaction, record: EventRecord, row: StoredRecord) -> None:
    try:
        tx.append_records([decode_event(row)], [record])
    except DecodeError:
        # This process lacks the event's class, but another may have it. Buses find the event in the log, and
        # each reports the unknown type or parks the event if it cannot decode it either.
        tx.append_records([_UNKNOWN], [record], announce=False)


def scheduled_row(record: EventRecord) -> StoredRecord:
    """Return a scheduled event as a log row (at position 0), which can be verified and decoded."""
    return StoredRecord._make((0, *record[:10], checksum_at(record.checksum, 0), None, 0))
