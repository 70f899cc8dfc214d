"""Process managers with mistakes that would cause failures later."""

from __future__ import annotations

from datetime import timedelta
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
    reacts,
    starts,
)
from pabal.errors import ProcessDefinitionError, SubscriptionError
from pabal.testing import VirtualClock
from tests.cqrs.support import OrderPlaced, RejectedError


def _cancel(module: str, command_type: str | None = None) -> Any:
    """Return a command class as another module would define it."""
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
    """Place one order; return the modules whose commands were handled, and the errors of parked events."""
    handled: list[str] = []
    clock, storage = VirtualClock(), InMemoryEventStorage()
    bus = InMemoryEventBus(storage, clock=clock)
    commands = CommandBus()
    commands.use(Idempotency(bus))

    async def handle(command: Any) -> None:
        handled.append(type(command).__module__)
        if command.order == "rejected":
            raise RejectedError("no")

    for command_class in sent:
        commands.register(command_class, handle)
    processes = ProcessManagers(bus, commands, clock=clock)
    processes.add(process, retry=RetryPolicy(max_attempts=1))
    async with bus:
        await bus.publish(OrderPlaced("o-1"))
        before = -1
        while before != (before := await storage.head()):  # an event may cause further ones
            await clock.settle()
            await bus.drain(timeout=None)
        letters = await bus.dead_letters.list()
    return handled, [letter.attempts[-1].message for letter in letters]


async def test_a_command_is_not_confused_with_a_namesake_of_another_module() -> None:
    """A command for payment would be sent to shipping, whose command has the same fields."""

    class Cancelling(ProcessManager):
        process_type = "cqrs_cancelling"

        @starts(OrderPlaced, key="order")
        def placed(self, event: OrderPlaced) -> None:
            self.send(CancelPayment(order=event.order))

    handled, [message] = await _run(Cancelling, CancelShipping, CancelPayment)
    assert handled == []
    assert "shop.payment.Cancel, which is stored under the same name as shop.shipping.Cancel" in message


async def test_a_rejection_reaches_the_method_for_that_command() -> None:
    """The compensation of another command would run instead of that of the rejected one."""
    received: list[str] = []

    class Compensating(ProcessManager):
        process_type = "cqrs_compensating"
        rejections = (RejectedError,)

        @starts(OrderPlaced, key="order")
        def placed(self, event: OrderPlaced) -> None:
            self.send(StopPayment(order="rejected"))

        @on_rejected(StopPayment)
        def not_paid(self, event: CommandRejected) -> None:
            received.append(event.command_class)

        @on_rejected(StopShipping)
        def not_shipped(self, event: CommandRejected) -> None:
            received.append("shipping")

    assert await _run(Compensating, StopShipping, StopPayment) == (["shop.payment"], [])
    assert received == ["payment.cancel"]
    with pytest.raises(ProcessDefinitionError, match="two commands named Cancel"):

        class Confusing(ProcessManager):
            @on_rejected(CancelPayment, CancelShipping)
            def rejected(self, event: CommandRejected) -> None: ...


@pytest.mark.parametrize("seconds", [-1.0, -9e10, -1e300, float("-inf")])
async def test_a_timeout_in_the_past_fires_at_once(seconds: float) -> None:
    """The step would be stored with an invalid date, and its key would stay parked."""

    class Overdue(ProcessManager):
        process_type = "cqrs_overdue"

        @starts(OrderPlaced, key="order")
        def placed(self, event: OrderPlaced) -> None:
            self.set_timeout("late", seconds)

        @on_timeout("late")
        def late(self, event: object) -> None:
            self.send(StopShipping(self.key))

    assert await _run(Overdue, StopShipping) == (["shop.shipping"], [])


def test_a_process_type_that_contains_a_slash_is_rejected() -> None:
    """Key b/c of process a, and key c of process a/b, would share their steps."""
    with pytest.raises(ProcessDefinitionError, match="leave the / out"):

        class Ambiguous(ProcessManager):
            process_type = "cqrs/ambiguous"


@pytest.mark.parametrize("seconds", [1e12, 1e300, float("inf"), float("nan")])
def test_set_timeout_rejects_a_timeout_beyond_the_last_date(seconds: float) -> None:
    """The step would be stored, but could never be carried out: its key would stay parked."""

    class Waiting(ProcessManager):
        process_type = "cqrs_waiting"

        @starts(OrderPlaced, key="order")
        def placed(self, event: OrderPlaced) -> None:
            self.set_timeout("late", seconds)

        @on_timeout("late")
        def late(self, event: object) -> None: ...

    with pytest.raises(ProcessDefinitionError, match="is too long"):
        Waiting("o-1").take(OrderPlaced("o-1"))


