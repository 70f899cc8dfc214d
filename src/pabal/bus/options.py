"""The options of ``subscribe`` as type checkers see them, and the handlers that fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, Literal, Protocol, TypedDict, TypeVar

from pabal.delivery.context import DeliveryContext
from pabal.delivery.retry import RetryPolicy
from pabal.delivery.subscription import OnExhausted
from pabal.domain.envelope import Receipt
from pabal.ports.storage import Start

E = TypeVar("E")
F = TypeVar("F")
_Taken = TypeVar("_Taken", contravariant=True)


class HandlerObject(Protocol[_Taken]):
    """An object with ``handle(event)`` or ``handle(event, context)``."""

    @property
    def handle(self) -> Callable[[_Taken], Any] | Callable[[_Taken, DeliveryContext], Any]:
        """Handle what the subscription delivers."""
        ...


Handler = Callable[[E], Any] | Callable[[E, DeliveryContext], Any] | HandlerObject[E]
"""A handler of events of a class: a function, async or not, or an object with ``handle``."""


class _NoEvent:
    """A type that no argument has."""


Kind = type[E] | _NoEvent
"""An event class, which may be abstract: in a union, mypy does not require that it can be instantiated."""

SeveralTypes = tuple[type[Any], ...] | str
"""Several classes, or a pattern on type names: a type checker cannot tell what their events share."""


class CommonOptions(TypedDict, Generic[E], total=False):
    """The options of ``subscribe`` that are the same for single events and for batches."""

    name: str | None
    priority: int
    retry: RetryPolicy | None
    retry_count: int | None
    timeout: float | None
    where: Callable[[E], bool] | None
    ordering: Callable[[E], Any] | Literal["aggregate"] | None
    on_exhausted: OnExhausted
    start: Start


class SubscribeOptions(CommonOptions[E], total=False):
    """All options of ``subscribe``."""

    batch: int | None


class WaitOptions(TypedDict, Generic[E], total=False):
    """The options of ``wait_for``."""

    where: Callable[[E], bool] | None
    timeout: float | None
    since: Receipt | None
