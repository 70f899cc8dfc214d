"""Classes and handlers in modules without ``from __future__ import annotations``, as in most applications.

There, annotations are values up to Python 3.13; from 3.14 on they are evaluated only when asked for.
"""

from __future__ import annotations

import sys
from typing import Any

import pytest

from pabal import InMemoryEventBus
from pabal.errors import EventDefinitionError
from pabal.testing import given

LATER = "Later" if sys.version_info >= (3, 14) else "'Later'"
"""How an annotation names something undefined: before 3.14 it had to be text."""

PRELUDE = """
from typing import Any, ClassVar
from pabal import DomainEvent
from pabal.cqrs import Command, CommandBus, ProcessManager, starts
from pabal.domain import Aggregate, applies

class Placed(DomainEvent):
    event_type: ClassVar[str] = "annotated.placed"
    aggregate_type: ClassVar[str] = "annotated"
    order: str
    @property
    def aggregate_id(self) -> str:
        return self.order
"""


def module(source: str) -> dict[str, Any]:
    """Run the source as a module of its own, without the ``__future__`` import of this one."""
    names: dict[str, Any] = {"__name__": "annotated"}
    exec(compile(PRELUDE + source, "<application>", "exec", dont_inherit=True), names)
    return names


def test_a_process_manager_field_without_a_future_import_is_stored_as_state() -> None:
    """Each step would begin with the defaults, and the process would forget its state."""
    made = module("""
class Fulfilment(ProcessManager):
    limit: ClassVar[int] = 5
    count: int = 0
    @starts(Placed, key="order")
    def placed(self, event: Placed) -> None:
        self.count += 1
""")
    process = made["Fulfilment"]
    assert process.codec.defaults == {"count": 0}
    given(process, made["Placed"]("o-1")).then_state(count=1)


def test_each_aggregate_gets_its_own_copy_of_a_list_default() -> None:
    """The lines of one order would appear in every order."""
    order = module("""
class Order(Aggregate):
    aggregate_type: ClassVar[str] = "annotated"
    known: ClassVar[list[str]] = []
    lines: list[str] = []
""")["Order"]
    one, other = order("1"), order("2")
    one.lines.append("x")
    assert (other.lines, one.known is other.known) == ([], True)


@pytest.mark.parametrize("field", ["event_id: int", "event_type: str", "schema_version: int = 2"])
def test_redefining_a_field_of_every_event_raises(field: str) -> None:
    """The field's value would replace the event's id or type."""
    with pytest.raises(EventDefinitionError):
        module(f"class Wrong(DomainEvent):\n    {field}\n")


async def test_handlers_with_unresolvable_annotations_can_be_registered_and_run() -> None:
    """A handler could not be subscribed or registered if its module imports types only for type checkers."""
    made = module(f"""
class Pay(Command[int]):
    amount: int

commands = CommandBus()
handled = []

@commands.handles(Pay)
async def pay(command: {LATER}) -> {LATER}:
    return command.amount

async def handle(event: {LATER}, context: {LATER} = None) -> {LATER}:
    handled.append(event)
""")
    assert await made["commands"].execute(made["Pay"](3)) == 3
    async with InMemoryEventBus() as bus:
        bus.subscribe(made["Placed"], made["handle"])
        await bus.publish(made["Placed"]("o-1"))
        await bus.drain(60)
    assert made["handled"] == [made["Placed"]("o-1")]
