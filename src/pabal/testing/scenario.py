"""``given(...).when(...).then(...)``: test an aggregate, a decider or a projection in one expression."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from inspect import isawaitable, iscoroutine
from typing import Any, overload

from pabal.cqrs import ProcessManager
from pabal.domain.aggregate import Aggregate, refuse_dataclass
from pabal.domain.decider import Decider
from pabal.errors import UsageError
from pabal.eventsourcing import InMemoryProjection, Projection
from pabal.testing.difference import compare, refuse_classes, refuse_lists
from pabal.testing.process_scenario import ProcessScenario

Subject = type[Aggregate] | Decider[Any, Any, Any] | type[Projection]


class Scenario:
    """Test an aggregate, decider or projection: past events, a command, and the events it records.

    ``given`` makes one. It needs no test framework: a mismatch raises AssertionError with a line-by-line
    difference. After a ``then``, continue with another ``when``; each ``then`` checks only the ``when``
    before it. Events are compared by type and payload.

    >>> from pabal import DomainEvent
    >>> from pabal.domain import applies
    >>> class SeatTaken(DomainEvent):
    ...     aggregate_type = "seat"
    ...     number: str
    ...     guest: str
    ...     @property
    ...     def aggregate_id(self) -> str:
    ...         return self.number
    >>> class Seat(Aggregate):
    ...     guest: str | None = None
    ...     def take(self, guest: str) -> None:
    ...         if self.guest is not None:
    ...             raise ValueError(f"taken by {self.guest}")
    ...         self.record(SeatTaken(self.id, guest))
    ...     @applies(SeatTaken)
    ...     def _taken(self, event: SeatTaken) -> None:
    ...         self.guest = event.guest
    >>> _ = (
    ...     given(Seat, aggregate_id="A1")
    ...     .when(lambda seat: seat.take("kim")).then(SeatTaken("A1", "kim")).then_state(guest="kim")
    ...     .when(lambda seat: seat.take("lee")).then_raises(ValueError, "taken by kim")
    ... )
    """

    def __init__(self, subject: Subject, events: Iterable[Any], aggregate_id: str) -> None:
        self._subject = subject
        self._raised: BaseException | None = None
        self._recorded: list[Any] = []
        if isinstance(subject, Decider):
            self._state: Any = subject.state_of(events)
        elif issubclass(subject, Projection):
            self._state = InMemoryProjection(subject, events)
        else:
            refuse_dataclass(subject)
            self._state = subject(aggregate_id).replay(events)

    def when(self, command: Callable[[Any], Any] | object) -> Scenario:
        """Call ``command(aggregate)``, or let a decider decide on the command.

        If it raises, the error is kept for ``then_raises``; any other method then fails. Raises UsageError
        for a projection, which only has rows to check, and for anything but a plain function.
        """
        self._refuse_projection()
        if isinstance(self._state, Aggregate) and not callable(command):
            raise UsageError(
                f"when() was given {command!r:.60}; pass a function of the "
                "aggregate, such as when(lambda order: order.fill(4))"
            )
        self._expect_no_error()
        pending_before = len(self._state.pending) if isinstance(self._state, Aggregate) else 0
        self._recorded = []
        result: Any = None
        try:
            if isinstance(self._subject, Decider):
                self._recorded = list(self._subject.decide(command, self._state))
                for event in self._recorded:
                    self._state = self._subject.evolve(self._state, event)
            else:
                change: Any = command
                result = change(self._state)
        except Exception as error:
            self._raised = error
        _refuse_awaitable(command, result)
        if isinstance(self._state, Aggregate):
            self._recorded = list(self._state.pending[pending_before:])
        return self

    def then(self, *events: Any) -> Scenario:
        """Expect exactly these events, in order; ``then()`` expects none."""
        self._refuse_projection()
        self._expect_no_error()
        if list(events) != self._recorded:
            refuse_classes("then", events)
            if not isinstance(self._subject, Decider):
                refuse_lists("then", events)
            raise AssertionError("different events were recorded:\n" + _difference(events, self._recorded))
        return self

    def then_raises(self, error: type[BaseException], match: str = "") -> Scenario:
        """Expect an error of this class whose message contains ``match``, and no recorded events."""
        if not isinstance(error, type):
            raise UsageError(
                f"then_raises() was given {error!r}; pass one exception class, and text that its message "
                "contains"
            )
        self._refuse_projection()
        if self._raised is None:
            raise AssertionError(
                f"{error.__name__} was expected, but nothing was raised; recorded events:\n"
                + _difference((), self._recorded)
            )
        if not isinstance(self._raised, error) or match not in str(self._raised):
            raise AssertionError(
                f"{error.__name__} with {match!r} was expected, not {self._raised!r}"
            ) from self._raised
        if self._recorded:
            raise AssertionError("it raised, but it had recorded events:\n" + _difference((), self._recorded))
        self._raised = None
        return self

    def then_state(self, expected: Callable[[Any], Any] | None = None, **attributes: Any) -> Scenario:
        """Expect these values of the state's attributes, and that ``expected(state)`` is true."""
        self._refuse_projection()
        self._expect_no_error()
        found = {name: getattr(self._state, name) for name in attributes}
        if found != attributes:
            raise AssertionError(
                "the state differs:\n"
                + _difference(
                    [f"{name} = {value!r}" for name, value in attributes.items()],
                    [f"{name} = {value!r}" for name, value in found.items()],
                )
            )
        if expected is not None and not expected(self._state):
            raise AssertionError(f"the state is not as expected: {self._state!r}")
        return self

    def then_rows(self, sql: str, *rows: Any) -> Scenario:
        """Expect exactly these rows of a projection, as tuples in order; ``{table}`` stands for a table.

        Raises UsageError for anything but a projection, and for statements that SQLite refuses.
        """
        if not isinstance(self._state, InMemoryProjection):
            raise UsageError("only projections have rows: use then() or then_state()")
        found = self._state.rows(sql)
        if found != list(rows):
            raise AssertionError("the rows differ:\n" + _difference(rows, found))
        return self

    def _refuse_projection(self) -> None:
        if isinstance(self._state, InMemoryProjection):
            raise UsageError("a projection has no commands: continue with then_rows()")

    def _expect_no_error(self) -> None:
        if self._raised is not None:
            raise AssertionError(f"no error was expected, but it raised {self._raised!r}") from self._raised


