"""Commands and queries reach their one handler, and handlers get their dependencies."""

from __future__ import annotations

import asyncio
import threading
from functools import partial
from typing import Any

import pytest

from pabal.cqrs import (
    CommandBus,
    MessageContext,
    QueryBus,
)
from pabal.errors import (
    DependencyError,
    DuplicateHandlerError,
    HandlerNotFoundError,
    InvalidMessageHandlerError,
    UsageError,
)
from pabal.eventsourcing import UnitOfWork
from tests.cqrs.messages import Add, CountOf, Multiply, Numbers


async def test_a_command_returns_what_its_handler_returns() -> None:
    """A caller would not learn the id of what it created."""
    commands = CommandBus()

    @commands.handles(Add)
    async def add(command: Add) -> int:
        return command.left + command.right

    assert await commands.execute(Add(1, 2)) == 3
    assert await add(Add(1, 2)) == 3


async def test_stop_iteration_from_a_sync_handler_reaches_the_caller_as_runtime_error() -> None:
    """asyncio futures reject StopIteration: the caller would wait forever, and could not be cancelled."""
    commands = CommandBus()

    @commands.handles(Add)
    def add(command: Add) -> int:
        return next(iter(()))

    with pytest.raises(RuntimeError, match="StopIteration"):
        await commands.execute(Add(1, 2))


async def test_a_handler_error_reaches_the_caller_unchanged() -> None:
    """A caller could not distinguish a rejection from a bug."""
    commands = CommandBus()

    @commands.handles(Add)
    async def add(command: Add) -> int:
        raise ZeroDivisionError("no")

    with pytest.raises(ZeroDivisionError, match="no"):
        await commands.execute(Add(1, 2))


async def test_a_message_without_a_handler_raises_an_error_that_names_it() -> None:
    """A forgotten import would look like a command that did nothing."""
    with pytest.raises(HandlerNotFoundError, match=r"no handler for Add on this command bus") as caught:
        await CommandBus().execute(Add(1, 2))
    assert caught.value.message_type == "Add"
    with pytest.raises(HandlerNotFoundError, match="no handler for CountOf on this query bus"):
        await QueryBus().ask(CountOf("apples"))


def test_registering_a_second_handler_raises_an_error_that_names_both() -> None:
    """One of the two handlers would silently win."""
    commands = CommandBus()

    async def first(command: Add) -> int:
        return 1

    async def second(command: Add) -> int:
        return 2

    commands.register(Add, first)
    with pytest.raises(DuplicateHandlerError, match=r"already handled by .*first, so .*second"):
        commands.register(Add, second)


async def test_handlers_get_dependencies_by_type_from_a_provider_function() -> None:
    """Handlers would have to import their dependencies, and could not be tested in isolation."""
    numbers = Numbers()
    queries = QueryBus(provide={Numbers: numbers}.__getitem__)

    @queries.handles(CountOf)
    async def count(query: CountOf, numbers: Numbers, *, default: int = 0) -> int:
        return numbers.known.get(query.name, default)

    assert await queries.ask(CountOf("apples")) == 3
    assert await queries.ask(CountOf("pears")) == 0


async def test_a_provider_may_be_async() -> None:
    """A container that opens connections could not be used."""

    async def provide(wanted: Any) -> Any:
        await asyncio.sleep(0)
        return wanted()

    queries = QueryBus(provide=provide)

    @queries.handles(CountOf)
    async def count(query: CountOf, numbers: Numbers) -> int:
        return numbers.known[query.name]

    assert await queries.ask(CountOf("apples")) == 3


async def test_a_dependency_error_names_the_parameter_and_keeps_its_cause() -> None:
    """A wiring mistake would surface as a KeyError without any context."""
    commands = CommandBus(provide={}.__getitem__)

    @commands.handles(Add)
    async def add(command: Add, numbers: Numbers) -> int:
        return 0

    with pytest.raises(DependencyError, match="asks for numbers: Numbers") as caught:
        await commands.execute(Add(1, 2))
    assert isinstance(caught.value.__cause__, KeyError)

    bare = CommandBus()
    bare.register(Add, add)
    with pytest.raises(DependencyError, match="the bus has no provider"):
        await bare.execute(Add(1, 2))


