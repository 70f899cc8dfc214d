"""Process managers that are written in a way that would go wrong later."""

from __future__ import annotations

from typing import Any

import pytest

from pabal import InMemoryEventBus, InMemoryEventStorage, RetryPolicy
from pabal.cqrs import (
    Command,
    CommandBus,
    CommandRejected,
    Idempotency,
    ProcessManager,
    ProcessManagers,
    on_rejected,
    on_timeout,
    starts,
)
from pabal.errors import ProcessDefinitionError
from pabal.testing import VirtualClock
from tests.cqrs.support import OrderPlaced, RefusedError


def _cancel(module: str, command_type: str | None = None) -> Any:
    """Return a command as a module of its own would define it."""
    body = {"__module__": module, "__qualname__": "Cancel", "__annotations__": {"order": str}}
    named = {} if command_type is None else {"command_type": command_type}
    make: Any = type(Command)
    return make("Cancel", (Command,), {**body, **named})


CancelShipping, CancelPayment = _cancel("shop.shipping"), _cancel("shop.payment")
StopShipping, StopPayment = (
    _cancel("shop.shipping", "shipping.cancel"),
    _cancel("shop.payment", "payment.cancel"),
)


async def _run(process: type[ProcessManager], *sent: Any) -> tuple[list[str], list[str]]:
    """Have one order placed; return the modules whose commands were handled, and what was parked."""
    handled: list[str] = []
    clock, storage = VirtualClock(), InMemoryEventStorage()
    bus = InMemoryEventBus(storage, clock=clock)
    commands = CommandBus()
    commands.use(Idempotency(bus))

    async def handle(command: Any) -> None:
        handled.append(type(command).__module__)
        if command.order == "refused":
            raise RefusedError("no")

    for command_class in sent:
        commands.register(command_class, handle)
    processes = ProcessManagers(bus, commands, clock=clock)
    processes.add(process, retry=RetryPolicy(max_attempts=1))
    async with bus:
        await bus.publish(OrderPlaced("o-1"))
        before = -1
        while before != (before := await storage.head()):  # each event may cause the next
            await clock.settle()
            await bus.drain(timeout=None)
        letters = await bus.dead_letters.list()
    return handled, [letter.attempts[-1].message for letter in letters]


async def test_a_command_is_not_taken_for_its_namesake_of_another_module() -> None:
    """What was meant for payment would be sent to shipping, whose command has the same fields."""

    class Cancelling(ProcessManager):
        process_type = "cqrs_cancelling"

        @starts(OrderPlaced, key="order")
        def placed(self, event: OrderPlaced) -> None:
            self.send(CancelPayment(order=event.order))

    handled, [told] = await _run(Cancelling, CancelShipping, CancelPayment)
    assert handled == []
    assert "shop.payment.Cancel, which is stored under the same name as shop.shipping.Cancel" in told


async def test_what_was_refused_is_told_to_the_method_for_that_command() -> None:
    """The compensation of another command would be made, and that of the refused one not."""
    heard: list[str] = []

    class Compensating(ProcessManager):
        process_type = "cqrs_compensating"
        rejections = (RefusedError,)

        @starts(OrderPlaced, key="order")
        def placed(self, event: OrderPlaced) -> None:
            self.send(StopPayment(order="refused"))

        @on_rejected(StopPayment)
        def not_paid(self, event: CommandRejected) -> None:
            heard.append(event.command_class)

        @on_rejected(StopShipping)
        def not_shipped(self, event: CommandRejected) -> None:
            heard.append("shipping")

    assert await _run(Compensating, StopShipping, StopPayment) == (["shop.payment"], [])
    assert heard == ["payment.cancel"]
    with pytest.raises(ProcessDefinitionError, match="two commands named Cancel"):

        class Confusing(ProcessManager):
            @on_rejected(CancelPayment, CancelShipping)
            def refused(self, event: CommandRejected) -> None: ...


@pytest.mark.parametrize("seconds", [-1.0, -9e10, -1e300, float("-inf")])
async def test_a_timeout_in_the_past_comes_at_once(seconds: float) -> None:
    """The step would be stored with a date that no calendar has, and its key would stay parked."""

    class Overdue(ProcessManager):
        process_type = "cqrs_overdue"

        @starts(OrderPlaced, key="order")
        def placed(self, event: OrderPlaced) -> None:
            self.set_timeout("late", seconds)

        @on_timeout("late")
        def late(self, event: object) -> None:
            self.send(StopShipping(self.key))

    assert await _run(Overdue, StopShipping) == (["shop.shipping"], [])


def test_a_process_type_that_could_be_read_as_type_and_key_is_refused() -> None:
    """Key b/c of process a, and key c of process a/b, would go on with each other's steps."""
    with pytest.raises(ProcessDefinitionError, match="leave the / out"):

        class Ambiguous(ProcessManager):
            process_type = "cqrs/ambiguous"


@pytest.mark.parametrize("seconds", [1e12, 1e300, float("inf"), float("nan")])
def test_a_timeout_that_no_calendar_has_is_refused_when_it_is_set(seconds: float) -> None:
    """The step would be stored, and fail for ever at being carried out: its key would stay parked."""

    class Waiting(ProcessManager):
        process_type = "cqrs_waiting"

        @starts(OrderPlaced, key="order")
        def placed(self, event: OrderPlaced) -> None:
            self.set_timeout("late", seconds)

        @on_timeout("late")
        def late(self, event: object) -> None: ...

    with pytest.raises(ProcessDefinitionError, match="never comes"):
        Waiting("o-1").take(OrderPlaced("o-1"))
