"""Errors about limits and about events that were given up."""

from __future__ import annotations

from pabal.errors.base import PabalError


class CapacityError(PabalError):
    """Report that a limit was reached."""


class QueueFullError(CapacityError):
    """Report that the bus is full, with ``backpressure="raise"``. Fields: ``queue_size, max_queue_size``."""

    queue_size: int
    max_queue_size: int
    template = (
        "the bus is full ({queue_size} waiting, limit {max_queue_size}); "
        "publish slower, raise max_queue_size, or use backpressure='wait'"
    )


class DrainTimeoutError(CapacityError, TimeoutError):
    """Report that work remained when ``drain`` timed out. Fields: ``timeout, pending, retrying``."""

    timeout: float
    pending: int
    retrying: int
    template = (
        "not every delivery was finished within {timeout} s (unfinished: {pending}, of these waiting for a "
        "retry: {retrying}; drain(retries=False) does not wait for them); bus.get_statistics() shows where"
    )


class NotRetryableError(PabalError):
    """Raised by a handler to say that retrying cannot help: the event is parked at once.

    >>> def handle(event):
    ...     raise NotRetryableError("the exchange does not list this symbol")
    """


class DeadLetterNotFoundError(PabalError):
    """Report a dead letter that does not exist, or no longer. Field: ``dead_letter_id``."""

    dead_letter_id: int
    template = (
        "there is no dead letter {dead_letter_id}; it was retried or discarded in the meantime; list the "
        "dead letters again"
    )


class SubscriptionNotFoundError(PabalError):
    """Report a name that was never subscribed. Fields: ``name, known`` (the existing names)."""

    name: str
    known: str
    template = "there is no subscription {name!r}; known subscriptions: {known}"
