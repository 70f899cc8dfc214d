"""One registered handler: the message it takes, the dependencies it needs, and how to call it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from inspect import Parameter, isawaitable, iscoroutinefunction, unwrap
from types import CoroutineType, SimpleNamespace
from typing import Any, NoReturn, get_type_hints

import msgspec

from pabal.delivery.handler import call_in_thread, is_generator
from pabal.domain.annotations import annotations_of, signature_of
from pabal.errors import DependencyError, InvalidMessageHandlerError, UsageError
from pabal.eventsourcing import UnitOfWork

_IDEMPOTENCY_HINT = "commands.use(Idempotency(bus)) provides one, to messages that have a command_id"
Provider = Callable[[Any], Any]
"""Returns an object of the given type; may be an async function."""
CallNext = Callable[[], Awaitable[Any]]
Middleware = Callable[[Any, "MessageContext", CallNext], Awaitable[Any]]
"""``async (message, context, call_next)`` around a handler; its return value is the result."""


class MessageContext(msgspec.Struct, gc=True):
    """Describe how a message is being handled, for middleware and for handlers that ask for it by type.

    ``message_type`` is the class's qualified name, ``handler`` is ``module:qualname``, and ``returns`` is the
    handler's return annotation. ``attempt`` counts from 1. ``provided`` maps types to the objects middleware
    provides for this one message; they take precedence over the bus's ``provide``.
    """

    message_type: str
    handler: str
    returns: Any
    attempt: int = 1
    provided: dict[Any, Any] = msgspec.field(default_factory=dict)


class Handler:
    """Hold a handler function, and call it with the dependencies it needs."""

    __slots__ = ("_dependencies", "_is_async", "_provide", "function", "message_type", "name", "returns")

    def __init__(self, message_class: type, function: Any, provide: Provider | None) -> None:
        self.name = _qualified_name(function)
        self.message_type = message_class.__qualname__
        self.function = function
        self._is_async = iscoroutinefunction(function) or iscoroutinefunction(
            getattr(function, "__call__", None)  # noqa: B004 - an object whose __call__ is async
        )
        if is_generator(function):
            self._refuse("it is a generator, so its body would not run; remove its yield")
        self._provide = provide
        self._dependencies, self.returns = self._read_signature()

    def _read_signature(self) -> tuple[tuple[tuple[str, Any], ...], Any]:
        try:
            parameters = list(signature_of(self.function).parameters.values())
        except (TypeError, ValueError) as error:
            self._refuse(f"its signature cannot be read ({error})", error)
        if not parameters or parameters[0].kind not in (
            Parameter.POSITIONAL_ONLY,
            Parameter.POSITIONAL_OR_KEYWORD,
        ):
            self._refuse("it takes no message")
        dependencies: list[tuple[str, Any]] = []
        for parameter in parameters[1:]:
            if parameter.default is not Parameter.empty:
                continue
            if parameter.kind not in (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY):
                self._refuse(f"nothing can be provided for {parameter}")
            if parameter.annotation is Parameter.empty:
                self._refuse(f"parameter {parameter.name} has no annotation")
            try:
                dependencies.append((parameter.name, self._resolve_annotation(parameter.name)))
            except NameError as error:
                self._refuse(f"the annotation of {parameter.name} names something unknown ({error})", error)
        try:
            returns = self._resolve_annotation("return")
        except NameError:
            returns = Any
        return tuple(dependencies), returns

    def _resolve_annotation(self, name: str) -> Any:
        """Resolve one annotation by itself: others may use names visible only inside the function."""
        named = self.function
        while isinstance(named, partial):
            named = named.func
        if not _is_named(named):
            named = type(named).__call__
        one = SimpleNamespace(__annotations__={name: annotations_of(named).get(name, Any)})
        return get_type_hints(one, globalns=getattr(unwrap(named), "__globals__", None))[name]

    def _refuse(self, reason: str, cause: Exception | None = None) -> NoReturn:
        raise InvalidMessageHandlerError(handler=self.name, reason=reason) from cause

    @property
    def direct(self) -> Callable[[Any], Awaitable[Any]] | None:
        """Return the function itself if it can be called with the message alone, else None."""
        return self.function if self._is_async and not self._dependencies else None

    def new_context(self) -> MessageContext:
        """Return a fresh context for one message."""
        return MessageContext(self.message_type, self.name, self.returns)

    async def __call__(self, message: Any, context: MessageContext) -> Any:
        """Call the function, in a thread if it is not async. Raises DependencyError."""
        arguments = {
            name: await self._resolve(name, annotation, context) for name, annotation in self._dependencies
        }
        if self._is_async:
            return await self.function(message, **arguments)
        result = await asyncio.to_thread(call_in_thread, self.function, message, **arguments)
        return await result if isawaitable(result) else result

    async def _resolve(self, name: str, annotation: Any, context: MessageContext) -> Any:
        if annotation is MessageContext:
            return context
        if annotation in context.provided:
            return context.provided[annotation]
        fail = partial(DependencyError, handler=self.name, parameter=name, wanted=_name_of(annotation))
        hint = _IDEMPOTENCY_HINT if annotation is UnitOfWork else ""
        if self._provide is None:
            without = "the bus has no provider; pass provide=, a function from a type to an object"
            raise fail(reason=hint or without)
        try:
            found = self._provide(annotation)
            return await found if isawaitable(found) else found
        except Exception as error:
            raise fail(reason=f"the provider raised {error!r}{hint and '; '}{hint}") from error


def wrap(layer: Middleware, inner: Callable[[Any, MessageContext], Awaitable[Any]]) -> Any:
    """Wrap one layer of middleware around a call."""

    async def run(message: Any, context: MessageContext) -> Any:
        awaitable = layer(message, context, lambda: inner(message, context))
        if type(awaitable) is not CoroutineType and not isawaitable(awaitable):
            raise UsageError(
                f"the middleware {_qualified_name(layer)} returned {awaitable!r:.60}, which cannot "
                "be awaited; make it an async def"
            )
        result = await awaitable
        if type(result) is CoroutineType:
            result.close()
            raise UsageError(
                f"the middleware {_qualified_name(layer)} returned an awaitable, so {context.message_type} "
                "was not handled; write return await call_next()"
            )
        return result

    return run


def check_middleware(layer: Any) -> None:
    """Raise UsageError for anything that cannot be called with a message, its context and the next call."""
    if not callable(layer):
        raise UsageError(f"{layer!r} is not a middleware; pass async (message, context, call_next)")
    name = layer.__qualname__ if _is_named(layer) else repr(layer)
    if isinstance(layer, type):
        raise UsageError(f"the class {name} is not a middleware; pass an instance, {name}(…)")
    try:
        signature_of(layer).bind(None, None, None)
    except TypeError as error:
        raise UsageError(
            f"{name} is not a middleware, because it does not take (message, context, call_next): {error}; "
            f"if it returns one, write {name}(…)"
        ) from error
    except ValueError:
        pass  # implemented in C, without a readable signature


def _is_named(function: Any) -> bool:
    return hasattr(function, "__qualname__")


def _qualified_name(function: Any) -> str:
    return f"{function.__module__}:{function.__qualname__}" if _is_named(function) else repr(function)


def _name_of(wanted: Any) -> str:
    is_plain = isinstance(wanted, type) and not hasattr(wanted, "__origin__")
    return wanted.__qualname__ if is_plain else str(wanted)
