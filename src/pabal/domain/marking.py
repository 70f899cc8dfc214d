"""Classes whose methods are marked with the events they take: what aggregates and projections share."""

from __future__ import annotations

import re
from collections.abc import Callable
from inspect import (
    isasyncgen,
    isasyncgenfunction,
    isawaitable,
    iscoroutine,
    iscoroutinefunction,
    isfunction,
    isgenerator,
    isgeneratorfunction,
)
from typing import Any, TypeVar

_M = TypeVar("_M", bound=Callable[..., None])


def mark_with(
    attribute: str, decorator: str, event_classes: tuple[type, ...], refuse: Callable[[str], Exception]
) -> Callable[[_M], _M]:
    """Return a decorator that notes the event classes on a method, under ``attribute``.

    Raises what ``refuse`` makes of a sentence where there is no class, or something that is none.
    """
    for cls in event_classes:
        if not isinstance(cls, type):
            raise refuse(f"{decorator} takes event classes, not {cls!r}; write {decorator}(OrderPlaced)")
    if not event_classes:
        raise refuse(f"{decorator} names no event class; write {decorator}(OrderPlaced)")

    def mark(method: _M) -> _M:
        setattr(method, attribute, event_classes)
        return method

    return mark


def with_overrides(
    cls: type, inherited: dict[type, Callable[..., None]], attribute: str
) -> dict[type, Callable[..., None]]:
    """Return the methods a class inherits by event class, those it overrides replaced by its own.

    One that has a mark of its own stands for what that says, and for nothing else.
    """
    own = {
        name: value
        for name, value in vars(cls).items()
        if isfunction(value) and not hasattr(value, attribute)
    }
    before = {name: getattr(super(cls, cls), name, None) for name in own}
    return {
        event_class: next((own[name] for name, method in before.items() if method is known), known)
        for event_class, known in inherited.items()
    }


def can_be_paused(function: Any) -> bool:
    """Tell whether a function is async or a generator, so that others would run in its middle."""
    return iscoroutinefunction(function) or isasyncgenfunction(function) or isgeneratorfunction(function)


def is_yet_to_run(result: Any) -> bool:
    """Tell whether a call returned a coroutine, a generator or the like, and close it: nobody will run it.

    A function that hides one that can be paused, a decorator's say, returns such.
    """
    if iscoroutine(result) or isgenerator(result):
        result.close()
        return True
    return isawaitable(result) or isasyncgen(result)


def snake_case(name: str) -> str:
    """Return a class name as the durable names of aggregates, projections and processes are written.

    >>> snake_case("OpenOrders")
    'open_orders'
    """
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
