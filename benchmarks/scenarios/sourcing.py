"""How long does it take to save an aggregate, to load it, and to build a read model from the whole log?"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.harness import Settings, expect_handled, fresh_folder, installed, interleave, run
from benchmarks.model import PABAL, Entry, Metrics, Outcome, Table
from benchmarks.rivals.sourcing import Account, Balances, Deposited, their_application, theirs
from pabal import SqliteEventStorage
from pabal.eventsourcing import Repository

NAME = "event-sourcing"
SAVE = "save one event, 100 concurrent commands"
LOAD = "load 1,000 events"
REBUILD = "rebuild a read model"
COMMANDS = "commands/s"
LOADS = "loads/s"
EVENTS = "events/s"
THEIRS = "eventsourcing"
_ACCOUNTS = 100
_HISTORY = 1_000
_CHUNK = 10_000


async def pabal_save(path: Path, commands: int) -> Metrics:
    """Let 100 callers deposit into 100 cached accounts, each awaiting its own disk sync."""
    async with SqliteEventStorage(path) as storage:
        accounts = Repository(Account, storage)
        names = [f"account-{number}" for number in range(_ACCOUNTS)]

        async def deposit(name: str, times: int) -> None:
            for _ in range(times):
                await accounts.update(name, lambda account: account.deposit(1))

        await asyncio.gather(*(deposit(name, 1) for name in names))
        start = time.perf_counter()
        await asyncio.gather(*(deposit(name, commands // _ACCOUNTS) for name in names))
        seconds = time.perf_counter() - start
        expect_handled(PABAL, await storage.head(), commands + _ACCOUNTS)
    return {COMMANDS: commands / seconds}


def their_save(path: Path, commands: int) -> Metrics:
    """Deposit into 100 cached accounts, one command after the other, because the library's calls block."""
    bank = their_application(path, keep=2 * _ACCOUNTS)
    opened = [theirs().account() for _ in range(_ACCOUNTS)]
    bank.save(*opened)
    start = time.perf_counter()
    for number in range(commands):
        account = bank.repository.get(opened[number % _ACCOUNTS].id)
        account.deposit(1)
        bank.save(account)
    seconds = time.perf_counter() - start
    total = sum(bank.repository.get(account.id).balance for account in opened)
    bank.close()
    expect_handled(THEIRS, total, commands)
    return {COMMANDS: commands / seconds}


async def pabal_load(path: Path, loads: int) -> Metrics:
    """Load an account of 1,000 events from the log repeatedly."""
    async with SqliteEventStorage(path) as storage:
        await storage.store_events([Deposited("one", 1) for _ in range(_HISTORY)])
        start = time.perf_counter()
        for _ in range(loads):
            account = await Repository(Account, storage).load("one")
            expect_handled(PABAL, account.balance, _HISTORY)
        seconds = time.perf_counter() - start
    return {LOADS: loads / seconds}


def their_load(path: Path, loads: int) -> Metrics:
    """Load the same account with the library, without cache or snapshot."""
    bank = their_application(path)
    account = theirs().account()
    for _ in range(_HISTORY):
        account.deposit(1)
    bank.save(account)
    start = time.perf_counter()
    for _ in range(loads):
        expect_handled(THEIRS, bank.repository.get(account.id).balance, _HISTORY)
    seconds = time.perf_counter() - start
    bank.close()
    return {LOADS: loads / seconds}


async def pabal_rebuild(path: Path, events: int) -> Metrics:
    """Build a table of balances from the whole log, and time it until it has replaced the live one."""
    async with SqliteEventStorage(path) as storage:
        balances = Balances(storage)
        start = time.perf_counter()
        await balances.rebuild()
        seconds = time.perf_counter() - start
        total = (await balances.rows("SELECT sum(balance) FROM {balances}"))[0][0]
    expect_handled(PABAL, total, events)
    return {EVENTS: events / seconds}


async def fill(path: Path, events: int) -> None:
    """Create a log of deposits into 1,000 accounts."""
    async with SqliteEventStorage(path, durability="normal") as storage:
        for first in range(0, events, _CHUNK):
            count = min(_CHUNK, events - first)
            await storage.store_events([Deposited(f"account-{n % 1_000}", 1) for n in range(count)])


def measure(settings: Settings) -> Outcome:
    """Measure saving and loading beside the eventsourcing library, and a rebuild of a read model."""
    commands = settings.size(20_000, 2_000)
    their_commands = settings.size(1_000, 200)
    loads = settings.size(100, 10)
    events = settings.size(1_000_000, 50_000)
    version, their_version = installed("pabal") or "", installed("eventsourcing")
    with fresh_folder(settings) as folder:
        counted = iter(range(1_000_000))

        def at(work: Callable[[Path], Metrics]) -> Callable[[], Metrics]:
            return lambda: work(folder / f"{next(counted)}.db")

        def entry(case: str, metric: str, mine: bool, work: Callable[[], Metrics], size: int) -> Entry:
            return Entry(
                case,
                PABAL if mine else THEIRS,
                (metric,),
                work,
                (version if mine else their_version) or "",
                "full",
                size,
                missing="" if mine or their_version else "not installed",
            )

        log = folder / "log.db"
        asyncio.run(fill(log, events))
        entries = [
            entry(SAVE, COMMANDS, True, at(lambda path: run(pabal_save(path, commands))), commands),
            entry(SAVE, COMMANDS, False, at(lambda path: their_save(path, their_commands)), their_commands),
            entry(LOAD, LOADS, True, at(lambda path: run(pabal_load(path, loads))), loads),
            entry(LOAD, LOADS, False, at(lambda path: their_load(path, loads)), loads),
            entry(REBUILD, EVENTS, True, lambda: run(pabal_rebuild(log, events)), events),
        ]
        wanted = [one for one in entries if settings.wants(one.rival)]
        return Outcome(
            scenario=NAME,
            title="Event sourcing",
            text=(
                "Saving: one new event on one of 100 aggregates in memory. The rival's calls block and its "
                "SQLite has one writer, so its commands run one after another. Loading: an aggregate of "
                "1,000 events from the log, without cache or snapshot. Rebuilding: a table with a row per "
                "account, from every event of the log, until it has replaced the live one."
            ),
            tables=(
                Table("Saving one event", (COMMANDS,), THEIRS, NAME),
                Table("Loading an aggregate of 1,000 events", (LOADS,), THEIRS, f"{NAME}-loading"),
                Table("Rebuilding", (EVENTS,), ""),
            ),
            series=tuple(interleave(wanted, settings.runs)),
        )
