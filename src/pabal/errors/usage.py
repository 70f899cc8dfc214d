"""Errors of the calling code, which has to be changed."""

from __future__ import annotations

from typing import Any

from pabal.errors.base import PabalError


class UsageError(PabalError):
    """Report that the calling code is wrong; retrying cannot help."""


class EventDefinitionError(UsageError):
    """Report an event class that cannot be registered."""


class DuplicateEventTypeError(EventDefinitionError):
    """Report two classes with the same event type name. Fields: ``event_type, first, second, same_file``.

    ``same_file`` is True if they are one class, whose file is run as a program and also imported.
    """

    event_type: str
    first: str
    second: str
    same_file: bool
    template = "event type {event_type!r} is taken by {first}; give {second} an event_type of its own"
    run_and_imported = (
        "event type {event_type!r} is defined twice, as {first} and as {second}: their file is run and also "
        "imported; move the class into a module that is only imported"
    )

    def __init__(self, detail: str = "", /, **fields: Any) -> None:
        if fields.setdefault("same_file", False):
            self.template = self.run_and_imported
        super().__init__(detail, **fields)


class UnsupportedFieldError(EventDefinitionError):
    """Report a field whose type cannot be stored and read back. Fields: ``event_class, field, reason``."""

    event_class: str
    field: str
    reason: str
    template = (
        "{event_class}.{field} cannot be stored: {reason}; use a type that survives JSON "
        "(str, int, float, bool, Decimal, datetime, UUID, Enum, tuple, a frozen struct or dataclass …)"
    )


class UpcasterError(EventDefinitionError):
    """Report an upcaster that exists already or is invalid. Fields: ``event_type, from_version``."""

    event_type: str
    from_version: int
    template = "upcaster for {event_type!r} from version {from_version}: {detail}"


class SubscriptionError(UsageError):
    """Report options of ``subscribe`` that are invalid or contradict each other."""


class PatternMatchesNothingWarning(UserWarning):
    """Warn that a pattern matches no event type registered so far, because of a typo or a missing import."""


class InvalidHandlerError(SubscriptionError):
    """Report a handler that cannot be called with an event. Fields: ``handler, reason``."""

    handler: str
    reason: str
    template = (
        "{handler} cannot handle events: {reason}; pass a function of one parameter (the event), "
        "of two (the event and the DeliveryContext), or an object with handle(event)"
    )


class DuplicateSubscriptionError(SubscriptionError):
    """Report a second subscription with the same durable name. Field: ``name``."""

    name: str
    template = (
        "a subscription named {name!r} already exists on this bus; pass name=… to give this one another "
        "name, or subscribe once to a tuple of event classes"
    )


class BusNotRunningError(UsageError):
    """Report a call that needs a running bus. Fields: ``action, state``."""

    action: str
    state: str
    template = "cannot {action}: the bus is {state}; use 'async with bus:' or await bus.start() first"


class WrongLoopError(UsageError):
    """Report a call from a thread or event loop that the bus does not belong to. Field: ``action``."""

    action: str
    template = (
        "cannot {action} from here: the bus belongs to the event loop that started it; "
        "from any other thread or loop use bus.publish_threadsafe(event), "
        "or asyncio.run_coroutine_threadsafe(..., loop) for other calls"
    )


class InsideHandlerError(UsageError):
    """Report a call inside a handler that would wait for this handler. Field: ``action``."""

    action: str
    template = (
        "cannot {action} inside a handler: it would wait for the event being handled; "
        "let the handler return first, or start a task that does it after the handler has returned"
    )


class MissingExtraError(UsageError, ImportError):
    """Report an optional part that is not installed. Fields: ``feature, extra``."""

    feature: str
    extra: str
    template = '{feature} needs an optional dependency: pip install "pabal[{extra}]"'
