"""Aggregates and deciders, without any storage."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, ClassVar

import pytest

from pabal import InMemoryEventStorage
from pabal.domain import Aggregate, applies
from pabal.domain.registry import registry
from pabal.errors import (
    AggregateDefinitionError,
    EventNotAppliedError,
    EventOfOtherAggregateError,
    EventWithoutAggregateError,
    SpoiledAggregateError,
)
from pabal.eventsourcing import Repository
from pabal.testing import given
from tests.eventsourcing.samples import (
    Account,
    Deposit,
    Deposited,
    MatchedAccount,
    OverdrawnError,
    Stray,
    Unapplied,
    Withdraw,
    Withdrawn,
    account_decider,
)

FIVE = Decimal(5)


def test_a_command_records_events_and_changes_the_state() -> None:
    """A command would have no effect, or one that no event records."""
    account = Account("a")
    assert account.deposit(FIVE) == FIVE
    account.withdraw(Decimal(2))
    assert account.pending == (Deposited("a", FIVE), Withdrawn("a", Decimal(2)))
    assert (account.version, account.stored_version, account.balance) == (2, 0, Decimal(3))


def test_a_rejected_command_records_nothing() -> None:
    """A rejected command would be stored nevertheless."""
    account = Account("a")
    with pytest.raises(OverdrawnError):
        account.withdraw(FIVE)
    assert (account.version, account.pending) == (0, ())
    account.deposit(FIVE)
    assert account.balance == FIVE


def test_a_command_that_raises_after_recording_discards_its_events() -> None:
    """The first events of a failed command would be stored."""
    account = Account("a")
    account.deposit(FIVE)
    with pytest.raises(OverdrawnError):
        account.deposit_then_fail(FIVE)
    assert (account.version, account.pending) == (1, (Deposited("a", FIVE),))
    with pytest.raises(SpoiledAggregateError, match="load it again"):
        account.deposit(FIVE)


@pytest.mark.parametrize(
    ("event", "error", "message"),
    [
        (Stray(), EventWithoutAggregateError, "without aggregate_id"),
        (Deposited("b", FIVE), EventOfOtherAggregateError, "belongs to account/b, but account/a recorded it"),
        (Unapplied("a"), EventNotAppliedError, r"no @applies\(Unapplied\)"),
    ],
)
def test_record_rejects_an_event_that_the_aggregate_cannot_own_or_apply(
    event: object, error: type[Exception], message: str
) -> None:
    """An event would be stored that no later load can apply, or in another aggregate's history."""
    account = Account("a")
    with pytest.raises(error, match=message):
        account.record_event(event)
    assert (account.version, account.pending) == (0, ())
    account.deposit(FIVE)


def test_an_applier_that_fails_spoils_the_aggregate() -> None:
    """A partially changed state would stay in use."""

    class Fragile(Aggregate):
        aggregate_type = "account"

        def happen(self) -> None:
            self.record(Deposited("a", FIVE))

        @applies(Deposited)
        def _fail(self, event: Deposited) -> None:
            raise ZeroDivisionError

    fragile = Fragile("a")
    with pytest.raises(ZeroDivisionError):
        fragile.happen()
    assert fragile.pending == ()
    with pytest.raises(SpoiledAggregateError):
        fragile.happen()


def test_applies_methods_and_pattern_matching_give_the_same_state() -> None:
    """One of the two styles would lose events."""
    events = [Deposited("a", FIVE), Withdrawn("a", Decimal(2))]
    assert Account("a").replay(events).balance == MatchedAccount("a").replay(events).balance == Decimal(3)


def test_a_decider_decides_and_evolves_without_an_object() -> None:
    """The functional style would give other results than the aggregate."""
    events: list[Deposited | Withdrawn] = [Deposited("a", FIVE), Withdrawn("a", Decimal(2))]
    state = account_decider.state_of(events)
    assert state == Decimal(3)
    assert account_decider.decide(Withdraw("a", Decimal(3)), state) == [Withdrawn("a", Decimal(3))]
    assert account_decider.decide(Deposit("a", FIVE), state) == [Deposited("a", FIVE)]


def test_a_subclass_replaces_an_applier() -> None:
    """A special kind of aggregate could not behave differently from its base."""

    class Doubled(Account):
        aggregate_type = "account"

        @applies(Deposited)
        def _twice(self, event: Deposited) -> None:
            self.balance += 2 * event.amount

    assert Doubled("a").replay([Deposited("a", FIVE)]).balance == Decimal(10)
    assert Account("a").replay([Deposited("a", FIVE)]).balance == FIVE


def test_a_subclass_overrides_an_applier_by_its_name() -> None:
    """The base's method would still be called, and the override never run."""

    class Counted(Account):
        aggregate_type = "account"

        def _deposited(self, event: Deposited) -> None:
            self.balance += 1

    class CountedAgain(Counted):
        aggregate_type = "account"

        def _deposited(self, event: Deposited) -> None:
            self.balance += 2

        @applies(Withdrawn)
        def _taken(self, event: Withdrawn) -> None:
            self.balance -= 1

        def _withdrawn(self, event: Withdrawn) -> None:
            raise NotImplementedError

    assert Counted("a").replay([Deposited("a", FIVE)]).balance == Decimal(1)
    assert CountedAgain("a").replay([Deposited("a", FIVE), Withdrawn("a", FIVE)]).balance == Decimal(1)
    assert Account("a").replay([Deposited("a", FIVE)]).balance == FIVE


