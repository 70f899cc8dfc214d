"""The given/when/then kit, as called by users' tests."""

from __future__ import annotations

import unittest
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from pabal.errors import UsageError
from pabal.testing import given
from tests.eventsourcing.read_models import Balances
from tests.eventsourcing.samples import (
    Account,
    Deposited,
    OverdrawnError,
    Withdraw,
    Withdrawn,
    account_decider,
)

FIVE, TWO = Decimal(5), Decimal(2)


def test_a_scenario_checks_the_events_state_and_errors_of_an_aggregate() -> None:
    """A user's correct aggregate would fail its test."""
    deposited = given(Account, Deposited("a", FIVE))
    deposited.when(lambda account: account.withdraw(TWO)).then(Withdrawn("a", TWO)).then_state(
        balance=Decimal(3)
    )
    given(Account).when(lambda account: account.withdraw(TWO)).then_raises(OverdrawnError, "2 of 0")


def test_a_scenario_checks_the_events_state_and_errors_of_a_decider() -> None:
    """A user's correct decider would fail its test."""
    scenario = given(account_decider, Deposited("a", FIVE)).when(Withdraw("a", TWO))
    scenario.then(Withdrawn("a", TWO)).then_state(lambda balance: balance == Decimal(3))
    given(account_decider).when(Withdraw("a", TWO)).then_raises(OverdrawnError)


def test_unexpected_events_are_shown_line_by_line() -> None:
    """A failing test would not say what differs."""
    scenario = given(Account, Deposited("a", FIVE)).when(lambda account: account.withdraw(TWO))
    with pytest.raises(AssertionError) as caught:
        scenario.then(Withdrawn("a", FIVE))
    assert "- Withdrawn(account='a', amount='5')" in str(caught.value)
    assert "+ Withdrawn(account='a', amount='2')" in str(caught.value)


def test_a_scenario_rejects_event_classes_and_suggests_instances() -> None:
    """Forgotten parentheses would end in a TypeError inside pabal."""
    for subject, command in (
        (Account, lambda account: account.withdraw(TWO)),
        (account_decider, Withdraw("a", TWO)),
    ):
        scenario = given(subject, Deposited("a", FIVE)).when(command)
        with pytest.raises(UsageError, match=r"the class Withdrawn; pass .* Withdrawn\(…\)"):
            scenario.then(Withdrawn)
        with pytest.raises(UsageError, match=r"given\(\) was given the class Deposited"):
            given(subject, Deposited)


@pytest.mark.parametrize("error", [OverdrawnError("2 of 0"), (OverdrawnError, ValueError)], ids=repr)
def test_then_raises_rejects_anything_but_one_exception_class(error: Any) -> None:
    """It would end in a TypeError inside pabal, or an AttributeError."""
    for scenario in (given(Account), given(Account).when(lambda account: account.withdraw(TWO))):
        with pytest.raises(UsageError, match=r"then_raises\(\) was given .*pass one exception class"):
            scenario.then_raises(error)


@pytest.mark.parametrize("subject", [Account("a"), "Account", None], ids=repr)
def test_given_rejects_a_subject_that_is_not_a_supported_class_or_decider(subject: Any) -> None:
    """It would end in "issubclass() arg 1 must be a class" inside pabal."""
    with pytest.raises(UsageError, match=r"given\(\) was given .*begin with a Decider, or with a class"):
        given(subject)


async def _withdraw(account: Account) -> None:
    account.withdraw(TWO)


@pytest.mark.parametrize("command", [_withdraw, lambda account: _withdraw(account)], ids=["async", "plain"])
def test_when_rejects_an_async_command(command: Any) -> None:
    """The test would pass whatever the command does, because it never ran."""
    with pytest.raises(UsageError, match="use a plain function"):
        given(Account, Deposited("a", FIVE)).when(command).then()


