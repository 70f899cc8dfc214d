"""A row that differs from what was written is never returned."""

from datetime import UTC, datetime
from typing import Any, ClassVar
from uuid import UUID

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pabal.domain import DomainEvent
from pabal.domain.envelope import (
    StoredRecord,
    from_microseconds,
    to_envelope,
    to_microseconds,
    verify,
)
from pabal.errors import CorruptLogError
from tests.domain.support import encode, row_of


class NoteWritten(DomainEvent):
    event_type: ClassVar[str] = "checksum-test.noted"
    aggregate_type: ClassVar[str] = "note"
    note_id: str
    text: str

    @property
    def aggregate_id(self) -> str:
        return self.note_id


EVENT = NoteWritten("n-1", "hello", metadata={"desk": "A"}, correlation_id="c-1", causation_id="c-0")
ROW = row_of(encode(EVENT), position=7, stream_version=3, recorded_at=1_700_000_000_000_000)
COLUMNS = StoredRecord._fields

_TEXTS = st.none() | st.text()
_BYTES = st.none() | st.binary(max_size=40)
_NUMBERS = st.none() | st.integers(-(2**63), 2**63 - 1)
_OTHER: dict[str, st.SearchStrategy[Any]] = {
    "event_id": _BYTES,
    "metadata": _BYTES,
    "payload": _BYTES,
    **dict.fromkeys(
        ("event_type", "aggregate_type", "aggregate_id", "correlation_id", "causation_id"), _TEXTS
    ),
    **dict.fromkeys(("position", "schema_version", "occurred_at", "recorded_at"), _NUMBERS),
    **dict.fromkeys(("stream_version", "checksum"), _NUMBERS),
}


def altered(row: StoredRecord, column: str, value: Any) -> StoredRecord:
    return row._replace(**{column: value})


def fails_verification(row: Any) -> bool:
    try:
        verify(row, "test.db")
    except CorruptLogError:
        return True
    return False


def test_an_unaltered_row_passes_verification_and_decodes() -> None:
    """No event could be read."""
    verify(ROW, "test.db")
    envelope = to_envelope(ROW)
    assert envelope.event == EVENT
    assert (envelope.position, envelope.stream_version) == (7, 3)
    assert envelope.recorded_at == datetime.fromtimestamp(1_700_000_000, UTC)
    assert (envelope.event_id, envelope.event_type) == (EVENT.event_id, NoteWritten.event_type)


@given(st.sampled_from(COLUMNS), st.data())
def test_a_changed_value_in_any_column_fails_verification(column: str, data: st.DataObject) -> None:
    """An altered event would be handled as if it had happened."""
    other = data.draw(_OTHER[column])
    assume(other != getattr(ROW, column))
    assert fails_verification(altered(ROW, column, other))


@given(st.sampled_from(("event_id", "metadata", "payload")), st.data())
def test_a_flipped_bit_fails_verification(column: str, data: st.DataObject) -> None:
    """A bad sector, or a bad memory cell, would change an amount."""
    value = bytearray(getattr(ROW, column))
    bit = data.draw(st.integers(0, len(value) * 8 - 1))
    value[bit // 8] ^= 1 << bit % 8
    assert fails_verification(altered(ROW, column, bytes(value)))


@given(st.sampled_from(COLUMNS), st.sampled_from(("", "x", b"", b"x", 0, 1, 1.5, None)))
def test_a_value_of_another_type_raises_a_corrupt_log_error(column: str, other: Any) -> None:
    """A hand-made row would raise a TypeError in the reader instead of an error that names the position."""
    assume(other != getattr(ROW, column) or type(other) is not type(getattr(ROW, column)))
    assert fails_verification(altered(ROW, column, other))


def test_bytes_moved_between_columns_fail_verification() -> None:
    """With plain concatenation, ("ab", "c") and ("a", "bc") would have one checksum, and None and "None"."""
    moved = [
        ROW._replace(correlation_id="c-", causation_id="1c-0"),
        ROW._replace(correlation_id="c-1|c", causation_id="-0"),
        ROW._replace(aggregate_type="note|n-1", aggregate_id=""),
        ROW._replace(payload=ROW.payload + (ROW.metadata or b""), metadata=None),
        ROW._replace(payload=ROW.payload[:-1], metadata=ROW.payload[-1:] + (ROW.metadata or b"")),
    ]
    assert all(map(fails_verification, moved))
    bare = row_of(encode(NoteWritten("n-1", "hello")))
    for column in ("correlation_id", "causation_id", "metadata"):
        empty: Any = b"" if column == "metadata" else ""
        assert fails_verification(altered(bare, column, empty))
        assert fails_verification(altered(bare, column, b"None" if column == "metadata" else "None"))


def test_a_row_at_another_position_or_version_fails_verification() -> None:
    """Rows could be swapped, or copied over each other, with valid checksums."""
    record = encode(EVENT)
    first, second = row_of(record, 1, 1), row_of(record, 2, 2)
    assert fails_verification(first._replace(position=2))
    assert fails_verification(first._replace(position=2, checksum=second.checksum))
    assert not fails_verification(first._replace(position=2, stream_version=2, checksum=second.checksum))
    assert fails_verification(row_of(record, 1, None)._replace(stream_version=0))


def test_the_error_names_the_file_the_position_and_a_remedy() -> None:
    """An operator would have to search the log by hand."""
    with pytest.raises(CorruptLogError, match=r"test\.db.*position 7.*backup") as caught:
        verify(ROW._replace(payload=b"{}"), "test.db")
    assert (caught.value.path, caught.value.position) == ("test.db", 7)


@given(st.datetimes(timezones=st.just(UTC)))
def test_times_round_trip_through_microseconds(moment: datetime) -> None:
    """``occurred_at`` would come back rounded."""
    assert from_microseconds(to_microseconds(moment)) == moment


def test_id_text_of_a_row_is_the_event_id() -> None:
    """Reports would show sixteen bytes."""
    assert ROW.id_text == str(UUID(bytes=ROW.event_id)) == EVENT.event_id
