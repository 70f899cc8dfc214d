"""Middleware for command and query buses: validation, authorisation, logging, retry on conflict."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from inspect import isawaitable
from typing import Any

from pabal.cqrs.handling import CallNext, MessageContext, Middleware
from pabal.errors import ConcurrencyError, InvalidMessageError, NotAuthorisedError, UsageError
from pabal.ports.arguments import at_least_one


def validate(check: Callable[[Any], Any] | None = None) -> Middleware:
    """Reject invalid messages with InvalidMessageError, before they reach their handler.

    ``check(message)`` raises ValueError to explain why a message is invalid; its result is ignored. Without
    ``check``, the message's own ``validate()`` is called, if it has one. Either may be async. Other errors
    are raised unchanged. Raises UsageError for a ``check`` that cannot be called.

    >>> import asyncio
    >>> from pabal.cqrs import Command, CommandBus
    >>> class Withdraw(Command[None]):
    ...     amount: int
    ...     def validate(self) -> None:
    ...         if self.amount <= 0:
    ...             raise ValueError("amount must be positive")
    >>> commands = CommandBus()
    >>> commands.use(validate())
    >>> @commands.handles(Withdraw)
    ... async def withdraw(command: Withdraw) -> None: ...
    >>> asyncio.run(commands.execute(Withdraw(0)))
    Traceback (most recent call last):
        ...
    pabal.errors.cqrs.InvalidMessageError: Withdraw is refused: amount must be positive; correct it and ...
    """
    if check is not None and not callable(check):
        raise UsageError(
            f"validate({check!r:.60}): it is not a function; pass a function of the message, or nothing"
        )

    async def middleware(message: Any, context: MessageContext, call_next: CallNext) -> Any:
        own = getattr(message, "validate", None)
        try:
            checked = check(message) if check is not None else None if own is None else own()
            if isawaitable(checked):
                await checked
        except ValueError as error:
            raise InvalidMessageError(message_type=context.message_type, reason=str(error)) from error
        return await call_next()

    return middleware


def authorise(is_allowed: Callable[[Any], Any]) -> Middleware:
    """Let only messages pass for which ``is_allowed(message)`` is true; else raise NotAuthorisedError.

    It may be async, and finds the caller's identity where the application keeps it: in a field of the
    message, or a context variable. Raises UsageError if ``is_allowed`` cannot be called.

    >>> import asyncio
    >>> from pabal.cqrs import Query, QueryBus
    >>> class Salary(Query[int]):
    ...     asked_by: str
    >>> queries = QueryBus()
    >>> queries.use(authorise(lambda message: message.asked_by == "kim"))
    >>> queries.register(Salary, lambda query: 4000)
    >>> asyncio.run(queries.ask(Salary("kim")))
    4000
    >>> asyncio.run(queries.ask(Salary("lee")))
    Traceback (most recent call last):
        ...
    pabal.errors.cqrs.NotAuthorisedError: ...
    """
    if not callable(is_allowed):
        raise UsageError(
            f"authorise({is_allowed!r:.60}): it is not a function; pass a function of the message"
        )

    async def middleware(message: Any, context: MessageContext, call_next: CallNext) -> Any:
        allowed = is_allowed(message)
        if isawaitable(allowed):
            allowed = await allowed
        if not allowed:
            raise NotAuthorisedError(message_type=context.message_type)
        return await call_next()

    return middleware


def log_messages(logger: str = "pabal.cqrs") -> Middleware:
    """Log one line for each message: its type, how long it took and how it ended; never its content.

    ``logger`` is a name. The level is INFO, or WARNING, with the type of the error, for a message that
    failed. A cancelled message is not logged. ``validate`` shows an example.
    """
    log = logging.getLogger(logger)

    async def middleware(message: Any, context: MessageContext, call_next: CallNext) -> Any:
        began = time.perf_counter()
        try:
            result = await call_next()
        except Exception as error:
            duration_ms = (time.perf_counter() - began) * 1000
            log.warning(
                "%s failed after %.1f ms: %s", context.message_type, duration_ms, type(error).__name__
            )
            raise
        log.info("%s handled in %.1f ms", context.message_type, (time.perf_counter() - began) * 1000)
        return result

    return middleware


def retry_conflicts(attempts: int = 3) -> Middleware:
    """Handle a message again after a ConcurrencyError, up to ``attempts`` times in all.

    It retries at once: nothing was stored, and the handler decides again by the new state. The last
    ConcurrencyError is raised; other errors are not retried. ``use`` it before ``Idempotency``, so that each
    attempt has its own unit of work. Raises UsageError for ``attempts`` below 1.

    >>> import asyncio
    >>> from pabal.cqrs import Command, CommandBus
    >>> class Take(Command[str]):
    ...     seat: str
    >>> commands = CommandBus()
    >>> commands.use(retry_conflicts(attempts=2))
    >>> @commands.handles(Take)
    ... async def take(command: Take, context: MessageContext) -> str:
    ...     if context.attempt == 1:
    ...         raise ConcurrencyError(
    ...             aggregate_type="seat", aggregate_id=command.seat, expected_version=1, actual_version=2
    ...         )
    ...     return f"taken at attempt {context.attempt}"
    >>> asyncio.run(commands.execute(Take("A1")))
    'taken at attempt 2'
    """
    at_least_one("attempts", attempts)

    async def middleware(message: Any, context: MessageContext, call_next: CallNext) -> Any:
        while True:
            try:
                return await call_next()
            except ConcurrencyError:
                if context.attempt >= attempts:
                    raise
                context.attempt += 1
                await asyncio.sleep(0)

    return middleware