@pytest.mark.parametrize("seconds", ["60", None, timedelta(minutes=1)])
def test_set_timeout_rejects_a_timeout_that_is_not_a_number(seconds: Any) -> None:
    """The mistake would surface in a dead letter, as an error about comparing timedelta and float."""

    class Waiting(ProcessManager):
        process_type = "cqrs_waiting"

        @starts(OrderPlaced, key="order")
        def placed(self, event: OrderPlaced) -> None:
            self.set_timeout("late", seconds)

        @on_timeout("late")
        def late(self, event: object) -> None: ...

    with pytest.raises(ProcessDefinitionError, match=r"give a number of seconds, such as timedelta"):
        Waiting("o-1").take(OrderPlaced("o-1"))


def test_cancel_timeout_rejects_a_name_that_no_method_handles() -> None:
    """With a misspelt name, nothing would be cancelled, and the timeout would fire after all."""

    class Cancelling(ProcessManager):
        @starts(OrderPlaced, key="order")
        def placed(self, event: OrderPlaced) -> None:
            self.cancel_timeout("lte")

        @on_timeout("late")
        def late(self, event: object) -> None: ...

    with pytest.raises(ProcessDefinitionError, match="no method handles the timeout 'lte'"):
        Cancelling("o-1").take(OrderPlaced("o-1"))


@pytest.mark.parametrize(
    ("decorate", "message"),
    [
        (lambda: starts(key="order"), "@starts names no event class"),
        (lambda: reacts("order.placed", key="order"), "@reacts takes event classes, not 'order.placed'"),  # type: ignore[arg-type]
        (lambda: starts(OrderPlaced, key=5), "the key of @starts is 5"),  # type: ignore[arg-type]
        (lambda: on_timeout(print), "@on_timeout takes a name"),  # type: ignore[arg-type]
        (lambda: on_rejected(), "@on_rejected names no command class"),
        (lambda: on_rejected(OrderPlaced), "@on_rejected takes classes of Command"),
    ],
)
def test_process_decorators_reject_missing_and_invalid_arguments(decorate: Any, message: str) -> None:
    """The method would never be called, or fail with an internal error, without saying why."""
    with pytest.raises(ProcessDefinitionError, match=message):
        decorate()


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"rejections": [RejectedError]}, "must be a tuple of exception classes"),
        ({"rejections": (RejectedError("no"),)}, "must be a tuple of exception classes"),
        ({"process_type": 5}, "process_type is 5; it must be text"),
        ({"process_type": ""}, "process_type is ''; it must be text"),
    ],
)
def test_a_process_class_with_an_invalid_attribute_is_rejected(
    attributes: dict[str, Any], message: str
) -> None:
    """With a list of rejections, every rejection would be parked with a TypeError instead of compensated."""
    with pytest.raises(ProcessDefinitionError, match=message):
        type("Selling", (ProcessManager,), {"__module__": __name__, **attributes})


@pytest.mark.parametrize("name", ["codec", "end", "reactions", "take"])
def test_an_attribute_with_a_name_that_the_process_uses_itself_is_rejected(name: str) -> None:
    """Every event of the process would be parked, with an error that does not name the attribute."""
    with pytest.raises(ProcessDefinitionError, match=f"{name} is an attribute of every process"):
        type("Selling", (ProcessManager,), {"__annotations__": {name: "str"}, name: ""})


async def test_an_annotated_setting_of_a_process_is_no_state() -> None:
    """Exception classes have no JSON form, so every event of the process would be parked."""

    class Selling(ProcessManager):
        process_type: str = "annotated"  # type: ignore[misc]
        rejections: tuple[type[Exception], ...] = (RejectedError,)  # type: ignore[misc]

        @starts(OrderPlaced, key="order")
        def placed(self, event: OrderPlaced) -> None:
            self.send(StopPayment(order="rejected"))

        @on_rejected(StopPayment)
        def refused(self, event: CommandRejected) -> None:
            self.send(StopShipping(order=event.error))

    handled, errors = await _run(Selling, StopPayment, StopShipping)
    assert (handled, errors) == (["shop.payment", "shop.shipping"], [])


