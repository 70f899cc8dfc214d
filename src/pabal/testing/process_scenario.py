"""``given(...).when(...).then(...)`` for a process manager: events in, commands out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from pabal.cqrs import Command, ProcessManager
from pabal.domain.registry import registry
from pabal.errors import UnregisteredEventError, UsageError
from pabal.testing.difference import compare, refuse_classes, refuse_lists


class ProcessScenario:
    """Test a process manager: the events it has taken, the event it takes now, and the commands it sends.

    ``given`` makes one. Commands are compared without their ids. A mismatch raises AssertionError with a
    line-by-line difference. Commands and timeouts are those of the last ``when``; the state is the result of
    all events. Events are taken whatever their key, and a ``ProcessTimedOut`` even if it was not set.

    >>> from pabal import DomainEvent
    >>> from pabal.cqrs import Command, ProcessManager, ProcessTimedOut, on_timeout, starts
    >>> from pabal.testing import given
    >>> class GuestCalled(DomainEvent):
    ...     guest: str
    >>> class SendTaxi(Command[None]):
    ...     guest: str
    >>> class Pickup(ProcessManager):
    ...     @starts(GuestCalled, key="guest")
    ...     def called(self, event: GuestCalled) -> None:
    ...         self.set_timeout("waited", 300)
    ...     @on_timeout("waited")
    ...     def waited(self, event: ProcessTimedOut) -> None:
    ...         self.send(SendTaxi(self.key))
    ...         self.end()
    >>> _ = (
    ...     given(Pickup)
    ...     .when(GuestCalled("kim")).then().then_timeouts(waited=300)
    ...     .when(ProcessTimedOut("pickup", "kim", "waited")).then_state(ended=True)
    ... )
    """

    def __init__(self, process: type[ProcessManager], events: Iterable[Any], key: str) -> None:
        self._key = key
        self._process = process(key)
        self._has_begun = False
        for event in events:
            self.when(event)

    def when(self, event: Any) -> ProcessScenario:
        """Have the process take an event, as on a bus: ignored before it has started, and once it has ended.

        Raises what the process's method raises, ProcessDefinitionError for a state that cannot be stored, and
        UsageError for anything but an event.
        """
        refuse_classes("when", [event])
        try:
            registry.schema_of(type(event))
        except UnregisteredEventError as error:
            raise UsageError(
                f"when() was given {event!r:.60}, which is not an event; a process takes events, and "
                "then() checks the commands it sends"
            ) from error
        process = self._process
        process.sent, process.timeouts = [], {}
        if not process.ended and (self._has_begun or process.may_start_with(event)):
            self._has_begun = process.take(event) or self._has_begun
            # Encode the state now, so that a state that cannot be stored fails in the test, not in
            # production.
            process.codec.restore(process, process.codec.encode(process))
        return self

    def then(self, *commands: Command[Any]) -> ProcessScenario:
        """Expect exactly these commands, in order; ``then()`` expects none."""
        refuse_classes("then", commands)
        refuse_lists("then", commands)
        for each in commands:
            if not isinstance(each, Command):
                raise UsageError(
                    f"then() was given {each!r:.60}, which is not a Command; a process sends only commands"
                )
        self._compare(
            "commands were sent", map(_format_command, commands), map(_format_command, self._process.sent)
        )
        return self

    def then_timeouts(self, **seconds: float | None) -> ProcessScenario:
        """Expect exactly these timeouts, by name and seconds; None means a cancelled one."""
        expected = {name: None if value is None else float(value) for name, value in seconds.items()}
        self._compare("timeouts were set", _format_values(expected), _format_values(self._process.timeouts))
        return self

    def then_state(self, **attributes: Any) -> ProcessScenario:
        """Expect these values of the process's attributes, which include ``ended``."""
        found = {name: getattr(self._process, name) for name in attributes}
        if found != attributes:
            self._compare("attributes are there", _format_values(attributes), _format_values(found))
        return self

    def _compare(self, what: str, expected: Iterable[str], found: Iterable[str]) -> None:
        expected_lines, found_lines = list(expected), list(found)
        if expected_lines != found_lines:
            raise AssertionError(f"other {what}:\n" + compare(expected_lines, found_lines))


def _format_command(command: Command[Any]) -> str:
    fields = msgspec.structs.asdict(command)
    del fields["command_id"]
    shown = ", ".join(f"{name}={value!r}" for name, value in fields.items())
    return f"{type(command).__name__}({shown})"


def _format_values(values: dict[str, Any]) -> list[str]:
    return sorted(f"{name} = {value!r}" for name, value in values.items())
