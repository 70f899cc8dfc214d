"""A worked solution of the exercise on event filtering."""

from __future__ import annotations

from collections.abc import Callable

from examples.small_bus.step1_interface import Event, Handler
from examples.small_bus.step2_worker_pool import PooledBus

Condition = Callable[[Event], bool]


class FilteringBus(PooledBus):
    """Deliver to a subscription only events of its type, including subtypes, that meet its condition."""

    def subscribe(
        self, event_type: type[Event], handler: Handler, name: str, where: Condition | None = None
    ) -> None:
        """Call ``handler`` with events of a type, or a subtype, for which ``where`` is true."""
        super().subscribe(event_type, handler if where is None else self._filtered(handler, where), name)

    def _filtered(self, handler: Handler, where: Condition) -> Handler:
        # Wrap the handler, so that the worker evaluates the condition, not the publisher.
        async def filtered(event: Event) -> None:
            try:
                wanted = where(event)
            except Exception as error:  # it would raise again, so there is no retry
                self.given_up.append((event, error))
                return
            if wanted:
                await handler(event)

        return filtered

    def _handlers_for(self, event: Event) -> list[Handler]:
        # Look up the event's class and all its bases, so that a type also gets its subtypes.
        return [handler for kind in type(event).__mro__ for handler in self._handlers.get(kind, ())]