def test_add_rejects_a_process_with_unreachable_methods_and_the_where_option() -> None:
    """It would be subscribed and ignore every event, without any error."""

    class Endless(ProcessManager):
        @reacts(OrderPlaced, key="order")
        def placed(self, event: OrderPlaced) -> None: ...

    class Deaf(ProcessManager):
        @starts(OrderPlaced, key="order")
        def placed(self, event: OrderPlaced) -> None: ...

        @on_rejected(StopPayment)
        def rejected(self, event: CommandRejected) -> None: ...

    class Fine(ProcessManager):
        @starts(OrderPlaced, key="order")
        def placed(self, event: OrderPlaced) -> None: ...

    bus = InMemoryEventBus(InMemoryEventStorage())
    commands = CommandBus()
    commands.use(Idempotency(bus))
    processes = ProcessManagers(bus, commands)
    with pytest.raises(ProcessDefinitionError, match="mark a method with @starts"):
        processes.add(Endless)
    with pytest.raises(ProcessDefinitionError, match="name the exceptions that mean no"):
        processes.add(Deaf)
    with pytest.raises(SubscriptionError, match="where= is set by the process manager"):
        processes.add(Fine, where=bool)


async def test_a_key_the_event_lacks_is_reported_with_the_method_that_names_it() -> None:
    """Each event would be parked with an AttributeError that does not point to the mistake."""

    class Misspelt(ProcessManager):
        @starts(OrderPlaced, key="ordr")
        def placed(self, event: OrderPlaced) -> None: ...

    _, [message] = await _run(Misspelt)
    assert "has no attribute 'ordr'; correct the key= of placed()" in message


async def test_a_command_of_wrong_values_is_refused_before_its_step_is_stored() -> None:
    """The step would hold a command that nobody can read, and fail forever, even after a mended release."""
    storage, handled = InMemoryEventStorage(), []

    def release(order: Any) -> InMemoryEventBus:
        class Stopping(ProcessManager):
            @starts(OrderPlaced, key="order")
            def placed(self, event: OrderPlaced) -> None:
                self.send(StopPayment(order=order))

        async def stop(command: Any) -> None:
            handled.append(command.order)

        bus, commands = InMemoryEventBus(storage), CommandBus()
        commands.use(Idempotency(bus))
        commands.register(StopPayment, stop)
        ProcessManagers(bus, commands).add(Stopping, retry_count=0)
        return bus

    for order, message in ((5, "Expected `str`, got `int`"), (object(), "object is unsupported")):
        bus = release(order)
        async with bus:
            await bus.dead_letters.retry("all") or await bus.publish(OrderPlaced("o-1"))
            await bus.drain()
            (letter,) = await bus.dead_letters.list()
        assert "it sends Cancel, which cannot be stored as declared: " in letter.attempts[-1].message
        assert message in letter.attempts[-1].message
    bus = release("o-1")
    async with bus:
        await bus.dead_letters.retry("all")
        await bus.drain()
    assert handled == ["o-1"]


async def test_a_state_that_contains_itself_is_reported_as_not_storable() -> None:
    """The dead letter would say RecursionError, and not which process."""

    class Circling(ProcessManager):
        seen: list[Any] = []  # noqa: RUF012

        @starts(OrderPlaced, key="order")
        def placed(self, event: OrderPlaced) -> None:
            self.seen.append(self.seen)

    _, [message] = await _run(Circling)
    assert "process manager" in message
    assert "its state cannot be stored" in message


def test_async_and_generator_process_methods_are_rejected() -> None:
    """A method that yields its commands would send none: the step would be stored without a decision."""
    with pytest.raises(ProcessDefinitionError, match=r"placed\(\) is async or a generator"):

        class Yielding(ProcessManager):
            @starts(OrderPlaced, key="order")
            def placed(self, event: OrderPlaced) -> Any:
                yield StopPayment(order=event.order)

    async def pausing(process: ProcessManager, event: OrderPlaced) -> None: ...

    def hidden(process: ProcessManager, event: OrderPlaced) -> Any:
        return pausing(process, event)

    process_class: Any = type(
        "Hiding",
        (ProcessManager,),
        {"__module__": __name__, "placed": starts(OrderPlaced, key="order")(hidden)},
    )
    with pytest.raises(ProcessDefinitionError, match=r"placed\(\) returned a coroutine or generator"):
        process_class("o-1").take(OrderPlaced("o-1"))
