"""A worked solution of the exercise on event filtering."""

from __future__ import annotations

from collections.abc import Callable

from examples.small_bus.step1_interface import Event, Handler
from examples.small_bus.step2_worker_pool import PooledBus

Condition = Callable[[Event], bool]


class FilteringBus(PooledBus):
    """Deliver to a subscription only what it asked for: its type, subtypes included, and its condition."""

    def subscribe(
        self, event_type: type[Event], handler: Handler, name: str, where: Condition | None = None
    ) -> None:
        """Call ``handler`` with events of a type, or of one derived from it, for which ``where`` holds."""
        super().subscribe(event_type, handler if where is None else self._filtered(handler, where), name)

    def _filtered(self, handler: Handler, where: Condition) -> Handler:
        # A handler around the handler: the condition is asked by the worker, not by the publisher.
        async def filtered(event: Event) -> None:
            try:
                wanted = where(event)
            except Exception as error:  # asked again it would answer the same, so nothing is tried again
                self.given_up.append((event, error))
                return
            if wanted:
                await handler(event)

        return filtered

    def _handlers_for(self, event: Event) -> list[Handler]:
        # The classes of an event, from its own to the most general, so a type gets its subtypes too.
        return [handler for kind in type(event).__mro__ for handler in self._handlers.get(kind, ())]
