"""Writers that race on one aggregate."""

from __future__ import annotations

import asyncio
import os
from decimal import Decimal
from pathlib import Path

from pabal import SqliteEventStorage
from pabal.eventsourcing import Repository
from tests.eventsourcing.samples import Account

ROUNDS = int(os.environ.get("PABAL_RACE_ROUNDS", "300"))
"""How often each of the two writers changes the aggregate; `make test-races` runs 10,000."""


async def test_two_writers_racing_on_one_aggregate_lose_no_event(tmp_path: Path) -> None:
    """Two processes that change one aggregate would overwrite each other, or leave a gap in its versions."""

    async def write(storage: SqliteEventStorage) -> None:
        accounts = Repository(Account, storage)
        for _ in range(ROUNDS):
            await accounts.update("a", lambda account: account.deposit(Decimal(1)), retries=1000)

    path = tmp_path / "log.db"
    async with (
        SqliteEventStorage(path, durability="normal") as one,
        SqliteEventStorage(path, durability="normal") as two,
    ):
        await asyncio.gather(write(one), write(two))
        account = await Repository(Account, one).load("a")
        rows = await one.read_history("account", "a")
    assert account.balance == 2 * ROUNDS
    assert [row.stream_version for row in rows] == list(range(1, 2 * ROUNDS + 1))
