"""Which events a subscription wants: those of classes and their subclasses, or of matching type names."""

from __future__ import annotations

import re
from fnmatch import translate
from typing import Any

from pabal.domain.event import DomainEvent
from pabal.domain.registry import registry
from pabal.errors import SubscriptionError, UnregisteredEventError


class EventMatcher:
    """Match events by class, and rows whose class is unknown by type name.

    ``selector`` is a class, a tuple of classes, or a pattern on type names such as ``"order.*"`` (shell
    style: ``*``, ``?``, ``[…]``). Raises SubscriptionError for anything else.
    """

    __slots__ = ("_classes", "_pattern", "selector")

    def __init__(self, selector: Any) -> None:
        self.selector = selector
        self._classes: tuple[type, ...] = ()
        self._pattern: re.Pattern[str] | None = None
        if isinstance(selector, str):
            if not selector:
                raise SubscriptionError("an empty pattern matches nothing; use '*' for every event")
            self._pattern = re.compile(translate(selector))
            return
        classes = selector if isinstance(selector, tuple) else (selector,)
        for cls in classes:
            if not isinstance(cls, type):
                raise SubscriptionError(
                    f"cannot subscribe to {cls!r}: pass an event class, a tuple of event classes, "
                    "or a pattern on the type name such as 'order.*'"
                )
            if not issubclass(cls, DomainEvent):
                try:
                    registry.schema_of(cls)
                except UnregisteredEventError as error:
                    raise SubscriptionError(f"cannot subscribe to {cls.__qualname__}: {error}") from error
        if not classes:
            raise SubscriptionError("cannot subscribe to an empty tuple of event classes")
        self._classes = classes

    @property
    def only_domain_events(self) -> bool:
        """Return whether every match is a DomainEvent itself, with no body to unwrap."""
        return bool(self._classes) and all(issubclass(cls, DomainEvent) for cls in self._classes)

    @property
    def is_pattern(self) -> bool:
        """Return whether the selector is a pattern on type names."""
        return self._pattern is not None

    def matches_class(self, cls: type) -> bool:
        """Return whether events of this registered class are wanted."""
        if self._pattern is not None:
            return bool(self._pattern.match(registry.schema_of(cls).event_type))
        return issubclass(cls, self._classes)

    def matches_name(self, event_type: str) -> bool:
        """Return whether rows of this type name are wanted."""
        cls = registry.class_named(event_type)
        if cls is not None:
            return self.matches_class(cls)
        return self._pattern is not None and bool(self._pattern.match(event_type))

    def matches_any_known(self) -> bool:
        """Return whether any class registered so far is wanted."""
        return any(self.matches_class(cls) for _, cls in registry.names())
