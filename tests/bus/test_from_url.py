"""``EventBusFactory.from_url``: what a URL may say, and the errors for invalid ones."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pabal import EventBusFactory, SqliteEventStorage
from pabal.errors import MissingExtraError, UsageError
from pabal.factory import open_log, open_operations


async def test_a_memory_url_sets_the_options_of_the_bus() -> None:
    """An ignored setting would be noticed only in production, under load."""
    async with EventBusFactory.from_url("memory://?worker_count=2&backpressure=raise") as bus:
        assert bus.storage is None
        assert bus.get_statistics()["worker_count"] == 2


async def test_a_sqlite_url_names_the_file_and_its_durability(tmp_path: Path) -> None:
    """Four slashes mean an absolute path: with one more or less, the log would be somewhere else."""
    path = tmp_path / "trading.db"
    async with EventBusFactory.from_url(f"sqlite:///{path}?durability=normal", worker_count=3) as bus:
        assert isinstance(bus.storage, SqliteEventStorage)
        assert (bus.storage.path, bus.storage.durability) == (str(path.resolve()), "normal")
        assert bus.get_statistics()["worker_count"] == 3


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("kafka://localhost", "is not the URL of a bus; use memory://, sqlite:/// or redis://"),
        ("trading.db", "is not the URL of a bus"),
        ("memory://?worker_count=many", "worker_count must be a whole number, not 'many'"),
        ("memory://?worker_count=-1", "worker_count must be a whole number"),
        (
            "memory://?workers=2",
            "unknown setting 'workers'; known settings: worker_count, max_queue_size, back",
        ),
        (None, "is text, not None; is the setting it comes from missing"),
        (
            "memory://trading.db",
            "'memory://trading.db' is not valid: nothing may follow memory://.*sqlite:///trading.db for",
        ),
        ("memory:///trading.db?worker_count=2", "'memory:///trading.db' is not valid"),
        ("memory://#trading.db", "nothing may follow memory://"),
        ("memory://kim:secret@host", "'memory://…' is not valid"),
        ("sqlite://trading.db", "names no file"),
        ("sqlite:///", "names no file"),
        ("sqlite:/trading.db", "names no file; write sqlite:///trading.db, or sqlite:////var/lib/trading.db"),
        ("sqlite:trading.db", "names no file"),
    ],
)
def test_from_url_rejects_an_invalid_url_and_says_why(url: Any, message: str) -> None:
    """A misspelt setting would mean the default, and a misspelt scheme a bus that forgets everything."""
    with pytest.raises(UsageError, match=message):
        EventBusFactory.from_url(url)


@pytest.mark.parametrize("url", ["memory://?worker_count=3", "memory:///?worker_count=3"])
async def test_a_memory_url_may_have_two_or_three_slashes(url: str) -> None:
    """A URL with as many slashes as one for a file would be rejected, although there is no file."""
    async with EventBusFactory.from_url(url) as bus:
        assert bus.get_statistics()["worker_count"] == 3


def hide_package(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    """Make imports of a package fail from now on, as if it were not installed."""
    for name in [name for name in sys.modules if name.startswith(("pabal.brokers.redis", f"{package}."))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)


def test_from_url_names_the_extra_when_the_client_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """ "No module named redis" does not say what to install."""
    hide_package(monkeypatch, "redis")
    with pytest.raises(MissingExtraError, match=r"pabal\[redis\]"):
        EventBusFactory.from_url("redis://127.0.0.1:1/0?group=risk")


def test_from_url_passes_on_an_unrelated_import_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that recommends installing what is already installed would hide the real cause."""
    hide_package(monkeypatch, "pabal.brokers.redis.bus")
    with pytest.raises(ImportError, match=r"pabal\.brokers\.redis\.bus") as caught:
        EventBusFactory.from_url("redis://127.0.0.1:1/0?group=risk")
    assert not isinstance(caught.value, MissingExtraError)


@pytest.mark.parametrize("make", [open_log, open_operations])
def test_a_sqlite_url_with_one_slash_is_rejected_with_the_correct_form(make: Callable[[str], object]) -> None:
    """Read as a path, it would name a file that does not exist instead of the intended one."""
    with pytest.raises(UsageError, match=r"'sqlite:/trading\.db' names no file; write sqlite:///"):
        make("sqlite:/trading.db")
