"""``CommandBus`` and ``QueryBus``: one handler for each type of command or query."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, ClassVar, TypeVar, overload

from pabal.cqrs.handling import (
    Handler,
    MessageContext,
    Middleware,
    Provider,
    check_middleware,
    wrap,
)
from pabal.cqrs.messages import Command, Query
from pabal.errors import DuplicateHandlerError, HandlerNotFoundError, InvalidMessageHandlerError, UsageError

R = TypeVar("R")
F = TypeVar("F", bound=Callable[..., Any])


class MessageBus:
    """Find the one handler for a message's type, and call it with its dependencies.

    ``provide`` takes a type and returns an object of it, or an awaitable of one; the lookup function of any
    dependency injection container fits. It is called for each message and each parameter of its handler.
    """

    kind: ClassVar[str] = "bus"

    def __init__(self, *, provide: Provider | None = None) -> None:
        if provide is not None and not callable(provide):
            raise UsageError(f"provide is {provide!r}; pass a function from a type to an object")
        self._provide = provide
        self._middleware: tuple[Middleware, ...] = ()
        self._handlers: dict[type, Handler] = {}
        self._calls: dict[type, Callable[[Any], Awaitable[Any]]] = {}

    @property
    def middleware(self) -> tuple[Middleware, ...]:
        """Return the middleware in use, outermost first."""
        return self._middleware

    def handles(self, message_class: type) -> Callable[[F], F]:
        """Decorate a function to register it for a class of messages; see ``register``."""
        _check_class(message_class)  # now, because @handles without a class would never call ``decorate``

        def decorate(function: F) -> F:
            self.register(message_class, function)
            return function

        return decorate

    def register(self, message_class: type, handler: Callable[..., Any]) -> None:
        """Register ``handler`` for messages of exactly this class.

        Its first parameter is the message. Every other parameter without a default is provided by its
        annotation: the ``MessageContext``, what middleware provides for this message, or else what
        ``provide`` returns. A handler that is not async runs in a thread. Subclasses of the message need
        handlers of their own.

        Raises DuplicateHandlerError, InvalidMessageHandlerError, UsageError if ``message_class`` is not a
        class.
        """
        _check_class(message_class)
        if not callable(handler):
            raise InvalidMessageHandlerError(handler=repr(handler), reason="it cannot be called")
        new_handler = Handler(message_class, handler, self._provide)
        existing = self._handlers.get(message_class)
        if existing is not None:
            raise DuplicateHandlerError(
                message_type=message_class.__qualname__, first=existing.name, second=new_handler.name
            )
        self._handlers[message_class] = new_handler
        self._calls[message_class] = self._build_call(new_handler)

    def use(self, middleware: Middleware) -> None:
        """Put ``async (message, context, call_next)`` around every handler, inside earlier middleware.

        This includes handlers that are already registered. What the middleware returns is the result;
        ``await call_next()`` calls the next layer and may be called more than once. Raises UsageError for
        anything that cannot be called like this, such as ``validate`` instead of ``validate()``.
        """
        check_middleware(middleware)
        self._middleware = (*self._middleware, middleware)
        self._calls = {cls: self._build_call(handler) for cls, handler in self._handlers.items()}

    def message_classes(self) -> tuple[type, ...]:
        """Return the classes that have a handler."""
        return tuple(self._handlers)

    def _build_call(self, handler: Handler) -> Callable[[Any], Awaitable[Any]]:
        direct = handler.direct
        if direct is not None and not self._middleware:
            return direct
        call: Callable[[Any, MessageContext], Awaitable[Any]] = handler
        for layer in reversed(self._middleware):
            call = wrap(layer, call)
        return lambda message: call(message, handler.new_context())

    def _not_found(self, message: Any) -> HandlerNotFoundError | UsageError:
        if isinstance(message, type):
            name = message.__qualname__
            return UsageError(f"the {self.kind} was given the class {name}; pass an instance, {name}(…)")
        return HandlerNotFoundError(bus=self.kind, message_type=type(message).__qualname__)


def _check_class(message_class: object) -> None:
    if not isinstance(message_class, type):
        raise UsageError(f"{message_class!r} is not a class; register a handler for a message class")


class CommandBus(MessageBus):
    """Execute commands: each is handled by its one handler, and its result or exception reaches the caller.

    ``provide`` takes the type of a handler's further parameter and returns an object of it, or an awaitable
    of one. A command bus need not be started or stopped.

    >>> import asyncio
    >>> class Add(Command[int]):
    ...     left: int
    ...     right: int
    >>> commands = CommandBus()
    >>> @commands.handles(Add)
    ... async def add(command: Add) -> int:
    ...     return command.left + command.right
    >>> asyncio.run(commands.execute(Add(1, 2)))
    3
    """

    kind = "command bus"

    @overload
    async def execute(self, command: Command[R]) -> R: ...
    @overload
    async def execute(self, command: object) -> Any: ...
    async def execute(self, command: Any) -> Any:
        """Return what the command's handler returns.

        Raises what the handler or a middleware raises, HandlerNotFoundError if no handler is registered for
        exactly this class, DependencyError for a parameter that cannot be provided, and UsageError if given a
        class instead of a command.
        """
        call = self._calls.get(type(command))
        if call is None:
            raise self._not_found(command)
        return await call(command)


class QueryBus(MessageBus):
    """Answer queries: each is answered by its one handler. ``provide`` works as in ``CommandBus``.

    >>> import asyncio
    >>> class Greeting(Query[str]):
    ...     name: str
    >>> queries = QueryBus()
    >>> @queries.handles(Greeting)
    ... async def greet(query: Greeting) -> str:
    ...     return f"hello {query.name}"
    >>> asyncio.run(queries.ask(Greeting("kim")))
    'hello kim'
    """

    kind = "query bus"

    @overload
    async def ask(self, query: Query[R]) -> R: ...
    @overload
    async def ask(self, query: object) -> Any: ...
    async def ask(self, query: Any) -> Any:
        """Return the handler's answer. Raises what ``CommandBus.execute`` raises."""
        call = self._calls.get(type(query))
        if call is None:
            raise self._not_found(query)
        return await call(query)
