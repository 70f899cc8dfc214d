"""The file of a stopped shop, and the command line on it, run in process."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pabal import EventBusFactory
from pabal.cli import language
from pabal.cli.app import commands
from pabal.domain.envelope import StoredRecord, checksum_at, checksum_of
from tests.operations.conftest import Shop, ShopOrder

Pabal = Callable[..., Result]


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three orders packed, two with a negative quantity parked."""
    path = tmp_path_factory.mktemp("cli") / "shop.db"

    async def fill() -> None:
        async with EventBusFactory.create_default_event_bus(path, durability="normal") as bus:
            Shop(bus)
            for number, quantity in enumerate((1, -1, 2, -2, 3)):
                await bus.publish(ShopOrder(f"o-{number}", quantity))
            await bus.drain()

    asyncio.run(fill())
    return path


@pytest.fixture
def file(filled: Path, tmp_path: Path) -> Path:
    """A copy for one test."""
    return Path(shutil.copy(filled, tmp_path / "shop.db"))


def rewrite(file: Path, table: str, number: int, **columns: object) -> None:
    """Change an event in a file like a program that knows pabal's format: the checksum is correct."""
    key = "id" if table == "dead_letters" else "position"
    names = ", ".join(StoredRecord._fields)
    with closing(sqlite3.connect(file)) as connection, connection:
        for name, value in columns.items():
            connection.execute(f"UPDATE {table} SET {name} = ? WHERE {key} = ?", (value, number))
        (found,) = connection.execute(f"SELECT {names} FROM {table} WHERE {key} = ?", (number,))
        row = StoredRecord._make(found)
        checksum = checksum_at(checksum_of(row[1:11]), row.position, row.stream_version, row.recorded_at)
        connection.execute(f"UPDATE {table} SET checksum = ? WHERE {key} = ?", (checksum, number))


@pytest.fixture
def pabal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pabal]:
    for name in ("PABAL_LANG", "LC_ALL", "LC_MESSAGES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LANG", "C.UTF-8")
    runner = CliRunner()

    def run(*arguments: object, input: str | None = None) -> Result:
        return runner.invoke(
            commands, [str(argument) for argument in arguments], input=input, prog_name="pabal"
        )

    yield run
    language.choose(None)


@pytest.fixture
def korean() -> Iterator[None]:
    language.choose("ko")
    yield
    language.choose(None)
