"""``Decider``: an aggregate as two pure functions."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar, get_type_hints

from pabal.domain.aggregate import Aggregate

C = TypeVar("C")
S = TypeVar("S")
E = TypeVar("E")


@dataclass(frozen=True)
class Decider(Generic[C, S, E]):
    """Join ``decide(command, state) -> events`` and ``evolve(state, event) -> state``.

    Both are pure: ``decide`` raises if the command breaks a rule, ``evolve`` returns a new state and
    never raises. ``initial`` is the state before any event, and should be immutable. Snapshots take the type
    of the state from the annotation of ``evolve``, or else from ``initial``; raise ``snapshot_version``
    when its meaning changes.

    >>> counter = Decider("counter", 0, decide=lambda by, n: [by] if n + by <= 3 else [],
    ...                   evolve=lambda n, by: n + by)
    >>> counter.state_of([1, 2])
    3
    """

    aggregate_type: str
    initial: S
    decide: Callable[[C, S], Iterable[E]]
    evolve: Callable[[S, E], S]
    snapshot_version: int = 1

    def begin(self) -> S:
        """Return the state before any event; a copy if it is mutable, since ``evolve`` may change it."""
        return deepcopy(self.initial) if type(self.initial).__hash__ is None else self.initial

    def state_of(self, events: Iterable[E]) -> S:
        """Return the state that follows from these events."""
        state = self.begin()
        for event in events:
            state = self.evolve(state, event)
        return state


class DecidedAggregate(Aggregate):
    """The aggregate that a repository of a ``Decider`` loads: its rules are the decider's.

    ``state`` is the last result of the decider's ``evolve``.
    """

    decider: ClassVar[Decider[Any, Any, Any]]

    def __init__(self, aggregate_id: str) -> None:
        super().__init__(aggregate_id)
        self.state: Any = self.decider.begin()

    def handle(self, command: Any) -> tuple[Any, ...]:
        """Let the decider decide the command, record the events and return them."""
        events = tuple(self.decider.decide(command, self.state))
        for event in events:
            self.record(event)
        return events

    def apply(self, event: Any) -> None:
        """Replace the state by the result of the decider's ``evolve``."""
        self.state = self.decider.evolve(self.state, event)


def aggregate_of(decider: Decider[Any, Any, Any]) -> type[DecidedAggregate]:
    """Return an aggregate class that decides and evolves by the decider's functions."""
    names = {
        "decider": decider,
        "aggregate_type": decider.aggregate_type,
        "snapshot_version": decider.snapshot_version,
        "__annotations__": {"state": _state_type(decider)},
        "__module__": __name__,
    }
    return type(f"Decided_{decider.aggregate_type}", (DecidedAggregate,), names)


def _state_type(decider: Decider[Any, Any, Any]) -> Any:
    plain = type(decider.initial)
    try:
        return get_type_hints(decider.evolve).get("return", plain)
    except (NameError, TypeError):
        return plain
