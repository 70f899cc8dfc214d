"""Turn a pure decision function into a handler that may be killed at any instant."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from pabal import DeliveryContext, DomainEvent, Envelope, EventBus
from pabal.demo.errors import ImpossiblePriceError, OversoldError
from pabal.ports.storage import EventStorage

S = TypeVar("S")
Decide = Callable[[S, Any], tuple[S, DomainEvent | None]]
"""Takes the state before an event, and the event; returns the state after it, and an event to publish."""


class Component(Generic[S]):
    """Handle the events of each symbol in order, with a state that is determined by the log alone.

    The state of a symbol before an event is the fold of ``decide`` over its earlier events. It is not stored:
    after a restart it is folded again from the log. Delivery is at least once, so a crash between publishing
    and saving the watermark makes the handler run again. It then finds the same state, decides the same, and
    publishes the same event with the same id, which the log already holds and does not store twice.

    The state in memory changes only after the output is in the log, so a failed publish changes nothing.
    """

    def __init__(
        self,
        name: str,
        event_class: type[DomainEvent],
        decide: Decide[S],
        initial: S,
        *,
        bus: EventBus,
        storage: EventStorage,
    ) -> None:
        self.name = name
        self.event_class = event_class
        self._decide = decide
        self._initial = initial
        self._storage = storage
        self._bus = bus
        self._watermark = 0
        self._states: dict[str, tuple[int, S]] = {}
        """For each symbol: the state, and the position of the last event included in it."""
        self._caught_up: set[str] = set()
        """Symbols of which this process has handled an event, so their state is up to date."""

    def resume_from(self, watermark: int) -> None:
        """Set the watermark up to which ``replay`` will fold events."""
        self._watermark = watermark

    def replay(self, envelope: Envelope) -> None:
        """Fold an event that was handled before this process started."""
        if envelope.position <= self._watermark and type(envelope.event) is self.event_class:
            self._apply(envelope)

    def _apply(self, envelope: Envelope) -> None:
        symbol = envelope.event.symbol
        _, state = self._states.get(symbol, (0, self._initial))
        self._states[symbol] = (envelope.position, self._state_after(state, envelope.event))

    def _state_after(self, state: S, event: Any) -> S:
        try:
            return self._decide(state, event)[0]
        except (ImpossiblePriceError, OversoldError):
            return state  # it was parked: an event that cannot be handled is not part of the state

    async def handle(self, event: Any, context: DeliveryContext) -> None:
        """Decide on an event and publish the result."""
        assert context.position is not None
        symbol, position = event.symbol, context.position
        if symbol not in self._caught_up:
            await self._catch_up(position, symbol)
        last_position, state = self._states.get(symbol, (0, self._initial))
        is_out_of_order = last_position >= position
        if is_out_of_order:
            state = await self._state_at(position, symbol)
        new_state, output = self._decide(state, event)
        if output is not None:
            await self._bus.publish(output)
        if not is_out_of_order:
            self._states[symbol] = (position, new_state)

    async def _catch_up(self, position: int, symbol: str) -> None:
        """Fold the events between the watermark and a symbol's first event delivered to this process.

        Events of this symbol above the watermark may be finished already, if another symbol's event held the
        watermark back. They are not delivered again, but they belong to the state.
        """
        async for envelope in self._storage.read(self._watermark, types=[self.event_class]):
            if envelope.position >= position:
                break
            if envelope.event.symbol == symbol:
                self._apply(envelope)
        self._caught_up.add(symbol)

    async def _state_at(self, position: int, symbol: str) -> S:
        """Return the state before an event delivered out of order, such as a retried dead letter."""
        state = self._initial
        async for envelope in self._storage.read(types=[self.event_class]):
            if envelope.position >= position:
                break
            if envelope.event.symbol == symbol:
                state = self._state_after(state, envelope.event)
        return state
