"""Projection classes: mistakes are rejected when a class is defined, and projections can run in memory."""

from __future__ import annotations

import gc
import sys
import threading
from decimal import Decimal
from typing import Any

import pytest

from pabal.errors import EventNotProjectedError, ProjectionDefinitionError, ProjectionHandlerError, UsageError
from pabal.eventsourcing import InMemoryProjection, Projection, ProjectionTransaction, projects
from pabal.testing import given
from tests.eventsourcing.read_models import BALANCES, Balances, Choosy
from tests.eventsourcing.samples import Account, AccountEvent, Deposited, Stray, Withdrawn

ONE = Decimal(1)


# -- definitions ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("namespace", "message"),
    [
        ({"tables": "CREATE TABLE {t} (a)"}, "no method"),
        ({"tables": ""}, "creates no table"),
        ({"tables": "CREATE TABLE t (a)"}, "creates no table"),
        ({"tables": "CREATE TABLE {t} (a,)"}, "SQLite rejects"),
        ({"tables": "CREATE TABLE {t} (a)", "version": 0}, "version"),
        ({"tables": "CREATE TABLE {t} (a)", "version": "2"}, "version is '2'"),
        ({"tables": "CREATE TABLE IF NOT EXISTS {t} (a)"}, "nothing between TABLE and the name"),
        ({"tables": "CREATE TABLE {재고} (a)"}, "of ASCII letters"),
        (
            {"tables": "CREATE TABLE {t} (a); CREATE TABLE IF NOT EXISTS {u} (a)"},
            "tables names {u} but does not create it; write exactly CREATE TABLE {u}",
        ),
        ({"tables": "CREATE TABLE {t} (a)", "name": 5}, "name is 5; it must be text"),
        ({"tables": "CREATE TABLE {t} (a)", "name": ""}, "name is ''; it must be text"),
        ({"tables": ["CREATE TABLE {t} (a)"]}, "tables is .* must be text"),
        ({"tables": "CREATE TABLE {t} (a)", "matches": ("es.*",)}, "matches is .* must be text"),
        ({"tables": "CREATE TABLE {t} (a)", "ignores": "es.stray"}, "ignores is 'es.stray'; .* a tuple"),
        ({"tables": "CREATE TABLE {t} (a)", "ignores": Stray}, "ignores is .*Stray.* a tuple"),
        ({"tables": "CREATE TABLE {t} (a)", "ignores": (5,)}, "ignores is .* a tuple"),
    ],
)
def test_an_invalid_projection_class_is_rejected_when_defined(
    namespace: dict[str, Any], message: str
) -> None:
    """The mistake would surface when the application starts, or as wrong rows."""
    if message != "no method":
        namespace = {**namespace, "_m": projects(Deposited)(lambda self, event, tx: None)}
    with pytest.raises(ProjectionDefinitionError, match=message):
        type("Wrong", (Projection,), namespace)


def test_tables_with_many_comments_are_scanned_without_backtracking() -> None:
    """Each comment doubled the time, so that an import would take hours."""
    tables = "CREATE TABLE {t} (a);" + "/* a */ -- b\n" * 200 + "CREATE INDEX {t}_a ON {t} (a)"
    method = projects(Deposited)(lambda self, event, tx: None)
    projection: Any = type("Commented", (Projection,), {"tables": tables, "_m": method})
    assert InMemoryProjection(projection).rows("SELECT * FROM {t}") == []


def test_async_and_duplicate_methods_and_invalid_projects_are_rejected() -> None:
    """An async method would never run; of two methods for one event, one would be ignored."""
    with pytest.raises(ProjectionDefinitionError, match="plain def"):

        class Pausing(Projection):
            tables = "CREATE TABLE {t} (a)"

            @projects(Deposited)  # type: ignore[type-var]
            async def _deposited(self, event: Deposited, tx: ProjectionTransaction) -> None: ...

    with pytest.raises(ProjectionDefinitionError, match="both project Deposited"):

        class Twice(Projection):
            tables = "CREATE TABLE {t} (a)"

            @projects(Deposited)
            def _one(self, event: Deposited, tx: ProjectionTransaction) -> None: ...

            @projects(Deposited)
            def _two(self, event: Deposited, tx: ProjectionTransaction) -> None: ...

    for wrong in ((), ("es.deposited",)):
        with pytest.raises(ProjectionDefinitionError, match="@projects"):
            projects(*wrong)


def test_a_subclass_overrides_a_method_by_its_name() -> None:
    """The base's method would still be called, and the override never run."""

    class Counted(Balances):
        name = "balances"

        def _deposited(self, event: Deposited, tx: ProjectionTransaction) -> None:
            self._add(tx, event.account, 1)

    assert InMemoryProjection(Counted, [Deposited("a", Decimal(5))]).rows(BALANCES) == [("a", 1, 1)]
    with pytest.raises(ProjectionDefinitionError, match="plain def"):

        class Pausing(Counted):
            async def _deposited(self, event: Deposited, tx: ProjectionTransaction) -> None: ...  # type: ignore[override]