@overload
def given(subject: type[ProcessManager], *events: Any, aggregate_id: str | None = ...) -> ProcessScenario: ...
@overload
def given(subject: Subject, *events: Any, aggregate_id: str | None = ...) -> Scenario: ...
def given(subject: Any, *events: Any, aggregate_id: str | None = None) -> Scenario | ProcessScenario:
    """Start a scenario of an aggregate, decider, projection or process manager after these past events.

    ``aggregate_id`` defaults to that of the first event, or ``"test"``; for a process manager it is the key.
    ``Scenario`` and ``ProcessScenario`` show examples of the others.

    >>> from pabal.domain import Decider
    >>> stock = Decider("stock", 0, decide=lambda take, left: [-take] if take <= left else [],
    ...                 evolve=lambda left, change: left + change)
    >>> _ = given(stock, 5).when(3).then(-3).then_state(lambda left: left == 2)
    """
    if not isinstance(subject, Decider) and not (
        isinstance(subject, type) and issubclass(subject, (Aggregate, Projection, ProcessManager))
    ):
        raise UsageError(
            f"given() was given {subject!r:.60}; begin with a Decider, or with a class derived from "
            "Aggregate, Projection or ProcessManager"
        )
    refuse_classes("given", events)
    if not isinstance(subject, Decider):
        refuse_lists("given", events)
    first_id = getattr(events[0], "aggregate_id", None) if events else None
    if isinstance(subject, type) and issubclass(subject, ProcessManager):
        key = subject.key_of(events[0]) if events else None
        return ProcessScenario(subject, events, aggregate_id or key or "test")
    return Scenario(subject, events, aggregate_id or first_id or "test")


def _refuse_awaitable(command: Any, result: Any) -> None:
    if isawaitable(result):
        if iscoroutine(result):
            result.close()
        raise UsageError(f"{command!r:.60} returned an awaitable, so nothing was run; use a plain function")


def _difference(expected: Iterable[Any], found: Iterable[Any]) -> str:
    """Return the differing lines: ``-`` before missing ones and ``+`` before unexpected ones."""
    return (
        compare([_format_item(each) for each in expected], [_format_item(each) for each in found])
        or "(nothing)"
    )


def _format_item(item: Any) -> str:
    """Show an event by its type and payload, the parts that are compared."""
    if isinstance(item, str):
        return item
    to_dict = getattr(item, "to_dict", None)
    if to_dict is None:
        return repr(item)
    fields = ", ".join(f"{name}={value!r}" for name, value in to_dict()["payload"].items())
    return f"{type(item).__name__}({fields})"
