"""What turns a pure decision into a handler that may be killed at any instant."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from pabal import DeliveryContext, DomainEvent, Envelope, EventBus
from pabal.demo.errors import ImpossiblePriceError, OversoldError
from pabal.ports.storage import EventStorage

S = TypeVar("S")
Decide = Callable[[S, Any], tuple[S, DomainEvent | None]]
"""From the state before an event and the event: the state after it, and what to publish."""


class Component(Generic[S]):
    """Handle the events of each symbol in order, with a state that the log alone determines.

    The state of a symbol before an event is the fold of ``decide`` over its earlier events, so it is stored
    nowhere: after a restart it is folded again from the log. Delivery is at least once, and a crash between
    publishing and the saved watermark has the handler run again; then it finds the same state, decides the
    same, and publishes the same event under the same id, which the log has already and does not repeat.

    The state in memory moves only after the output is in the log, so a failed publish changes nothing.
    """

    def __init__(
        self,
        name: str,
        takes: type[DomainEvent],
        decide: Decide[S],
        initial: S,
        *,
        bus: EventBus,
        storage: EventStorage,
    ) -> None:
        self.name = name
        self.takes = takes
        self._decide = decide
        self._initial = initial
        self._storage = storage
        self._bus = bus
        self._watermark = 0
        self._states: dict[str, tuple[int, S]] = {}
        """By symbol: the state, and the position of the event that it includes last."""
        self._in_step: set[str] = set()
        """Symbols of which this process has handled an event, so that nothing lies between."""

    def resume_from(self, watermark: int) -> None:
        """Expect ``replay`` of what lies up to the watermark."""
        self._watermark = watermark

    def replay(self, envelope: Envelope) -> None:
        """Fold an event from the log that was handled before this process began."""
        if envelope.position <= self._watermark and type(envelope.event) is self.takes:
            self._fold(envelope)

    def _fold(self, envelope: Envelope) -> None:
        symbol = envelope.event.symbol
        _, state = self._states.get(symbol, (0, self._initial))
        self._states[symbol] = (envelope.position, self._after(state, envelope.event))

    def _after(self, state: S, event: Any) -> S:
        try:
            return self._decide(state, event)[0]
        except (ImpossiblePriceError, OversoldError):
            return state  # it was parked: what cannot be handled is no part of the state

    async def handle(self, event: Any, context: DeliveryContext) -> None:
        """Decide on an event and publish what follows from it."""
        assert context.position is not None
        symbol, position = event.symbol, context.position
        if symbol not in self._in_step:
            await self._step_up_to(position, symbol)
        known, state = self._states.get(symbol, (0, self._initial))
        is_late = known >= position
        if is_late:
            state = await self._state_at(position, symbol)
        after, output = self._decide(state, event)
        if output is not None:
            await self._bus.publish(output)
        if not is_late:
            self._states[symbol] = (position, after)

    async def _step_up_to(self, position: int, symbol: str) -> None:
        """Fold what lies between the watermark and the first event of a symbol that is delivered here.

        Above the watermark, events of this symbol may have been finished while another symbol's event held
        the watermark back. They are not delivered again, but they belong to the state.
        """
        async for envelope in self._storage.read(self._watermark, types=[self.takes]):
            if envelope.position >= position:
                break
            if envelope.event.symbol == symbol:
                self._fold(envelope)
        self._in_step.add(symbol)

    async def _state_at(self, position: int, symbol: str) -> S:
        """Return the state before an event that comes late: a dead letter that is tried once more."""
        state = self._initial
        async for envelope in self._storage.read(types=[self.takes]):
            if envelope.position >= position:
                break
            if envelope.event.symbol == symbol:
                state = self._after(state, envelope.event)
        return state
