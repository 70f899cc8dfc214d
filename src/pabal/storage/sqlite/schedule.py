"""Scheduled events on disk, which enter the log when they are due."""

from __future__ import annotations

import logging

from pabal.domain.envelope import EventRecord, StoredRecord, checksum_at, decode_event, id_to_text, verify
from pabal.domain.event import DomainEvent
from pabal.errors import CorruptLogError, DecodeError, DuplicateEventError
from pabal.storage.sqlite.faults import readable
from pabal.storage.sqlite.statements import statements
from pabal.storage.sqlite.transaction import Transaction

_log = logging.getLogger("pabal")

_DUE_AT_ONCE = 1000
"""How many due events are appended in one commit at most."""
_UNKNOWN = DomainEvent()
"""Stands for an event whose class this process lacks."""


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