@pytest.mark.parametrize("command", [Withdraw("a", TWO), None], ids=repr)
def test_when_rejects_a_command_that_is_not_a_function_of_the_aggregate(command: Any) -> None:
    """It would be taken for a rejection, and the test report a TypeError from the aggregate."""
    with pytest.raises(UsageError, match="pass a function of the aggregate"):
        given(Account, Deposited("a", FIVE)).when(command)


def test_given_and_then_reject_events_in_a_list() -> None:
    """The error would advise to write an @applies(list) method."""
    with pytest.raises(UsageError, match=r"given\(\) was given a list; .* given\(…, \*list\)"):
        given(Account, [Deposited("a", FIVE)])
    with pytest.raises(UsageError, match=r"then\(\) was given a list"):
        given(Account, Deposited("a", FIVE)).when(lambda account: account.withdraw(TWO)).then(
            [Withdrawn("a", TWO)]
        )


def test_a_scenario_of_a_projection_accepts_only_then_rows() -> None:
    """A test that ends in then() would pass, whatever the tables contain."""
    scenario = given(Balances, Deposited("a", FIVE))
    expectations: tuple[Callable[[], object], ...] = (
        lambda: scenario.then(),
        lambda: scenario.then_state(rows=1),
        lambda: scenario.then_raises(OverdrawnError),
        lambda: scenario.when(lambda tables: None),
    )
    for expect in expectations:
        with pytest.raises(UsageError, match=r"continue with then_rows\(\)"):
            expect()


def test_a_failed_expectation_raises_an_assertion_error() -> None:
    """A wrong aggregate would pass."""
    succeeded = given(Account, Deposited("a", FIVE)).when(lambda account: account.withdraw(TWO))
    rejected = given(Account).when(lambda account: account.withdraw(TWO))
    with pytest.raises(AssertionError, match="nothing was raised"):
        succeeded.then_raises(OverdrawnError)
    with pytest.raises(AssertionError, match=r"- balance = Decimal\('5'\)"):
        succeeded.then_state(balance=FIVE)
    with pytest.raises(AssertionError, match="not as expected"):
        succeeded.then_state(lambda account: False)
    with pytest.raises(AssertionError, match="no error was expected"):
        rejected.then()
    with pytest.raises(AssertionError, match="ValueError with '' was expected"):
        rejected.then_raises(ValueError)


def test_then_raises_fails_if_the_method_had_recorded_events() -> None:
    """Its events would be stored by a caller that catches the error and continues."""

    def deposit_and_raise(account: Account) -> None:
        account.deposit(FIVE)
        raise OverdrawnError("too late")

    with pytest.raises(AssertionError, match=r"it raised, but it had recorded events:\n.*Deposited"):
        given(Account).when(deposit_and_raise).then_raises(OverdrawnError)


@pytest.mark.parametrize("subject", [Account, account_decider])
def test_each_when_of_a_continued_scenario_is_checked_separately(subject: Any) -> None:
    """Events of an earlier command would be expected again, or be blamed on a later rejection."""

    def withdraw(amount: Decimal) -> Any:
        return Withdraw("a", amount) if subject is account_decider else lambda one: one.withdraw(amount)

    scenario = given(subject, Deposited("a", FIVE)).when(withdraw(TWO)).then(Withdrawn("a", TWO))
    scenario.when(withdraw(FIVE)).then_raises(OverdrawnError, "5 of 3").then()
    scenario.when(withdraw(Decimal(3))).then(Withdrawn("a", Decimal(3)))


def test_when_fails_after_an_unchecked_rejection() -> None:
    """A test with several commands would continue, and pass, after one that failed."""
    rejected = given(Account).when(lambda account: account.withdraw(TWO))
    with pytest.raises(AssertionError, match="no error was expected"):
        rejected.when(lambda account: account.deposit(FIVE))


class ScenarioTestCase(unittest.TestCase):
    """The kit works without pytest."""

    def test_a_scenario_works_in_a_unittest_test_case(self) -> None:
        """Users of unittest could not use it."""
        given(Account, Deposited("a", FIVE)).when(lambda account: None).then()
