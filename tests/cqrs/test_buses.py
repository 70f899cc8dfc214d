"""Commands and queries reach their one handler, and handlers get their dependencies."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from pabal.cqrs import (
    Command,
    CommandBus,
    Idempotency,
    MessageContext,
    Query,
    QueryBus,
    authorise,
    log_messages,
    retry_conflicts,
    validate,
)
from pabal.errors import (
    ConcurrencyError,
    DependencyError,
    DuplicateHandlerError,
    HandlerNotFoundError,
    InvalidMessageError,
    InvalidMessageHandlerError,
    NotAuthorisedError,
    UsageError,
)
from pabal.eventsourcing import UnitOfWork


class Add(Command[int]):
    left: int
    right: int

    def validate(self) -> None:
        if self.left < 0:
            raise ValueError("left is negative")


class Multiply(Command[int]):
    left: int
    right: int


class CountOf(Query[int]):
    name: str


class Numbers:
    def __init__(self) -> None:
        self.known = {"apples": 3}


async def test_a_command_returns_what_its_handler_returns() -> None:
    """A caller would not learn the id of what it created."""
    commands = CommandBus()

    @commands.handles(Add)
    async def add(command: Add) -> int:
        return command.left + command.right

    assert await commands.execute(Add(1, 2)) == 3
    assert await add(Add(1, 2)) == 3


async def test_a_sync_handler_that_raises_stop_iteration_is_answered() -> None:
    """asyncio futures refuse StopIteration: the caller would wait forever, and could not be cancelled."""
    commands = CommandBus()

    @commands.handles(Add)
    def add(command: Add) -> int:
        return next(iter(()))

    with pytest.raises(RuntimeError, match="StopIteration"):
        await commands.execute(Add(1, 2))


async def test_a_handlers_error_comes_to_the_caller_as_it_is() -> None:
    """A caller could not distinguish a rejection from a bug."""
    commands = CommandBus()

    @commands.handles(Add)
    async def add(command: Add) -> int:
        raise ZeroDivisionError("no")

    with pytest.raises(ZeroDivisionError, match="no"):
        await commands.execute(Add(1, 2))


async def test_a_message_without_handler_is_an_error_that_names_it() -> None:
    """A forgotten import would look like a command that did nothing."""
    with pytest.raises(HandlerNotFoundError, match=r"no handler for Add on this command bus") as caught:
        await CommandBus().execute(Add(1, 2))
    assert caught.value.message_type == "Add"
    with pytest.raises(HandlerNotFoundError, match="no handler for CountOf on this query bus"):
        await QueryBus().ask(CountOf("apples"))


def test_a_second_handler_is_an_error_that_names_both() -> None:
    """One of the two handlers would silently win."""
    commands = CommandBus()

    async def first(command: Add) -> int:
        return 1

    async def second(command: Add) -> int:
        return 2

    commands.register(Add, first)
    with pytest.raises(DuplicateHandlerError, match=r"already handled by .*first, so .*second"):
        commands.register(Add, second)


async def test_handlers_get_their_dependencies_by_type_from_a_plain_function() -> None:
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


async def test_what_cannot_be_provided_is_told_with_handler_parameter_and_cause() -> None:
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


def test_what_cannot_handle_a_message_is_refused_when_registered() -> None:
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
    with pytest.raises(UsageError, match="is not a middleware"):
        commands.use(5)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="provide is 5"):
        CommandBus(provide=5)  # type: ignore[arg-type]


def test_a_generator_is_no_handler() -> None:
    """The command would count as handled, although none of the body ran."""

    def counting(command: Add) -> Any:
        yield command.left

    async def waiting(command: Add) -> Any:
        yield command.left

    for handler in (counting, waiting):
        with pytest.raises(InvalidMessageHandlerError, match="remove its yield"):
            CommandBus().register(Add, handler)


async def test_a_middleware_that_does_not_await_the_next_call_is_told() -> None:
    """The command would not be handled, and its sender would get a coroutine as the result."""
    commands = CommandBus()
    commands.register(Add, lambda command: command.left)

    async def forgetful(message: Any, context: MessageContext, call_next: Any) -> Any:
        return call_next()

    commands.use(forgetful)
    with pytest.raises(UsageError, match="forgetful returned an awaitable, so Add was not handled"):
        await commands.execute(Add(1, 2))


async def test_a_class_for_a_message_is_told_as_the_slip_that_it_is() -> None:
    """Users who forget the brackets would be told to write a handler for StructMeta."""
    commands = CommandBus()
    commands.register(Add, lambda command: command.left)
    with pytest.raises(UsageError, match=r"was given the class Add; pass an instance, Add\(…\)"):
        await commands.execute(Add)


async def test_a_handler_that_is_not_async_runs_in_a_thread() -> None:
    """One slow handler would block the event loop."""
    commands = CommandBus()

    @commands.handles(Add)
    def add(command: Add) -> int:
        return threading.get_ident()

    assert await commands.execute(Add(1, 2)) != threading.get_ident()


async def test_any_class_can_be_a_message_and_any_callable_object_a_handler() -> None:
    """An application could not keep using its existing classes."""

    class Ping:
        pass

    class Answer:
        async def __call__(self, message: Ping, context: MessageContext) -> str:
            return context.message_type

    commands = CommandBus()
    commands.register(Ping, Answer())
    assert (await commands.execute(Ping())).endswith("Ping")
    assert commands.message_classes() == (Ping,)


async def test_middleware_stands_around_handlers_in_the_order_of_use() -> None:
    """A check could run after what it should guard, and not apply to handlers registered before it."""
    commands = CommandBus()
    seen: list[str] = []

    @commands.handles(Add)
    async def add(command: Add) -> int:
        seen.append("handler")
        return command.left + command.right

    for name in ("outer", "inner"):

        async def layer(message: Any, context: MessageContext, call_next: Any, name: str = name) -> Any:
            seen.append(name)
            return await call_next() * 10

        commands.use(layer)
    assert await commands.execute(Add(1, 2)) == 300
    assert seen == ["outer", "inner", "handler"]
    assert len(commands.middleware) == 2


async def test_validation_refuses_before_the_handler_sees_the_message() -> None:
    """Invalid input would reach the domain."""
    commands = CommandBus()
    commands.use(validate())
    commands.register(Add, _add)
    commands.register(Multiply, _multiply)
    with pytest.raises(InvalidMessageError, match="Add is refused: left is negative"):
        await commands.execute(Add(-1, 2))
    assert await commands.execute(Multiply(-1, 2)) == -2

    def check(message: Any) -> None:
        if message.right == 0:
            raise ValueError("right is zero")

    strict = CommandBus()
    strict.use(validate(check))
    strict.register(Add, _add)
    with pytest.raises(InvalidMessageError, match="right is zero"):
        await strict.execute(Add(1, 0))


async def _add(command: Add) -> int:
    return command.left + command.right


async def _multiply(command: Multiply) -> int:
    return command.left * command.right


async def test_only_what_is_allowed_is_handled() -> None:
    """A sender without permission would be served."""

    async def may(message: Any) -> bool:
        return bool(message.left == 1)

    for allowed in (may, lambda message: message.left == 1):
        commands = CommandBus()
        commands.use(authorise(allowed))
        commands.register(Add, _add)
        assert await commands.execute(Add(1, 2)) == 3
        with pytest.raises(NotAuthorisedError, match="Add is not allowed"):
            await commands.execute(Add(2, 2))


async def test_logging_tells_type_duration_and_outcome_but_no_content(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Operators would not see what fails, or would read secrets in the log."""
    commands = CommandBus()
    commands.use(log_messages())

    @commands.handles(Add)
    async def add(command: Add) -> int:
        if command.right == 424242:
            raise ValueError("secret 424242")
        return 0

    caplog.set_level("INFO", "pabal.cqrs")
    await commands.execute(Add(1, 2))
    with pytest.raises(ValueError, match="secret"):
        await commands.execute(Add(1, 424242))
    handled, failed = caplog.messages
    assert handled.startswith("Add handled in ")
    assert failed.startswith("Add failed after ")
    assert failed.endswith("ValueError")
    assert "424242" not in caplog.text