def test_a_subclass_defined_after_its_base_was_used_applies_derived_events() -> None:
    """The base would cache its own method for the derived event, and both classes would use that."""
    with registry.isolated():

        class BonusDeposited(Deposited):
            event_type = "es.bonus_deposited"

        assert Account("a").replay([BonusDeposited("a", FIVE)]).balance == FIVE

        class Doubled(Account):
            aggregate_type = "account"

            @applies(Deposited)
            def _twice(self, event: Deposited) -> None:
                self.balance += 2 * event.amount

        assert Doubled("a").replay([BonusDeposited("a", FIVE)]).balance == 2 * FIVE


def test_each_aggregate_has_its_own_copy_of_a_list_default() -> None:
    """The state of one aggregate would be shared by all others, which then decide by it."""

    class Basket(Aggregate):
        goods: list[str] = []  # noqa: RUF012 - as users write it
        kinds: ClassVar[list[str]] = []

    class Hamper(Basket):
        goods = ["straw"]  # noqa: RUF012

    class Bare(Basket):
        goods = None  # type: ignore[assignment]

    first = Basket("b-1")
    first.goods.append("nut")
    assert Basket("b-2").goods == []
    assert first.kinds is Basket.kinds
    Hamper("h-1").goods.append("nut")
    assert Hamper("h-2").goods == ["straw"]
    assert Bare("c-1").goods is None


@pytest.mark.parametrize("name", ["version", "id", "pending", "_pending"])
def test_an_attribute_that_would_hide_one_of_every_aggregate_is_rejected(name: str) -> None:
    """A repository would read a state attribute ``version`` as its own, and silently store no event."""
    for body in ({"__annotations__": {name: "int"}}, {name: 0}, {name: property(lambda self: 0)}):
        with pytest.raises(AggregateDefinitionError, match=f"{name} is an attribute of every aggregate"):
            type("Document", (Aggregate,), body)


def test_a_default_made_by_dataclasses_field_is_rejected() -> None:
    """The state would be that Field object, and the first applier fail with an AttributeError."""
    with pytest.raises(AggregateDefinitionError, match=r"goods uses dataclasses\.field\(\)"):

        class Basket(Aggregate):
            goods: list[str] = field(default_factory=list)


def test_a_dataclass_is_rejected_by_repositories_and_scenarios() -> None:
    """Its first field would take the id, and the first command fail for want of an internal attribute."""

    @dataclass
    class Basket(Aggregate):
        size: int = 0

    uses: list[Callable[[], Any]] = [
        lambda: Repository(Basket, InMemoryEventStorage()),
        lambda: given(Basket),
    ]
    for use in uses:
        with pytest.raises(AggregateDefinitionError, match="leave @dataclass out"):
            use()


def test_two_appliers_for_one_event_are_rejected() -> None:
    """One of them would silently never run."""
    with pytest.raises(AggregateDefinitionError, match="both apply Deposited"):

        class Ambiguous(Aggregate):
            @applies(Deposited)
            def _one(self, event: Deposited) -> None: ...

            @applies(Deposited)
            def _two(self, event: Deposited) -> None: ...


def test_an_async_method_of_an_aggregate_is_rejected() -> None:
    """An aggregate would wait for I/O in the middle of a decision."""
    with pytest.raises(AggregateDefinitionError, match="cannot be async"):

        class Slow(Aggregate):
            async def ask(self) -> None: ...


@pytest.mark.parametrize("arguments", [(), ("Deposited",)])
def test_applies_rejects_arguments_that_are_not_event_classes(arguments: tuple[object, ...]) -> None:
    """With a mistyped decorator, the event would have no effect."""
    with pytest.raises(AggregateDefinitionError, match=r"write @applies\(OrderPlaced\)"):
        applies(*arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("identity", ["", None, 5])
def test_an_aggregate_id_that_is_not_text_is_rejected(identity: object) -> None:
    """Events would be stored under an id that cannot be looked up."""
    with pytest.raises(AggregateDefinitionError, match="must be text"):
        Account(identity)  # type: ignore[arg-type]


def test_the_domain_layer_loads_neither_asyncio_nor_a_database() -> None:
    """An application's domain layer would load the infrastructure."""
    code = "import sys, pabal.domain; print([m for m in ('asyncio', 'sqlite3') if m in sys.modules])"
    # With coverage enabled, it would start in the child as well, and it imports sqlite3.
    plain = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, check=True, env=plain)
    assert result.stdout.strip() == "[]"


def test_recording_an_event_while_applying_one_is_rejected() -> None:
    """Appliers run at every load, so each load would record the event once more."""

    class Echoing(Account):
        aggregate_type = "account"

        @applies(Withdrawn)
        def _withdrawn(self, event: Withdrawn) -> None:
            self.record(Deposited(self.id, event.amount))

    with pytest.raises(AggregateDefinitionError, match="Deposited is recorded while an event is applied"):
        Echoing("a").replay([Withdrawn("a", FIVE)])
    echoing = Echoing("a")
    echoing.deposit(FIVE)
    with pytest.raises(AggregateDefinitionError, match="record it in the command method"):
        echoing.withdraw(FIVE)
    assert echoing.pending == (Deposited("a", FIVE),)
