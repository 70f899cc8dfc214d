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


def test_a_scenario_checks_the_commands_timeouts_and_state_of_a_process() -> None:
    """Testing a process would need a bus and two storages."""
    given(Fulfilment).when(PLACED).then(PayOrder("o-1")).then_timeouts(unpaid=60.0).then_state(
        steps=("placed",), ended=False
    )
    given(Fulfilment, PLACED).when(OrderPaid("o-1")).then(ShipOrder("o-1")).then_timeouts(unpaid=None)


def test_a_scenario_ignores_events_before_the_start_and_after_the_end() -> None:
    """A test would pass for events that never reach the process."""
    given(Fulfilment).when(OrderPaid("o-1")).then().then_state(steps=())
    given(Fulfilment, PLACED, OrderShipped("o-1")).when(OrderPaid("o-1")).then().then_state(ended=True)


def test_a_failed_expectation_shows_the_difference_line_by_line() -> None:
    """The reader of a failed test would have to debug it to see why."""
    scenario = given(Fulfilment).when(PLACED)
    with pytest.raises(AssertionError, match=r"(?s)- CancelOrder.*\+ PayOrder\(order='o-1'\)"):
        scenario.then(CancelOrder("o-1", "why"))
    with pytest.raises(AssertionError, match=r"\+ unpaid = 60"):
        scenario.then_timeouts()
    with pytest.raises(AssertionError, match="- ended = True"):
        scenario.then_state(ended=True)


def test_a_process_scenario_rejects_classes_and_suggests_instances() -> None:
    """Forgotten parentheses would end in a TypeError inside pabal."""
    with pytest.raises(UsageError, match=r"the class PayOrder; pass .* PayOrder\(…\)"):
        given(Fulfilment).when(PLACED).then(PayOrder)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"when\(\) was given the class OrderPlaced"):
        given(Fulfilment).when(OrderPlaced)


@pytest.mark.parametrize("wrong", [PayOrder("o-1"), "placed", lambda process: process.end()], ids=type)
def test_a_process_scenario_rejects_objects_that_are_not_events(wrong: object) -> None:
    """They would be ignored like other events, and the test pass whatever the process does."""
    with pytest.raises(UsageError, match="is not an event; a process takes events"):
        given(Fulfilment, PLACED).when(wrong)
    with pytest.raises(UsageError, match="is not an event; a process takes events"):
        given(Fulfilment, wrong)


@pytest.mark.parametrize("wrong", [PLACED, "pay"], ids=type)
def test_then_rejects_objects_that_are_not_commands(wrong: Any) -> None:
    """It would end in "KeyError: 'command_id'", or a TypeError about structs."""
    with pytest.raises(UsageError, match="is not a Command"):
        given(Fulfilment).when(PLACED).then(wrong)
    with pytest.raises(UsageError, match=r"then\(\) was given a list"):
        given(Fulfilment).when(PLACED).then([PayOrder("o-1")])  # type: ignore[arg-type]
