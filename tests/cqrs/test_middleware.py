"""Middleware wraps handlers: validation, authorisation, logging and retries of conflicts."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pabal.cqrs import (
    CommandBus,
    Idempotency,
    MessageContext,
    authorise,
    log_messages,
    retry_conflicts,
    validate,
)
from pabal.errors import (
    ConcurrencyError,
    InvalidMessageError,
    NotAuthorisedError,
    UsageError,
)
from tests.cqrs.messages import Add, Multiply


async def test_a_middleware_that_does_not_await_call_next_raises_a_usage_error() -> None:
    """The command would not be handled, and its sender would get a coroutine as the result."""
    commands = CommandBus()
    commands.register(Add, lambda command: command.left)

    async def forgetful(message: Any, context: MessageContext, call_next: Any) -> Any:
        return call_next()

    commands.use(forgetful)
    with pytest.raises(UsageError, match="forgetful returned an awaitable, so Add was not handled"):
        await commands.execute(Add(1, 2))


async def test_middleware_wraps_handlers_in_the_order_of_use() -> None:
    """A check could run after what it should guard, or not apply to handlers registered before it."""
    commands = CommandBus()
    seen: list[str] = []

    @commands.handles(Add)
    async def add(command: Add) -> int:
        seen.append("handler")
        return command.left + command.right

    for name in ("outer", "inner"):

        async def wrap(message: Any, context: MessageContext, call_next: Any, name: str = name) -> Any:
            seen.append(name)
            return await call_next() * 10

        commands.use(wrap)
    assert await commands.execute(Add(1, 2)) == 300
    assert seen == ["outer", "inner", "handler"]
    assert len(commands.middleware) == 2


async def test_validate_rejects_an_invalid_message_before_its_handler_runs() -> None:
    """Invalid input would reach the domain."""
    commands = CommandBus()
    commands.use(validate())
    handled: list[Add] = []
    commands.register(Add, lambda command: handled.append(command))
    commands.register(Multiply, _multiply)
    with pytest.raises(InvalidMessageError, match="Add is refused: left is negative"):
        await commands.execute(Add(-1, 2))
    assert handled == []
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


async def test_authorise_rejects_messages_that_are_not_allowed() -> None:
    """A command would be handled for a sender without permission."""

    async def may(message: Any) -> bool:
        return bool(message.left == 1)

    for allowed in (may, lambda message: message.left == 1):
        commands = CommandBus()
        commands.use(authorise(allowed))
        commands.register(Add, _add)
        assert await commands.execute(Add(1, 2)) == 3
        with pytest.raises(NotAuthorisedError, match="Add is not allowed"):
            await commands.execute(Add(2, 2))


async def test_log_messages_logs_type_duration_and_outcome_but_no_content(
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


async def test_retry_conflicts_retries_up_to_the_given_attempts() -> None:
    """Users would see conflicts that a retry resolves, or retries would never end."""
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
    retry_conflicts(attempts=1)


async def test_validate_awaits_an_async_check() -> None:
    """Messages that the check rejects would be let through."""

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


async def test_use_rejects_uncalled_factories_and_factories_reject_bad_options() -> None:
    """`use(validate)` without parentheses would fail every command, with an error about argument counts."""
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


async def test_a_sync_middleware_raises_a_usage_error_that_names_it() -> None:
    """The error would say that an int cannot be used in an await expression, somewhere in pabal."""
    commands = CommandBus()
    commands.register(Add, lambda command: command.left)

    def plain(message: Any, context: MessageContext, call_next: Any) -> Any:
        return 5

    commands.use(plain)
    with pytest.raises(UsageError, match="plain returned 5, which cannot be awaited; make it an async def"):
        await commands.execute(Add(1, 2))
