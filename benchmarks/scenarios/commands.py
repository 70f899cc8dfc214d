"""What does the command bus add to a plain call of the handler?"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from benchmarks.harness import Settings, interleave, run
from benchmarks.model import PABAL, Entry, Metrics, Outcome, Table
from pabal.cqrs import Command, CommandBus, MessageContext

NAME = "commands"
METRIC = "µs per command"
PLAIN = "a plain call"


class Add(Command[int]):
    left: int
    right: int


class Service:
    pass


async def add(command: Add) -> int:
    return command.left + command.right


async def add_with_service(command: Add, service: Service) -> int:
    return command.left + command.right


async def pass_on(message: Any, context: MessageContext, call_next: Callable[[], Awaitable[Any]]) -> Any:
    return await call_next()


def _bus(handler: Callable[..., Any], *, middleware: bool = False) -> CommandBus:
    commands = CommandBus(provide={Service: Service()}.__getitem__)
    commands.register(Add, handler)
    if middleware:
        commands.use(pass_on)
    return commands


async def _timed(call: Callable[[Add], Awaitable[int]], count: int) -> Metrics:
    command = Add(1, 2)
    began = time.process_time()
    for _ in range(count):
        await call(command)
    return {METRIC: (time.process_time() - began) / count * 1e6}


def measure(settings: Settings) -> Outcome:
    """Await the same handler directly and through more and more of the bus; CPU time of this process."""
    count = 20_000 if settings.quick else 500_000
    ways: dict[str, Callable[[Add], Awaitable[int]]] = {
        PLAIN: add,
        PABAL: _bus(add).execute,
        f"{PABAL}, one dependency": _bus(add_with_service).execute,
        f"{PABAL}, one middleware": _bus(add, middleware=True).execute,
    }
    entries = [
        Entry(NAME, name, (METRIC,), partial(_measured, call, count), "", "–")
        for name, call in ways.items()
        if settings.wants(name)
    ]
    return Outcome(
        scenario=NAME,
        title="Commands",
        text=(
            f"{count:,} commands, one after the other, to a handler that adds two numbers. The time of a "
            "line minus that of the first is the cost of the bus."
        ),
        tables=(Table("CPU time per command", (METRIC,), PLAIN, NAME, lower_is_better=True),),
        series=tuple(interleave(entries, settings.runs)),
    )


def _measured(call: Callable[[Add], Awaitable[int]], count: int) -> Metrics:
    return run(_timed(call, count))
