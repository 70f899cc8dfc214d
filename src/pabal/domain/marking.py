"""Methods marked with the event classes they take, as in aggregates and projections."""

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
    """Return a decorator that stores the event classes on a method, in ``attribute``.

    Without any class, or with something that is not a class, it raises the error that ``refuse`` makes of a
    text.
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
    """Return the methods a class inherits, by event class, replaced by those it overrides.

    An overriding method with a mark of its own counts only for the classes in that mark.
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
    """Return whether a function is async or a generator, so that other code can run in the middle of it."""
    return iscoroutinefunction(function) or isasyncgenfunction(function) or isgeneratorfunction(function)


def is_yet_to_run(result: Any) -> bool:
    """Return whether a call returned something that has yet to run, such as a coroutine, and close it.

    A decorator can hide an async function behind a plain one, which then returns a coroutine.
    """
    if iscoroutine(result) or isgenerator(result):
        result.close()
        return True
    return isawaitable(result) or isasyncgen(result)


def snake_case(name: str) -> str:
    """Return a class name in snake case, as in the durable names of aggregates, projections and processes.

    >>> snake_case("OpenOrders")
    'open_orders'
    """
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
