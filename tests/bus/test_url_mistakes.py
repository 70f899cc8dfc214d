"""Mistakes in the URL or the options of a bus."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pabal import EventBusFactory
from pabal.errors import UsageError
from pabal.factory import open_log
from pabal.korean import in_korean


@pytest.mark.parametrize(
    ("query", "options", "error"),
    [
        ("?worker_count=0", {}, UsageError),
        ("?backpressure=bogus", {}, UsageError),
        ("", {"worker_count": "8"}, UsageError),
        ("", {"bogus": 1}, TypeError),
    ],
)
def test_invalid_options_leave_no_file_open(
    tmp_path: Path, query: str, options: dict[str, Any], error: type[Exception]
) -> None:
    """The file's lock, its writer's thread and its journal would stay for the life of the process."""
    with pytest.raises(error):
        EventBusFactory.from_url(f"sqlite:///{tmp_path}/log.db{query}", **options)
    with pytest.raises(error):
        EventBusFactory.create_complete_event_system(
            tmp_path / "log.db", **(options or {"backpressure": "bogus"})
        )
    assert [path.name for path in tmp_path.iterdir()] == ["log.db"]


@pytest.mark.parametrize(
    "url", ["sqlite:///log.db?partitions=3", "sqlite:///log.db?keep=3", "memory://?durability=full"]
)
def test_a_setting_of_another_kind_of_bus_is_rejected_as_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    """A URL from a configuration file would end in a TypeError about a constructor's arguments."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="unknown setting"):
        EventBusFactory.from_url(url)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["desk#1.db", "desk%00.db"])
def test_a_file_url_with_a_fragment_or_a_nul_is_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Several processes would write to one file, named after the part before the #."""
    monkeypatch.chdir(tmp_path)
    for make in (EventBusFactory.from_url, open_log):
        with pytest.raises(UsageError, match="write %23 for #"):
            make(f"sqlite:///{name}")
    assert list(tmp_path.iterdir()) == []


def test_an_escaped_number_sign_is_part_of_the_file_name(tmp_path: Path) -> None:
    """Otherwise there would be no way to name such a file."""
    with pytest.raises(UsageError, match="worker_count"):
        EventBusFactory.from_url(f"sqlite:///{tmp_path}/desk%231.db?worker_count=0")
    assert [path.name for path in tmp_path.iterdir()] == ["desk#1.db"]


def test_the_path_memory_is_rejected_instead_of_creating_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tests would leave events in a file called :memory:, and find those of the previous run."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="memory://"):
        EventBusFactory.from_url("sqlite:///:memory:")
    with pytest.raises(UsageError, match="memory://"):
        EventBusFactory.create_complete_event_system(":memory:")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://kim:s3cret@db/trading",
        "redis-sentinel://:s3?cret@cache/0",
        "sqlite://kim:s3cret@db/log.db",
        "sqlite:///log.db?key=s3cret",
        "memory://?token=s3cret&worker_count=2",
    ],
)
def test_the_error_for_an_invalid_url_shows_no_password(url: str) -> None:
    """A URL in the wrong variable would put a database password into the logs."""
    with pytest.raises(UsageError) as caught:
        EventBusFactory.from_url(url)
    assert "cret" not in str(caught.value)
    assert "s3" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "korean"),
    [
        ("redis://:pw@cache/0", "'redis://…': 그룹이 없습니다."),
        ("redis://:pw@cache/0?group=g&keep=x", "'redis://…': keep은(는) 정수여야 합니다."),
        ("redis://:pw@cache/0?group=g&lease=x", "'redis://…': lease은(는) 초 단위의 수여야 합니다."),
        ("memory://?backpressure=x", "backpressure='x': 'wait', 'raise', 'drop_oldest' 가운데 하나를 쓰세요"),
    ],
)
def test_url_errors_have_a_complete_korean_translation(url: str, korean: str) -> None:
    """A Korean sentence would begin with "a redis:// URL", or be English altogether."""
    with pytest.raises(UsageError) as caught:
        EventBusFactory.from_url(url)
    assert in_korean(str(caught.value)).startswith(korean)
