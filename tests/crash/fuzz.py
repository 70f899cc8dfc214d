"""Feed arbitrary records to the decoder and damaged files to the storage: ``python -m tests.crash.fuzz``.

A record of arbitrary bytes is decoded to an event or refused with a PabalError. A file with parts
overwritten, exchanged, repeated or cut off is opened and read: events are returned as they were written, at
their positions, or a StorageError is raised. Any other exception ends the run with its example.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from pabal import PabalError, SqliteEventStorage, StorageError
from pabal.domain.envelope import StoredRecord, checksum_at, checksum_of, decode_event, verify
from pabal.ports.storage import LogFilter
from tests.crash.events import Step
from tests.crash.report import FUZZED, put_section

EVENTS = 60
SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False)
JSON = st.recursive(
    SCALARS | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
NEARLY_RIGHT = st.fixed_dictionaries(
    {"key": st.text(max_size=8) | SCALARS, "number": st.integers(-(2**63), 2**63) | SCALARS},
    optional={"filler": st.text(max_size=8) | JSON, "unheard of": JSON},
)
BODIES = st.binary(max_size=200) | (NEARLY_RIGHT | JSON).map(msgspec.json.encode)
RECORDS = st.builds(
    StoredRecord,
    position=st.integers(1, 2**63 - 1),
    event_id=st.binary(min_size=16, max_size=16),
    event_type=st.sampled_from([Step.event_type] * 6 + ["os.system", "builtins.eval"]) | st.text(max_size=20),
    schema_version=st.just(1) | st.integers(-5, 5) | st.integers(-(2**63), 2**63 - 1),
    aggregate_type=st.none() | st.text(max_size=8),
    aggregate_id=st.none() | st.text(max_size=8),
    occurred_at=st.integers(-(2**63), 2**63 - 1),
    correlation_id=st.none() | st.text(max_size=8),
    causation_id=st.none() | st.text(max_size=8),
    metadata=st.none() | st.none() | BODIES,
    payload=BODIES,
    checksum=st.just(0),
    stream_version=st.none() | st.integers(-(2**63), 2**63 - 1),
    recorded_at=st.integers(-(2**63), 2**63 - 1),
)
PLACES = st.floats(0, 1, exclude_max=True)
CHANGES = st.lists(
    st.tuples(st.just("flip"), PLACES, st.integers(0, 7))
    | st.tuples(st.just("write"), PLACES, st.binary(min_size=1, max_size=64))
    | st.tuples(st.just("zero"), PLACES, st.integers(1, 5000))
    | st.tuples(st.just("swap"), PLACES, PLACES)
    | st.tuples(st.just("cut"), PLACES, st.none())
    | st.tuples(st.just("repeat"), PLACES, PLACES),
    min_size=1,
    max_size=4,
)
PAGE = 4096


def write_crashed_log(folder: Path) -> Path:
    """Create a file whose newest events are still in the write-ahead log, as after a crash."""
    path = folder / "log.db"

    async def fill() -> None:
        async with SqliteEventStorage(path) as storage:
            await storage.store_events([Step("a", n, "x" * (n % 50)) for n in range(EVENTS // 2)])
        async with SqliteEventStorage(path) as storage:
            for n in range(EVENTS // 2, EVENTS):
                await storage.store_event(Step("a", n, "x" * (n % 50)))
            (folder / "whole").mkdir()
            for name in ("log.db", "log.db-wal"):
                shutil.copy(folder / name, folder / "whole" / name)

    asyncio.run(fill())
    return folder / "whole"


def change(content: bytearray, what: str, place: float, more: Any) -> None:
    """Damage the bytes of a file in the given way."""
    at = int(place * len(content))
    if not content:
        return
    if what == "flip":
        content[at] ^= 1 << more
    elif what == "write":
        content[at : at + len(more)] = more[: len(content) - at]
    elif what == "zero":
        content[at : at + more] = bytes(min(more, len(content) - at))
    elif what == "cut":
        del content[at:]
    else:
        one, other = at // PAGE * PAGE, int(more * len(content)) // PAGE * PAGE
        first, second = content[one : one + PAGE], content[other : other + PAGE]
        if len(first) == len(second):
            content[other : other + PAGE] = first
            if what == "swap":
                content[one : one + PAGE] = second


def decode_anything(record: StoredRecord, counts: Counter[str]) -> None:
    """Decode a record with a correct checksum, so that it can only be rejected for its content."""
    try:
        checksum = checksum_of(record[1:11])
        record = record._replace(
            checksum=checksum_at(checksum, record.position, record.stream_version, record.recorded_at)
        )
        verify(record, "fuzz")
        event = decode_event(record)
    except PabalError as error:
        counts[type(error).__name__] += 1
        return
    assert type(event) is Step, "a row has chosen a class that was not registered for its type"
    counts["decoded"] += 1


async def read_everything(path: Path, counts: Counter[str]) -> None:
    """Open a file and read it in every way; compare the events returned with those written."""
    async with SqliteEventStorage(path) as storage:
        served = 0
        try:
            async for envelope in storage.read():
                expected = Step("a", envelope.position - 1, "x" * ((envelope.position - 1) % 50))
                assert envelope.event == expected, f"an altered event at position {envelope.position}"
                assert envelope.position == served + 1, f"a hole before position {envelope.position}"
                served += 1
            counts["read to its end" if served == EVENTS else "read, a suffix is gone"] += 1
        except StorageError as error:
            counts[f"read up to {type(error).__name__}"] += 1
        calls: tuple[Callable[[], Any], ...] = (
            lambda: storage.get_events_by_aggregate("a", "walk"),
            lambda: storage.find_events(LogFilter(types=(Step.event_type,)), newest_first=True),
            storage.list_subscriptions,
            storage.list_dead_letters,
            storage.get_event_statistics,
            storage.check,
        )
        for call in calls:
            try:
                await call()
            except StorageError:
                continue


def open_anything(crashed_log: Path, name: str, changes: list[Any], counts: Counter[str]) -> None:
    """Damage a copy of the files, and open it."""
    with tempfile.TemporaryDirectory(prefix="pabal-fuzz-") as folder:
        copy = Path(folder)
        for source in crashed_log.iterdir():
            shutil.copy(source, copy / source.name)
        content = bytearray((copy / name).read_bytes())
        for what, place, more in changes:
            change(content, what, place, more)
        (copy / name).write_bytes(content)
        try:
            asyncio.run(read_everything(copy / "log.db", counts))
        except StorageError as error:
            counts[f"refused: {type(error).__name__}"] += 1


def fuzz(crashed_log: Path, rounds: int, decoded: Counter[str], opened: Counter[str]) -> None:
    """Try ``rounds`` files and twenty times as many records; every call generates new ones."""
    relaxed = settings(
        max_examples=rounds,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )

    @settings(relaxed, max_examples=rounds * 20)
    @given(RECORDS)
    def records(record: StoredRecord) -> None:
        decode_anything(record, decoded)

    @relaxed
    @given(st.sampled_from(["log.db", "log.db-wal"]), CHANGES)
    def files(name: str, changes: list[Any]) -> None:
        open_anything(crashed_log, name, changes, opened)

    records()
    files()


def result_as_markdown(seconds: float, decoded: Counter[str], opened: Counter[str]) -> str:
    """Return the result of a run in Markdown."""
    records, files = (
        "\n".join(f"| {what} | {count:,} |" for what, count in counts.most_common())
        for counts in (decoded, opened)
    )
    return (
        f"Promise 38, for {seconds / 60:.0f} minutes: hypothesis made {sum(decoded.values()):,} records and "
        f"damaged {sum(opened.values()):,} copies of a file and its write-ahead log with flipped bits, "
        "overwritten, zeroed, exchanged, repeated and missing stretches. Each file was opened and read in "
        "every possible way. No altered event was served, no hole was passed over, and nothing but typed "
        f"errors was raised (SQLite {sqlite3.sqlite_version}).\n\n"
        f"| a record was | times |\n|---|---:|\n{records}\n\n"
        f"| a file was | times |\n|---|---:|\n{files}"
    )


def main() -> int:
    """Run for the given time and print the result."""
    parser = argparse.ArgumentParser(prog="python -m tests.crash.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--report", type=Path, help="a page whose section is to say what happened")
    options = parser.parse_args()
    decoded: Counter[str] = Counter()
    opened: Counter[str] = Counter()
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="pabal-fuzz-") as folder:
        crashed_log = write_crashed_log(Path(folder))
        while time.monotonic() - begun < options.seconds:
            fuzz(crashed_log, 50, decoded, opened)
    text = result_as_markdown(time.monotonic() - begun, decoded, opened)
    print(text)
    if options.report is not None:
        put_section(options.report, FUZZED, text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
