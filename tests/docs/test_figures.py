"""The figures on the pages are those of the code."""

from __future__ import annotations

import inspect

import pytest

from pabal import InMemoryEventBus, SqliteEventStorage
from pabal.bus import waiting
from pabal.delivery import buffers, feed, leases, redelivery, settlement, worker
from pabal.delivery.dead_letters import MemoryDeadLetters
from pabal.eventsourcing import advancing
from pabal.storage.sqlite import appender, cursors, journal, statements, writer
from tests.docs.pages import ROOT


def _default(function: object, parameter: str) -> int:
    return int(inspect.signature(function).parameters[parameter].default)  # type: ignore[arg-type]


_INSERTED = f"{len(statements.INSERT_SIZES)} sizes, of 1 to {statements.INSERT_SIZES[0]:,} rows"

_FIGURES = [
    ("guide", f"the last {waiting._REMEMBERED:,} events"),
    ("guide.ko", f"마지막 {waiting._REMEMBERED:,}개 이벤트"),
    ("guide", f"Up to {_default(MemoryDeadLetters, 'limit'):,} of them"),
    ("guide", f"Up to {redelivery.MOST_KEPT:,} of them"),
    ("guide.ko", f"{_default(MemoryDeadLetters, 'limit'):,}개까지 보관"),
    ("guide", f"| {_default(InMemoryEventBus, 'max_queue_size'):,} |"),
    ("guide", f"max_payload_bytes={_default(SqliteEventStorage, 'max_payload_bytes'):_}"),
    ("architecture", f"up to {buffers.BUFFER_LIVE:,} deliveries"),
    ("architecture", f"fewer than {buffers.BUFFER_HIGH:,}"),
    ("architecture.ko", f"{buffers.BUFFER_LIVE:,}개까지"),
    ("architecture.ko", f"{buffers.BUFFER_HIGH:,}개가 넘지 않게"),
    ("architecture", f"within {feed._POLL_FASTEST * 1000:.0f} to {feed._POLL_SLOWEST * 1000:.0f} ms"),
    ("architecture", f"within {feed._POLL_IDLE * 1000:.0f} ms after {feed._IDLE_AFTER:.0f} quiet seconds"),
    ("architecture.ko", f"{feed._IDLE_AFTER:.0f}초 동안 조용했다면 {feed._POLL_IDLE * 1000:.0f}ms"),
    ("architecture.ko", f"{feed._POLL_FASTEST * 1000:.0f}~{feed._POLL_SLOWEST * 1000:.0f}ms"),
    ("architecture.ko", f"{cursors.LEASE_SECONDS:.0f}초짜리 리스"),
    ("architecture.ko", f"{leases._RENEW_EVERY:.0f}초마다 갱신"),
    ("event-sourcing", f"saves its position every {advancing._SAVE_EVERY:,} events"),
    ("event-sourcing.ko", f"이벤트 {advancing._SAVE_EVERY:,}개마다"),
    ("decisions/0002-one-writer-thread-with-group-commit", f"up to {writer._GROUP_ROWS:,} rows"),
    ("decisions/0002-one-writer-thread-with-group-commit", _INSERTED),
    (
        "decisions/0004-the-cursor-row-and-its-exceptions",
        f"than {buffers.SAVED_OFTEN:,} unfinished positions",
    ),
    ("decisions/0004-the-cursor-row-and-its-exceptions", f"holds up to {buffers.SAVED_LAST:,}"),
    ("limits", f"saved up to {buffers.SAVED_OFTEN:,} of those that wait"),
    ("limits", f"up to {buffers.SAVED_LAST:,}; what is finished"),
    ("decisions/0004-the-cursor-row-and-its-exceptions", f"every {settlement._SAVE_EVERY:,} positions"),
    ("decisions/0005-attempts-are-counted-in-a-mapped-journal", f"slot of {journal._SLOT.size} bytes"),
    ("decisions/0006-the-stream-index-is-built-behind-the-commits", f"When {appender._INDEX_EVERY:,} events"),
]


@pytest.mark.parametrize(("page", "text"), _FIGURES)
def test_figures_on_a_page_match_the_code(page: str, text: str) -> None:
    """Readers who rely on the figure would be wrong."""
    words = " ".join((ROOT / "docs" / f"{page}.md").read_text("utf-8").split())
    assert text in words


def test_figures_written_as_words_match_the_code() -> None:
    """Readers who rely on the figure would be wrong."""
    assert cursors.LEASE_SECONDS == 10, "architecture, guide and 0005: 'a lease of ten seconds'"
    assert leases._RENEW_EVERY == 3, "architecture: 'renewed every three'"
    assert worker._TURN == 0.001, "0003: 'more than one', 'after a millisecond'"
    assert settlement._SAVE_INTERVAL == 1, "0004: 'every second'"
    assert feed._POLL_IDLE == 0.2, "learn/eight-problems: 'five times a second'"