# -- in memory ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sql", ["SELECT nothing FROM {balances}", "DELETE FROM {balances}"])
def test_rows_rejects_an_invalid_query_in_memory_as_on_a_file(sql: str) -> None:
    """A test would pass with a query that fails in production."""
    model = InMemoryProjection(Balances, [Deposited("a", Decimal(5))])
    with pytest.raises(UsageError, match="it takes one SELECT"):
        model.rows(sql)
    assert len(model.rows("SELECT * FROM {balances}")) == 1
    model.apply(Deposited("b", Decimal(1)))
    assert len(model.rows("SELECT * FROM {balances}")) == 2


def test_a_projection_runs_in_memory() -> None:
    """Testing a read model would need a file, a bus and an event loop."""
    model = InMemoryProjection(Balances, [Deposited("a", Decimal(5)), Withdrawn("a", Decimal(2)), Stray()])
    assert model.rows(BALANCES) == [("a", 3, 2)]


@pytest.mark.parametrize(
    "sql", ['PRAGMA "query_only" = OFF', "PRAGMA query_only = OFF", "BEGIN", "SAVEPOINT s"]
)
def test_rows_rejects_statements_that_change_the_in_memory_connection(sql: str) -> None:
    """A later statement could write, or the next event be rejected, unlike on a file."""
    model = InMemoryProjection(Balances, [Deposited("a", Decimal(5))])
    with pytest.raises(UsageError, match="one SELECT"):
        model.rows(sql)
    with pytest.raises(UsageError, match="one SELECT"):
        model.rows("WITH a AS (SELECT 1) DELETE FROM {balances}")
    model.apply(Deposited("a", Decimal(1)))
    assert len(model.rows(BALANCES)) == 1


@pytest.mark.parametrize("sql", ["COMMIT", "PRAGMA query_only = ON"])
def test_an_in_memory_projection_rejects_statements_that_a_file_rejects(sql: str) -> None:
    """A test would pass for a projection that stops at its first event in production."""

    class Interfering(Projection):
        tables = "CREATE TABLE {meddled} (a)"

        @projects(Deposited)
        def _deposited(self, event: Deposited, tx: ProjectionTransaction) -> None:
            tx.execute(sql)

    model = InMemoryProjection(Interfering)
    for _ in range(2):
        with pytest.raises(ProjectionHandlerError, match="not allowed inside transact"):
            model.apply(Deposited("a", ONE))
    assert model.rows("SELECT * FROM {meddled}") == []


def test_in_memory_a_failing_method_leaves_no_rows_and_unknown_events_raise() -> None:
    """A test would pass although the projection fails on the real log."""
    model = InMemoryProjection(Choosy)
    with pytest.raises(ProjectionHandlerError, match=r"stopped before position 1: .*bad account"):
        model.apply(Deposited("bad", ONE))
    with pytest.raises(EventNotProjectedError, match="at position 2"):
        model.apply(Stray(), Stray())
    assert model.rows("SELECT * FROM {choosy}") == []


def test_in_memory_a_method_that_skips_the_test_leaves_no_rows() -> None:
    """Half of its effects would remain, and all later events fail inside a transaction."""

    class Ending(Balances):
        name = "ending"

        @projects(Stray)
        def _stray(self, event: Stray, tx: ProjectionTransaction) -> None:
            tx.execute("DELETE FROM {balances}")
            pytest.skip("enough")

    ending = InMemoryProjection(Ending, [Deposited("a", ONE)])
    with pytest.raises(pytest.skip.Exception):
        ending.apply(Stray())
    ending.apply(Deposited("a", ONE))
    assert ending.rows(BALANCES) == [("a", 2, 2)]


def test_a_method_for_a_base_class_receives_events_of_its_subclasses() -> None:
    """Events of a new subclass would be missed by a projection of the whole family."""

    class Accounts(Projection):
        tables = "CREATE TABLE {accounts} (account TEXT PRIMARY KEY)"

        @projects(AccountEvent)
        def _seen(self, event: AccountEvent, tx: ProjectionTransaction) -> None:
            tx.executemany("INSERT OR IGNORE INTO {accounts} VALUES (?)", [(event.account,)])
            with pytest.raises(UsageError):
                tx.envelope  # noqa: B018

    assert InMemoryProjection(Accounts, [Deposited("a", ONE), Withdrawn("a", ONE)]).rows(
        "SELECT * FROM {accounts}"
    ) == [("a",)]


def test_a_scenario_compares_the_rows_of_a_projection() -> None:
    """A wrong row would be reported without saying which, or not at all."""
    scenario = given(Balances, Deposited("a", Decimal(5)), Withdrawn("a", Decimal(2)))
    scenario.then_rows(BALANCES, ("a", 3, 2))
    with pytest.raises(AssertionError, match=r"(?s)- \('a', 4, 2\).*\+ \('a', 3, 2\)"):
        scenario.then_rows(BALANCES, ("a", 4, 2))
    with pytest.raises(UsageError, match="then_rows"):
        scenario.when(lambda projection: None)
    with pytest.raises(UsageError, match="projections"):
        given(Account).then_rows(BALANCES)


def test_a_projection_in_memory_may_be_collected_in_another_thread() -> None:
    """The collector runs in any thread; closing the connection there would print a traceback of sqlite3."""
    unraisable: list[object] = []
    garbage: list[Any] = [InMemoryProjection(Balances, [Deposited("a", ONE)])]
    garbage.append(garbage)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "unraisablehook", unraisable.append)
        del garbage
        thread = threading.Thread(target=gc.collect)
        thread.start()
        thread.join()
    assert unraisable == []
