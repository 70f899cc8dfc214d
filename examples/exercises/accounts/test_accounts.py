"""The tests of the exercise. They test the solution, or the module named by EXERCISE.

EXERCISE=mine python -m pytest examples/exercises/accounts
"""

import asyncio
import importlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from examples.exercises.accounts.messages import (
    Deposit,
    Deposited,
    OverdrawnError,
    Richest,
    Withdraw,
    Withdrawn,
)
from pabal import EventBusFactory
from pabal.testing import given

_module: Any = importlib.import_module(
    f"examples.exercises.accounts.{os.environ.get('EXERCISE', 'solution')}"
)


@asynccontextmanager
async def bank(path: Path) -> AsyncIterator[Any]:
    """Run one process: a bank on a file, for the duration of the block."""
    async with EventBusFactory.create_default_event_bus(str(path)) as bus:
        opened = _module.Bank(bus)
        async with opened.balances:
            opened.bus = bus
            yield opened


async def wait_for_read_model(opened: Any) -> None:
    """Wait until the read model includes everything stored so far."""
    await opened.balances.reached(await opened.bus.storage.head(), timeout=20)


def test_task_1_withdraw_records_a_withdrawal_within_the_balance() -> None:
    given(_module.Account, Deposited("a", 10)).when(lambda account: account.withdraw(4)).then(
        Withdrawn("a", 4)
    ).then_state(balance=6)


def test_task_1_withdraw_rejects_more_than_the_balance_and_records_nothing() -> None:
    given(_module.Account, Deposited("a", 10)).when(lambda account: account.withdraw(11)).then_raises(
        OverdrawnError
    )


def test_task_2_the_read_model_shows_the_balance_of_each_account() -> None:
    events = (Deposited("a", 10), Deposited("b", 5), Withdrawn("a", 4))
    given(_module.Balances, *events).then_rows(
        "SELECT account, balance FROM {balances} ORDER BY account", ("a", 6), ("b", 5)
    )


async def test_task_3_commands_change_accounts_and_queries_read_them(tmp_path: Path) -> None:
    async with bank(tmp_path / "bank.db") as opened:
        assert await opened.commands.execute(Deposit("a", 10)) == 10
        assert await opened.commands.execute(Withdraw("a", 4)) == 6
        assert await opened.commands.execute(Deposit("b", 7)) == 7
        with pytest.raises(OverdrawnError):
            await opened.commands.execute(Withdraw("a", 100))
        await wait_for_read_model(opened)
        assert await opened.queries.ask(Richest(limit=10)) == [("b", 7), ("a", 6)]


async def test_task_3_balances_survive_a_restart(tmp_path: Path) -> None:
    async with bank(tmp_path / "bank.db") as opened:
        await opened.commands.execute(Deposit("a", 10))
    async with bank(tmp_path / "bank.db") as opened:
        assert await opened.commands.execute(Withdraw("a", 10)) == 0
        await wait_for_read_model(opened)
        assert await opened.queries.ask(Richest(limit=10)) == [("a", 0)]


async def test_task_4_a_command_sent_twice_is_handled_once(tmp_path: Path) -> None:
    deposit = Deposit("a", 10)
    async with bank(tmp_path / "bank.db") as opened:
        assert await opened.commands.execute(deposit) == 10
    async with bank(tmp_path / "bank.db") as opened:
        assert await opened.commands.execute(deposit) == 10
        await wait_for_read_model(opened)
        assert await opened.queries.ask(Richest(limit=10)) == [("a", 10)]


async def test_task_5_only_one_of_several_concurrent_withdrawals_succeeds(tmp_path: Path) -> None:
    async with bank(tmp_path / "bank.db") as opened:
        await opened.commands.execute(Deposit("a", 10))
        results = await asyncio.gather(
            *(opened.commands.execute(Withdraw("a", 10)) for _ in range(5)), return_exceptions=True
        )
        assert sorted(map(str, map(type, results))) == sorted(
            map(str, [int, OverdrawnError, OverdrawnError, OverdrawnError, OverdrawnError])
        )