async def test_a_conflict_is_tried_again_so_often_and_no_more() -> None:
    """Users would see conflicts that a retry resolves; or retries would never end."""
    attempts: list[int] = []
    commands = CommandBus()
    commands.use(retry_conflicts(attempts=3))

    @commands.handles(Add)
    async def add(command: Add, context: MessageContext) -> int:
        attempts.append(context.attempt)
        if len(attempts) <= command.left:
            raise ConcurrencyError(
                aggregate_type="number", aggregate_id="1", expected_version=1, actual_version=2
            )
        return len(attempts)

    assert await commands.execute(Add(2, 0)) == 3
    attempts.clear()
    with pytest.raises(ConcurrencyError):
        await commands.execute(Add(3, 0))
    assert attempts == [1, 2, 3]
    with pytest.raises(UsageError, match="attempts is 0"):
        retry_conflicts(attempts=0)


def test_messages_are_immutable_and_commands_have_an_id_each() -> None:
    """A middleware could change what another one has checked."""
    command = Add(1, 2)
    with pytest.raises(AttributeError):
        command.left = 5  # type: ignore[misc]
    assert Add(1, 2).command_id != command.command_id
    assert CountOf("apples") == CountOf("apples")


async def test_a_check_that_is_async_is_waited_for() -> None:
    """Messages that it refuses would be let through."""

    async def check(message: Add) -> None:
        await asyncio.sleep(0)
        message.validate()

    commands = CommandBus()
    commands.use(validate(check))

    @commands.handles(Add)
    async def add(command: Add) -> int:
        return command.left + command.right

    assert await commands.execute(Add(1, 2)) == 3
    with pytest.raises(InvalidMessageError, match="left is negative"):
        await commands.execute(Add(-1, 2))


