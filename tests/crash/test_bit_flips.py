"""Copies of a file with flipped bits or a lost end give a prefix or a typed error, never an altered event."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pabal import SqliteEventStorage, StorageError
from tests.crash.events import Step

pytestmark = pytest.mark.crash
COUNT = 120


@pytest.fixture(scope="module")
def crashed_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a log whose newest events are still in the write-ahead log, as after a crash."""
    folder = tmp_path_factory.mktemp("whole")
    path = folder / "log.db"

    async def fill() -> None:
        async with SqliteEventStorage(path) as storage:
            await storage.store_events([Step("a", n, "x" * (n % 50)) for n in range(COUNT // 2)])
        async with SqliteEventStorage(path) as storage:
            for n in range(COUNT // 2, COUNT):
                await storage.store_event(Step("a", n, "x" * (n % 50)))
            crashed = folder / "crashed"
            crashed.mkdir()
            for name in ("log.db", "log.db-wal"):
                shutil.copy(folder / name, crashed / name)

    asyncio.run(fill())
    return folder / "crashed"


async def read_all(path: Path) -> list[Any]:
    """Read the log in every way, and return the envelopes that were read."""
    envelopes: list[Any] = []
    async with SqliteEventStorage(path) as storage:
        try:
            async for envelope in storage.read():
                envelopes.append(envelope)  # noqa: PERF401 - what came before an error counts
        except StorageError:
            pass
        try:
            stream = await storage.get_events_by_aggregate("a", "walk")
        except StorageError:
            stream = None
        if stream is not None:
            check_stream(stream)
        for position in (1, COUNT // 2, COUNT):
            try:
                rows = await storage.read_positions([position])
            except StorageError:
                continue
            assert [row.stream_version for row in rows] in ([], [position])
    return envelopes


def check_stream(stream: list[Any]) -> None:
    """Check that a stream has no hole and no wrong event; its end may be lost with the write-ahead log's."""
    assert [event.number for event in stream] == list(range(len(stream)))


def check_prefix(envelopes: list[Any]) -> None:
    """Check that the envelopes are a prefix of what was written."""
    for index, envelope in enumerate(envelopes):
        assert (envelope.position, envelope.stream_version) == (index + 1, index + 1)
        assert envelope.event == Step("a", index, "x" * (index % 50))


def damage_and_read(crashed_log: Path, name: str, change: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for source in crashed_log.iterdir():
            shutil.copy(source, copy / source.name)
        damaged = copy / name
        content = bytearray(damaged.read_bytes())
        change(content)
        damaged.write_bytes(content)
        try:
            envelopes = asyncio.run(read_all(copy / "log.db"))
        except StorageError:
            return  # a typed error is fine
        check_prefix(envelopes)


relaxed = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@relaxed
@given(
    name=st.sampled_from(["log.db", "log.db-wal"]),
    flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 7)), min_size=1, max_size=3),
)
def test_flipped_bits_never_alter_an_event(
    crashed_log: Path, name: str, flips: list[tuple[float, int]]
) -> None:
    """Promise 38: SQLite's pages have no checksums; without our own, a flipped bit would go unnoticed."""

    def flip(content: bytearray) -> None:
        for place, bit in flips:
            content[int(place * len(content))] ^= 1 << bit

    damage_and_read(crashed_log, name, flip)


@relaxed
@given(name=st.sampled_from(["log.db", "log.db-wal"]), share=st.floats(0, 1))
def test_a_truncated_file_yields_a_prefix_or_an_error(crashed_log: Path, name: str, share: float) -> None:
    """Promise 38: events may be lost at the end, but what is returned must have no hole."""

    def cut(content: bytearray) -> None:
        del content[int(share * len(content)) :]

    damage_and_read(crashed_log, name, cut)


@settings(relaxed, max_examples=30)
@given(
    name=st.sampled_from(["log.db", "log.db-wal"]),
    place=st.floats(0, 1, exclude_max=True),
    junk=st.binary(min_size=1, max_size=512),
)
def test_overwritten_bytes_never_alter_an_event(
    crashed_log: Path, name: str, place: float, junk: bytes
) -> None:
    """Promise 38, for sectors overwritten with other bytes."""

    def overwrite(content: bytearray) -> None:
        at = int(place * len(content))
        content[at : at + len(junk)] = junk[: len(content) - at]

    damage_and_read(crashed_log, name, overwrite)
