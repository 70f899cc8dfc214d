"""A subscription: the options of ``subscribe``, checked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NoReturn

import msgspec

from pabal.delivery.handler import Handler, is_async, plain_result
from pabal.delivery.matching import EventMatcher
from pabal.delivery.retry import DEFAULT_RETRY, RetryPolicy
from pabal.delivery.tracebacks import storable
from pabal.errors import SubscriptionError
from pabal.ports.arguments import checked_start
from pabal.ports.storage import Start

OnExhausted = Literal["park", "park_key", "stop"]

BY_AGGREGATE: Literal["aggregate"] = "aggregate"
"""The default ordering: events of the same aggregate in publish order."""

Ordering = Callable[[Any], Any] | Literal["aggregate"] | None
UNORDERED = object()
"""The key of deliveries without an order."""


class Subscription(msgspec.Struct, frozen=True, eq=False):
    """Hold a subscription's identity and options; ``bus.subscribe`` returns it, ``bus.unsubscribe`` takes it.

    ``id`` is unique within the process; ``name`` is the durable identity. Subscriptions are compared by
    object identity.
    """

    id: str
    name: str
    matcher: EventMatcher
    handler: Handler
    priority: int
    retry: RetryPolicy
    timeout: float | None
    where: Callable[[Any], bool] | None
    ordering: Ordering
    on_exhausted: OnExhausted
    start: Start
    batch: int | None

    @property
    def is_one_lane(self) -> bool:
        """Return whether all events go into one lane, as batches in publish order do."""
        return self.batch is not None and self.ordering == BY_AGGREGATE

    def key_of(self, body: Any) -> Any:
        """Return the key that the ordering function gives an event; UNORDERED without a function or key.

        Raises what the function raises, but as an Exception (see ``raise_as_failure``).
        """
        if not callable(self.ordering):
            return UNORDERED
        try:
            key = plain_result("ordering", self.ordering(body))
        except BaseException as error:
            raise_as_failure("ordering", error)
        return UNORDERED if key is None else key


def raise_as_failure(what: str, error: BaseException) -> NoReturn:
    """Raise the error of a user's function as an Exception, so that it cannot end a worker or stop routing.

    A CancelledError, too, is only a failure here: a plain function cannot be cancelled. KeyboardInterrupt and
    SystemExit, which end the process, are raised unchanged.
    """
    if isinstance(error, (Exception, KeyboardInterrupt, SystemExit)):
        raise error
    raise SubscriptionError(f"{what} raised {error!r}; it must return a key or None") from error


def make_subscription(
    identity: str,
    event_type: Any,
    handler: Any,
    *,
    name: str | None,
    priority: int,
    retry: RetryPolicy | None,
    retry_count: int | None,
    timeout: float | None,
    where: Callable[[Any], bool] | None,
    ordering: Ordering,
    on_exhausted: OnExhausted,
    start: Any,
    batch: int | None,
) -> Subscription:
    """Check the options of ``subscribe``. Raises SubscriptionError or its subclass InvalidHandlerError."""
    checked = Handler(handler)
    if retry is not None and retry_count is not None:
        raise SubscriptionError("give retry or retry_count, not both")
    if retry is not None and not isinstance(retry, RetryPolicy):
        raise SubscriptionError(f"retry is {retry!r}; it must be a RetryPolicy; a number is retry_count")
    if retry_count is not None:
        if not isinstance(retry_count, int) or retry_count < 0:
            raise SubscriptionError(f"retry_count is {retry_count!r}; it must be an int of at least 0")
        retry = RetryPolicy(max_attempts=retry_count + 1)
    if isinstance(priority, bool) or not isinstance(priority, int):
        raise SubscriptionError(f"priority is {priority!r}; it must be an int, lower goes first")
    if timeout is not None and not (isinstance(timeout, (int, float)) and timeout > 0):
        raise SubscriptionError(f"timeout is {timeout!r}; it must be a positive number of seconds")
    if where is not None and not _is_plain(where):
        raise SubscriptionError(f"where is {where!r}; it must be a plain function of the event")
    if ordering is not None and ordering != BY_AGGREGATE and not _is_plain(ordering):
        raise SubscriptionError(f"ordering is {ordering!r}; it must be a plain function of the event or None")
    if on_exhausted not in ("park", "park_key", "stop"):
        raise SubscriptionError(f"on_exhausted is {on_exhausted!r}; it must be 'park', 'park_key' or 'stop'")
    if batch is not None and (isinstance(batch, bool) or not isinstance(batch, int) or batch < 1):
        raise SubscriptionError(f"batch is {batch!r}; it must be an int of at least 1")
    if batch is not None and on_exhausted == "park_key":
        raise SubscriptionError("a batch mixes keys, so on_exhausted='park_key' does not go with batch=…")
    return Subscription(
        id=identity,
        name=_checked_name(checked.name if name is None else name),
        matcher=EventMatcher(event_type),
        handler=checked,
        priority=priority,
        retry=retry or DEFAULT_RETRY,
        timeout=timeout,
        where=where,
        ordering=ordering,
        on_exhausted=on_exhausted,
        start=checked_start(start),
        batch=batch,
    )


def _is_plain(function: Any) -> bool:
    return callable(function) and not is_async(function)


def _checked_name(name: str) -> str:
    if not isinstance(name, str) or not name.strip() or len(name) > 200:
        raise SubscriptionError(f"name is {name!r}; it must be text of 1 to 200 characters")
    if storable(name) != name:
        raise SubscriptionError(f"name is {name!r}; it contains a lone surrogate, which cannot be stored")
    return name


def key_text(key: Any) -> str:
    """Return an ordering key as the text that storages keep for it."""
    try:
        if isinstance(key, str):
            text = key
        elif isinstance(key, tuple):
            text = "/".join("" if part is None else str(part) for part in key)
        else:
            text = repr(key)
    except Exception:  # raised by a user's ``__repr__``, or the ``__str__`` of a part
        text = object.__repr__(key)
    return storable(text)