async def test_what_is_no_middleware_is_refused_where_it_is_used() -> None:
    """`use(validate)` without brackets would fail every command, with an error about argument counts."""
    commands = CommandBus()
    commands.register(Add, lambda command: command.left)
    for factory in (validate, authorise, log_messages, retry_conflicts):
        with pytest.raises(UsageError, match=rf"if it returns one, write {factory.__name__}\(…\)"):
            commands.use(factory)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"the class Idempotency is not a middleware; .* Idempotency\(…\)"):
        commands.use(Idempotency)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="it is not a function"):
        validate(5)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="it is not a function"):
        authorise(True)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="attempts is '3'; it must be an int"):
        retry_conflicts("3")  # type: ignore[arg-type]
    assert await commands.execute(Add(1, 2)) == 1


async def test_a_middleware_that_is_not_async_is_told() -> None:
    """The error would say that an int cannot be used in an await expression, somewhere in pabal."""
    commands = CommandBus()
    commands.register(Add, lambda command: command.left)

    def plain(message: Any, context: MessageContext, call_next: Any) -> Any:
        return 5

    commands.use(plain)
    with pytest.raises(UsageError, match="plain returned 5, which cannot be awaited; make it an async def"):
        await commands.execute(Add(1, 2))


async def test_a_unit_of_work_that_nobody_provides_is_told_with_who_does() -> None:
    """The error would be that of the application's container, which does not know the class."""
    for commands in (CommandBus(), CommandBus(provide={}.__getitem__)):

        @commands.handles(Add)
        async def add(command: Add, work: UnitOfWork) -> int:
            return 0

        with pytest.raises(DependencyError, match=r"commands.use\(Idempotency\(bus\)\) provides one"):
            await commands.execute(Add(1, 2))
