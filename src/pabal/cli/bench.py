"""``pabal bench``: measure this machine's event throughput, in memory and on disk."""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from pathlib import Path
from typing import ClassVar

import click
import msgspec

from pabal import DomainEvent, EventBusFactory, InMemoryEventBus
from pabal.cli.base import errors_as_exit_codes, json_option, print_json, progress, row, show, table
from pabal.cli.command import Command
from pabal.cli.language import t

_BATCH = 1000


class BenchTick(DomainEvent):
    """The event that is published."""

    event_type: ClassVar[str] = "pabal.bench.tick"
    aggregate_type: ClassVar[str | None] = "bench"
    key: str
    number: int

    @property
    def aggregate_id(self) -> str:
        """Return the key, one of a hundred."""
        return self.key


class BenchResult(msgspec.Struct, frozen=True):
    """The median and range of the events per second of one kind of bus."""

    way: str
    median: float
    lowest: float
    highest: float


@click.command(cls=Command)
@click.option(
    "--events", type=click.IntRange(_BATCH), default=20_000, show_default=True, help="Events per round."
)
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True, help="Rounds per storage.")
@click.option(
    "--directory",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Directory for the temporary file; its disk is the one measured.",
)
@json_option
def bench(events: int, rounds: int, directory: Path | None, as_json: bool) -> None:
    """Measure throughput from publish to handled, in memory and on disk.

    Example: pabal bench --events 50000 --directory /var/lib/trading
    """
    with errors_as_exit_codes():
        results = asyncio.run(_run_rounds(events, rounds, directory))
    if as_json:
        print_json(results)
        return
    new_table = table("storage", ">median", ">lowest", ">highest")
    for result in results:
        row(
            new_table,
            t(result.way),
            f"{result.median:,.0f}",
            f"{result.lowest:,.0f}",
            f"{result.highest:,.0f}",
        )
    show(new_table, "")


async def _run_rounds(events: int, rounds: int, directory: Path | None) -> list[BenchResult]:
    rates: dict[str, list[float]] = {}
    with progress(t("measuring"), rounds) as done:
        # Interleaved, so that other load on the machine affects all of them alike.
        for number in range(rounds):
            await _run_round(rates, events, directory)
            done(number + 1)
    return [
        BenchResult(way, statistics.median(values), min(values), max(values)) for way, values in rates.items()
    ]


async def _run_round(rates: dict[str, list[float]], events: int, directory: Path | None) -> None:
    memory = EventBusFactory.create_in_memory_event_bus(max_queue_size=events)
    rates.setdefault("in memory", []).append(await _events_per_second(memory, events))
    for durability in ("normal", "full"):
        with tempfile.TemporaryDirectory(dir=directory) as folder:
            bus = EventBusFactory.create_default_event_bus(Path(folder, "bench.db"), durability=durability)
            rates.setdefault(f"on disk, {durability}", []).append(await _events_per_second(bus, events))


async def _events_per_second(bus: InMemoryEventBus, events: int) -> float:
    async def handle(event: BenchTick) -> None:
        pass

    async with bus:
        bus.subscribe(BenchTick, handle, name="bench")
        begun = time.perf_counter()
        for first in range(0, events, _BATCH):
            last = min(first + _BATCH, events)
            await bus.publish_batch([BenchTick(f"k-{n % 100}", n) for n in range(first, last)])
        await bus.drain()
        return events / (time.perf_counter() - begun)
