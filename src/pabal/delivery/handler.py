"""Turn whatever a user passes as a handler into one shape: ``async (event, context)``."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from contextvars import copy_context
from typing import Any

from pabal.delivery.context import Call, DeliveryContext
from pabal.domain.annotations import signature_of
from pabal.errors import InvalidHandlerError, SubscriptionError


class Handler:
    """Describe a user's handler: how to call it, and the name it is known by.

    Raises InvalidHandlerError for an object that cannot be called with an event.
    """

    __slots__ = ("function", "is_async", "name", "wants_context")

    def __init__(self, target: Any) -> None:
        function = _callable_of(target)
        self.function: Callable[..., Any] = function
        self.name = _name_of(target, function)
        if is_generator(function):
            raise InvalidHandlerError(
                handler=self.name, reason="it is a generator, so its body would not run; remove its yield"
            )
        self.is_async = is_async(function)
        self.wants_context = _wants_context(function, self.name)

    @property
    def direct(self) -> Callable[[Any], Awaitable[Any]] | None:
        """Return the function itself if the engine can simply await it with the event, else None."""
        return self.function if self.is_async and not self.wants_context else None

    def bind(self, executor: Callable[[], Executor], stopping: Callable[[], bool]) -> Call:
        """Return the handler as ``async (event, context)``; sync functions run in ``executor``'s threads.

        A cancelled call waits for its thread to end, unless ``stopping()`` says that there is no time left.
        """
        function = self.function
        if self.is_async:
            if self.wants_context:
                return function

            async def call_async(event: Any, context: DeliveryContext) -> Any:
                return await function(event)

            return call_async
        wants_context = self.wants_context

        async def call_sync(event: Any, context: DeliveryContext) -> Any:
            arguments = (event, context) if wants_context else (event,)
            loop = asyncio.get_running_loop()
            # The thread sees the caller's context variables, so causation is inherited there too.
            call = functools.partial(copy_context().run, call_in_thread, function, *arguments)
            thread = loop.run_in_executor(executor(), call)
            result = await _wait_despite_cancel(thread, stopping)
            if inspect.isawaitable(result):
                return await result
            return result

        return call_sync


def call_in_thread(function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """Call a function whose result goes into a future; raise RuntimeError if it raises StopIteration.

    An asyncio future refuses StopIteration, so the task that waits for the thread would wait for ever.
    """
    try:
        return function(*arguments, **named)
    except StopIteration as error:
        raise RuntimeError("the handler raised StopIteration") from error


def plain_result(option: str, answer: Any) -> Any:
    """Return the answer of a plain function; refuse an awaitable, which is always true.

    Raises SubscriptionError.
    """
    if hasattr(answer, "__await__"):
        if asyncio.iscoroutine(answer):
            answer.close()  # otherwise Python would warn, far from here, that it was never awaited
        raise SubscriptionError(
            f"{option} returned an awaitable; make it a plain function that returns its answer"
        )
    return answer


async def _wait_despite_cancel(future: asyncio.Future[Any], stopping: Callable[[], bool]) -> Any:
    """Wait for a thread to end even if cancelled: its event must not be handled twice at once."""
    cancelled: asyncio.CancelledError | None = None
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError as error:
            if stopping():
                raise
            cancelled = error
    if cancelled is not None:
        # Raising the thread's own exception would hide that the wait was cancelled.
        future.exception()
        raise cancelled
    return future.result()


def _callable_of(target: Any) -> Callable[..., Any]:
    if inspect.isclass(target):
        raise InvalidHandlerError(handler=target.__qualname__, reason="it is a class, pass an instance")
    if not inspect.isroutine(target) and not isinstance(target, functools.partial):
        # An object that makes up any attribute on request, such as a mock or a proxy, is called itself.
        method = getattr(target, "handle", None) if "handle" in dir(target) or not callable(target) else None
        if callable(method):
            return method  # type: ignore[no-any-return]
    if not callable(target):
        raise InvalidHandlerError(handler=repr(target), reason="it is not callable")
    return target  # type: ignore[no-any-return]


def is_generator(function: Callable[..., Any]) -> bool:
    """Return whether calling a function only makes a generator, without running any of its body."""
    inner = _unwrap(function)
    return any(
        inspect.isgeneratorfunction(one) or inspect.isasyncgenfunction(one)
        for one in (inner, getattr(inner, "__call__", None))  # noqa: B004 - the method itself is asked for
    )


def _unwrap(function: Any) -> Any:
    while isinstance(function, functools.partial):
        function = function.func
    return function


def is_async(function: Callable[..., Any]) -> bool:
    """Return whether calling a function, or a callable object, makes a coroutine."""
    inner = _unwrap(function)
    return inspect.iscoroutinefunction(inner) or inspect.iscoroutinefunction(
        getattr(inner, "__call__", None)  # noqa: B004 - the method itself is asked for
    )


def _name_of(target: Any, function: Callable[..., Any]) -> str:
    inner = _unwrap(function)
    if not hasattr(inner, "__qualname__"):
        inner = type(inner)
    if inspect.ismethod(inner):
        # An inherited method is named after the class of its object; otherwise two objects would share a
        # name.
        return f"{type(inner.__self__).__module__}:{type(inner.__self__).__qualname__}.{inner.__name__}"
    return f"{inner.__module__}:{inner.__qualname__}"


def _wants_context(function: Callable[..., Any], name: str) -> bool:
    """Return whether a second parameter is declared; refuse a function that cannot take an event."""
    try:
        parameters = list(signature_of(function).parameters.values())
    except (TypeError, ValueError):
        return False  # some built-ins have no signature; they get only the event
    kinds = inspect.Parameter
    positional = [p for p in parameters if p.kind in (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD)]
    variadic = any(p.kind is kinds.VAR_POSITIONAL for p in parameters)
    if not positional and not variadic:
        raise InvalidHandlerError(handler=name, reason="it takes no event")
    needed = [p.name for p in positional[2:] if p.default is kinds.empty]
    needed += [p.name for p in parameters if p.kind is kinds.KEYWORD_ONLY and p.default is kinds.empty]
    if needed:
        raise InvalidHandlerError(handler=name, reason=f"it also needs {', '.join(needed)}")
    # A second parameter with a default is for the function's own use (``lambda e, log=log: …``), unless
    # annotated.
    return len(positional) > 1 and (
        positional[1].default is kinds.empty or "DeliveryContext" in str(positional[1].annotation)
    )
