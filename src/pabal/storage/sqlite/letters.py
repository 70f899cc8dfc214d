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
from pabal.errors import CorruptLogError, DeadLetterNotFoundError, DecodeError, DuplicateEventError
from pabal.ports.arguments import LARGEST, check_bounds
from pabal.ports.storage import DeadLetterGroup, DeadLetterRecord, PendingRetry
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
    """Return dead letters by ascending id."""
    check_bounds(limit, after=after)
    rows = connection.execute(
        statements()["dead_letters"], numbered(after, subscription, event_type, error_type, limit)
    )
    return [_letter(row, path) for row in rows]


def group_letters(connection: Any) -> list[DeadLetterGroup]:
    """Count dead letters by subscription and last error, largest group first."""
    return [
        DeadLetterGroup(
            name, error, count, datetime.fromtimestamp(first, UTC), datetime.fromtimestamp(last, UTC), newest
        )
        for name, error, count, first, last, newest in connection.execute(statements()["dead_letter_groups"])
    ]


def get_letter(connection: Any, path: str, dead_letter_id: int) -> DeadLetterRecord:
    """Return one. Raises DeadLetterNotFoundError."""
    row = None
    if isinstance(dead_letter_id, int) and abs(dead_letter_id) <= LARGEST:  # no column holds another
        row = connection.execute(statements()["dead_letter"], (dead_letter_id,)).fetchone()
    if row is None:
        raise DeadLetterNotFoundError(dead_letter_id=dead_letter_id)
    return _letter(row, path)


def _letter(row: Any, path: str) -> DeadLetterRecord:
    number, subscription, position, state, reason, failures, parked_at, key, queued, *columns = row
    record = StoredRecord._make(columns)
    verify(record, path)
    return DeadLetterRecord(
        id=number,
        subscription=subscription,
        position=position,
        record=record,
        event=None,
        reason=reason,
        failures=decode_failures(failures),
        parked_at=datetime.fromtimestamp(parked_at, UTC),
        state=state,
        key=key,
        queued=queued,
    )


def begin_retry(
    tx: Transaction, path: str, dead_letter_id: int, payload: bytes | None, now: float
) -> DeadLetterRecord | None:
    """Mark a dead letter as being retried and note the retry, so that a crash does not forget it."""
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
    retry = PendingRetry(letter.position, 0, now, letter.failures, from_dead_letter=True)
    tx.execute(
        statements()["put_retry"],
        (letter.subscription, retry.position, 0, now, encode_failures(retry.failures), 1),
    )
    return get_letter(tx, path, dead_letter_id)


def discard(tx: Transaction, path: str, dead_letter_id: int) -> DeadLetterRecord:
    """Remove a dead letter, and its retry if one is under way."""
    letter = get_letter(tx, path, dead_letter_id)
    tx.execute(statements()["delete_dead_letter"], (dead_letter_id,))
    tx.execute(statements()["delete_retry"], (letter.subscription, letter.position))
    return letter


def schedule(tx: Transaction, record: EventRecord, due_at: float) -> None:
    """Store an event that enters the log later; the same one again changes nothing."""
    sql = statements()
    stored = tx.execute(sql["stored_event"], (record.event_id,)).fetchone()
    if stored is not None:
        stored = EventRecord._make(stored[1:12])
    known = stored or tx.execute(sql["scheduled_event"], (record.event_id,)).fetchone()
    if known is None:
        tx.execute(sql["schedule"], (record.event_id, due_at, *record[1:]))
        return
    known = EventRecord._make(known)
    if (known.event_type, known.payload) != (record.event_type, record.payload):
        raise DuplicateEventError(event_id=id_to_text(record.event_id), position=0)


def release_due(tx: Transaction, path: str, now: float) -> float | None:
    """Move what is due into the log; return when the next one is.

    What is damaged stays where it is, for ``check`` to find; it must not keep the others back.
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
    return now  # the rest is for the next commit


def _is_done_with(tx: Transaction, path: str, record: EventRecord) -> bool:
    """Move one event that is due into the log; False where it stays, for it is damaged."""
    try:
        with readable(path):
            row = scheduled_row(record)
            verify(row, path)
        _release(tx, record, row)
    except CorruptLogError as error:
        _log.error("a scheduled event is not released: %s", error)
        return False
    except DuplicateEventError as error:
        _log.error("a scheduled event is dropped, for another one was published under its id: %s", error)
    return True


def _release(tx: Transaction, record: EventRecord, row: StoredRecord) -> None:
    try:
        tx.append_records([decode_event(row)], [record])
    except DecodeError:
        # Another process may know the class. Whoever reads the log here reports the type, or parks the event.
        tx.append_records([_UNKNOWN], [record], announce=False)


def scheduled_row(record: EventRecord) -> StoredRecord:
    """Return a scheduled event as a row that can be verified and decoded."""
    return StoredRecord._make((0, *record[:10], checksum_at(record.checksum, 0), None, 0))
