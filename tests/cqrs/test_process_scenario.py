"""A process manager is tested in one expression, and differences are shown."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from pabal.errors import UsageError
from pabal.testing import given
from tests.cqrs.support import (
    CancelOrder,
    Fulfilment,
    OrderPaid,
    OrderPlaced,
    OrderShipped,
    PayOrder,
    ShipOrder,
)

PLACED = OrderPlaced("o-1", Decimal(10))


def test_what_a_process_sends_sets_and_remembers_can_be_said() -> None:
    """Testing a process would need a bus, two storages and patience."""
    given(Fulfilment).when(PLACED).then(PayOrder("o-1")).then_timeouts(unpaid=60.0).then_state(
        steps=("placed",), ended=False
    )
    given(Fulfilment, PLACED).when(OrderPaid("o-1")).then(ShipOrder("o-1")).then_timeouts(unpaid=None)


def test_what_the_bus_would_leave_aside_is_left_aside() -> None:
    """A test would pass for events that never reach the process."""
    given(Fulfilment).when(OrderPaid("o-1")).then().then_state(steps=())
    given(Fulfilment, PLACED, OrderShipped("o-1")).when(OrderPaid("o-1")).then().then_state(ended=True)


def test_what_differs_is_shown_line_by_line() -> None:
    """The reader of a failed test would have to debug it to see why."""
    scenario = given(Fulfilment).when(PLACED)
    with pytest.raises(AssertionError, match=r"(?s)- CancelOrder.*\+ PayOrder\(order='o-1'\)"):
        scenario.then(CancelOrder("o-1", "why"))
    with pytest.raises(AssertionError, match=r"\+ unpaid = 60"):
        scenario.then_timeouts()
    with pytest.raises(AssertionError, match="- ended = True"):
        scenario.then_state(ended=True)


def test_a_class_for_a_command_is_told_as_the_slip_that_it_is() -> None:
    """Forgotten brackets would end in a TypeError inside pabal."""
    with pytest.raises(UsageError, match=r"the class PayOrder; pass .* PayOrder\(…\)"):
        given(Fulfilment).when(PLACED).then(PayOrder)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"when\(\) was given the class OrderPlaced"):
        given(Fulfilment).when(OrderPlaced)


@pytest.mark.parametrize("slip", [PayOrder("o-1"), "placed", lambda process: process.end()], ids=type)
def test_what_is_no_event_is_told_and_does_not_pass_for_one_that_is_left_aside(slip: object) -> None:
    """The test would pass, whatever the process does."""
    with pytest.raises(UsageError, match="is not an event; a process takes events"):
        given(Fulfilment, PLACED).when(slip)
    with pytest.raises(UsageError, match="is not an event; a process takes events"):
        given(Fulfilment, slip)


@pytest.mark.parametrize("slip", [PLACED, "pay"], ids=type)
def test_what_is_no_command_is_told_and_no_error_from_inside(slip: Any) -> None:
    """It would end in "KeyError: 'command_id'", or a TypeError about structs."""
    with pytest.raises(UsageError, match="is not a Command"):
        given(Fulfilment).when(PLACED).then(slip)
    with pytest.raises(UsageError, match=r"then\(\) was given a list"):
        given(Fulfilment).when(PLACED).then([PayOrder("o-1")])  # type: ignore[arg-type]