def test_the_bus_rejects_invalid_handlers_messages_middleware_and_providers() -> None:
    """The mistake would surface with the first command, in production."""
    commands = CommandBus()

    def nothing() -> None: ...
    def bare(command: Add, numbers) -> None: ...  # type: ignore[no-untyped-def]
    def many(command: Add, *numbers: Numbers) -> None: ...

    for handler, reason in ((nothing, "takes no message"), (bare, "no annotation"), (many, "nothing can be")):
        with pytest.raises(InvalidMessageHandlerError, match=reason):
            commands.register(Add, handler)
    with pytest.raises(InvalidMessageHandlerError, match="cannot be called"):
        commands.register(Add, 5)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="is not a class"):
        commands.register("Add", nothing)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="is not a class"):
        commands.handles(nothing)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="is not a middleware"):
        commands.use(5)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="provide is 5"):
        CommandBus(provide=5)  # type: ignore[arg-type]


def test_register_rejects_generator_handlers() -> None:
    """The command would count as handled, although none of the body ran."""

    def counting(command: Add) -> Any:
        yield command.left

    async def waiting(command: Add) -> Any:
        yield command.left

    for handler in (counting, waiting):
        with pytest.raises(InvalidMessageHandlerError, match="remove its yield"):
            CommandBus().register(Add, handler)


async def test_execute_rejects_a_message_class_and_suggests_an_instance() -> None:
    """Users who forget the parentheses would be advised to write a handler for StructMeta."""
    commands = CommandBus()
    commands.register(Add, lambda command: command.left)
    with pytest.raises(UsageError, match=r"was given the class Add; pass an instance, Add\(…\)"):
        await commands.execute(Add)


async def test_a_sync_handler_runs_in_a_thread() -> None:
    """One slow handler would block the event loop."""
    commands = CommandBus()

    @commands.handles(Add)
    def add(command: Add) -> int:
        return threading.get_ident()

    assert await commands.execute(Add(1, 2)) != threading.get_ident()


async def test_any_class_can_be_a_message_and_any_callable_object_a_handler(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An application could not keep using its existing classes, or each call would cost a thread."""
    monkeypatch.delattr(asyncio, "to_thread")

    class Ping:
        pass

    class Answer:
        async def __call__(self, message: Ping, context: MessageContext) -> str:
            return context.message_type

    commands = CommandBus()
    commands.register(Ping, Answer())
    assert (await commands.execute(Ping())).endswith("Ping")
    assert commands.message_classes() == (Ping,)


async def test_partial_functions_and_built_in_methods_can_be_handlers() -> None:
    """They have no annotations of their own: registering them would fail without saying why."""

    async def scale(command: Add, context: MessageContext, *, factor: int) -> int:
        assert context.returns is int
        return factor * (command.left + command.right)

    commands, handled = CommandBus(), list[Multiply]()
    commands.register(Add, partial(partial(scale), factor=3))
    commands.register(Multiply, handled.append)
    assert await commands.execute(Add(1, 2)) == 9
    command = Multiply(3, 4)
    assert await commands.execute(command) is None
    assert handled == [command]


def test_messages_are_immutable_and_each_command_has_its_own_id() -> None:
    """A middleware could change what another one has checked."""
    command = Add(1, 2)
    with pytest.raises(AttributeError):
        command.left = 5  # type: ignore[misc]
    assert Add(1, 2).command_id != command.command_id
    assert CountOf("apples") == CountOf("apples")


async def test_the_error_for_an_unprovided_unit_of_work_points_to_idempotency() -> None:
    """The error would be that of the application's container, which does not know the class."""
    for commands in (CommandBus(), CommandBus(provide={}.__getitem__)):

        @commands.handles(Add)
        async def add(command: Add, work: UnitOfWork) -> int:
            return 0

        with pytest.raises(
            DependencyError, match=r"commands.use\(Idempotency\(bus\)\) provides one"
        ) as caught:
            await commands.execute(Add(1, 2))
        assert str(caught.value).count("Idempotency") == 1
