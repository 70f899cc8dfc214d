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


def test_what_an_aggregate_does_is_told_in_one_sentence() -> None:
    """A user's correct aggregate would fail its test."""
    paid_in = given(Account, Deposited("a", FIVE))
    paid_in.when(lambda account: account.withdraw(TWO)).then(Withdrawn("a", TWO)).then_state(
        balance=Decimal(3)
    )
    given(Account).when(lambda account: account.withdraw(TWO)).then_raises(OverdrawnError, "2 of 0")


def test_what_a_decider_does_is_told_in_one_sentence() -> None:
    """A user's correct decider would fail its test."""
    scenario = given(account_decider, Deposited("a", FIVE)).when(Withdraw("a", TWO))
    scenario.then(Withdrawn("a", TWO)).then_state(lambda balance: balance == Decimal(3))
    given(account_decider).when(Withdraw("a", TWO)).then_raises(OverdrawnError)


def test_other_events_are_shown_line_by_line() -> None:
    """A failing test would not say what differs."""
    scenario = given(Account, Deposited("a", FIVE)).when(lambda account: account.withdraw(TWO))
    with pytest.raises(AssertionError) as caught:
        scenario.then(Withdrawn("a", FIVE))
    assert "- Withdrawn(account='a', amount='5')" in str(caught.value)
    assert "+ Withdrawn(account='a', amount='2')" in str(caught.value)


def test_a_class_for_an_event_is_told_as_the_slip_that_it_is() -> None:
    """Forgotten brackets would end in a TypeError inside pabal."""
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
def test_an_error_for_its_class_is_told_as_the_slip_that_it_is(error: Any) -> None:
    """It would end in a TypeError inside pabal, or an AttributeError."""
    for scenario in (given(Account), given(Account).when(lambda account: account.withdraw(TWO))):
        with pytest.raises(UsageError, match=r"then_raises\(\) was given .*pass one exception class"):
            scenario.then_raises(error)


@pytest.mark.parametrize("subject", [Account("a"), "Account", None], ids=repr)
def test_what_nothing_can_be_told_of_is_refused(subject: Any) -> None:
    """It would end in "issubclass() arg 1 must be a class" inside pabal."""
    with pytest.raises(UsageError, match=r"given\(\) was given .*begin with a Decider, or with a class"):
        given(subject)


async def _withdraw(account: Account) -> None:
    account.withdraw(TWO)


@pytest.mark.parametrize("command", [_withdraw, lambda account: _withdraw(account)], ids=["async", "plain"])
def test_an_async_command_is_told_and_does_not_pass_for_one_that_records_nothing(command: Any) -> None:
    """The test would pass whatever the command does, because it never ran."""
    with pytest.raises(UsageError, match="use a plain function"):
        given(Account, Deposited("a", FIVE)).when(command).then()


@pytest.mark.parametrize("command", [Withdraw("a", TWO), None], ids=repr)
def test_a_command_that_an_aggregate_cannot_be_asked_is_told(command: Any) -> None:
    """It would be taken for a rejection, and the test report a TypeError from the aggregate."""
    with pytest.raises(UsageError, match="pass a function of the aggregate"):
        given(Account, Deposited("a", FIVE)).when(command)


def test_events_in_a_list_are_told_as_the_slip_that_they_are() -> None:
    """The user would be told to write an @applies(list) method."""
    with pytest.raises(UsageError, match=r"given\(\) was given a list; .* given\(…, \*list\)"):
        given(Account, [Deposited("a", FIVE)])
    with pytest.raises(UsageError, match=r"then\(\) was given a list"):
        given(Account, Deposited("a", FIVE)).when(lambda account: account.withdraw(TWO)).then(
            [Withdrawn("a", TWO)]
        )


def test_a_projection_is_only_asked_for_its_rows() -> None:
    """A test that ends in then() would pass, whatever the tables contain."""
    told = given(Balances, Deposited("a", FIVE))
    asks: tuple[Callable[[], object], ...] = (
        lambda: told.then(),
        lambda: told.then_state(rows=1),
        lambda: told.then_raises(OverdrawnError),
        lambda: told.when(lambda tables: None),
    )
    for ask in asks:
        with pytest.raises(UsageError, match=r"continue with then_rows\(\)"):
            ask()


def test_what_is_not_as_expected_fails() -> None:
    """A wrong aggregate would pass."""
    done = given(Account, Deposited("a", FIVE)).when(lambda account: account.withdraw(TWO))
    refused = given(Account).when(lambda account: account.withdraw(TWO))
    with pytest.raises(AssertionError, match="nothing was raised"):
        done.then_raises(OverdrawnError)
    with pytest.raises(AssertionError, match=r"- balance = Decimal\('5'\)"):
        done.then_state(balance=FIVE)
    with pytest.raises(AssertionError, match="not as expected"):
        done.then_state(lambda account: False)
    with pytest.raises(AssertionError, match="no error was expected"):
        refused.then()
    with pytest.raises(AssertionError, match="ValueError with '' was expected"):
        refused.then_raises(ValueError)


def test_a_method_that_records_and_then_raises_does_not_pass_for_a_refusal() -> None:
    """Its events would be stored by a caller that catches the error and continues."""

    def deposit_and_raise(account: Account) -> None:
        account.deposit(FIVE)
        raise OverdrawnError("too late")

    with pytest.raises(AssertionError, match=r"it raised, but it had recorded events:\n.*Deposited"):
        given(Account).when(deposit_and_raise).then_raises(OverdrawnError)


@pytest.mark.parametrize("subject", [Account, account_decider])
def test_a_story_goes_on_and_each_part_is_told_by_itself(subject: Any) -> None:
    """Events of an earlier command would be expected again, or be blamed on a later rejection."""

    def withdraw(amount: Decimal) -> Any:
        return Withdraw("a", amount) if subject is account_decider else lambda one: one.withdraw(amount)

    story = given(subject, Deposited("a", FIVE)).when(withdraw(TWO)).then(Withdrawn("a", TWO))
    story.when(withdraw(FIVE)).then_raises(OverdrawnError, "5 of 3").then()
    story.when(withdraw(Decimal(3))).then(Withdrawn("a", Decimal(3)))


def test_a_refusal_that_nobody_expected_is_not_passed_over() -> None:
    """A test with several commands would continue, and pass, after one that failed."""
    refused = given(Account).when(lambda account: account.withdraw(TWO))
    with pytest.raises(AssertionError, match="no error was expected"):
        refused.when(lambda account: account.deposit(FIVE))


class UnderUnittest(unittest.TestCase):
    """The kit works without pytest."""

    def test_it_works_in_a_test_case(self) -> None:
        """Users of unittest could not use it."""
        given(Account, Deposited("a", FIVE)).when(lambda account: None).then()
