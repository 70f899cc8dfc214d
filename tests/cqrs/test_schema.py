"""Current event classes can read stored events, or the check says what to do."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest
from click.testing import CliRunner
from jsonschema import Draft202012Validator

from pabal import DomainEvent, upcaster
from pabal.cli.app import commands
from pabal.domain import registry
from pabal.domain.schema_check import SchemaFinding, check_schema
from pabal.domain.schema_export import export_schema
from pabal.errors import UsageError


class Address(msgspec.Struct, frozen=True):
    street: str
    next: Address | None = None


class Side(StrEnum):
    BUY = "buy"
    SELL = "sell"


@pytest.fixture(autouse=True)
def _isolated_registry() -> Iterator[None]:
    with registry.isolated():
        yield


def _define(event_type: str = "schema-test.order", version: int = 1, **fields: Any) -> type[Any]:
    """Define an event class; a field is a type, or a pair of type and default."""
    namespace: dict[str, Any] = {
        "__module__": __name__,
        "__qualname__": "SchemaTestOrder",
        "event_type": event_type,
        "schema_version": version,
        "__annotations__": {},
    }
    for name, what in fields.items():
        kind, *default = what if isinstance(what, tuple) else (what,)
        namespace["__annotations__"][name] = kind
        if default:
            namespace[name] = default[0]
    meta: Any = type(DomainEvent)
    event_class: type[Any] = meta("SchemaTestOrder", (DomainEvent,), namespace)
    return event_class


def _restricted_to(document: dict[str, Any], *names: str) -> dict[str, Any]:
    return {**document, "events": {name: document["events"][name] for name in names}}


def _check(snapshot: dict[str, Any]) -> list[SchemaFinding]:
    return [each for each in check_schema(snapshot) if each.event_type.startswith("schema-test.")]


def _problems(before: dict[str, Any], after: dict[str, Any], *, version: int = 1) -> list[SchemaFinding]:
    with registry.isolated():
        _define(**before)
        snapshot = _restricted_to(export_schema(), "schema-test.order")
    _define(version=version, **after)
    return _check(snapshot)


def test_event_payloads_validate_against_the_exported_schema() -> None:
    """Other programs would reject events from the log."""
    cls = _define(order=str, amount=Decimal, to=Address, side=(Side, Side.BUY), tags=(tuple[str, ...], ()))
    described = export_schema()["events"]["schema-test.order"]
    assert (described["version"], described["aggregate_type"]) == (1, None)
    Draft202012Validator.check_schema(described["schema"])
    validator = Draft202012Validator(described["schema"])
    event = cls("o-1", Decimal("1.50"), Address("Main", Address("Side")), Side.SELL, ("a",))
    validator.validate(json.loads(json.dumps(event.to_dict()["payload"])))
    assert not validator.is_valid({"order": 5})


def test_the_export_is_deterministic_and_omits_pabals_own_events() -> None:
    """A committed file would change without a reason."""
    _define(order=str)
    assert export_schema() == export_schema()
    assert not [name for name in export_schema()["events"] if name.startswith("pabal.")]


def test_unchanged_event_classes_have_no_findings() -> None:
    """A build would fail for no reason."""
    fields = {"order": str, "to": Address, "side": (Side, Side.BUY)}
    assert _problems(fields, fields) == []


@pytest.mark.parametrize(
    ("before", "after", "field", "problem"),
    [
        ({"order": str, "note": str}, {"order": str}, "note", "the field was removed"),
        ({"amount": int}, {"amount": str}, "amount", "its type changed from integer to string"),
        (
            {"amount": (int | None, None)},
            {"amount": (int, 0)},
            "amount",
            "changed from integer | null to int",
        ),
        ({"at": Decimal}, {"at": str}, "at", "changed from string (decimal) to string"),
        ({"to": Address}, {"to": str}, "to", "changed from Address to string"),
        (
            {"side": Literal["buy", "sell"]},
            {"side": int},
            "side",
            "changed from one of ['buy', 'sell'] to integer",
        ),
        ({"order": str}, {"order": str, "note": str}, "note", "is new and has no default"),
        ({"note": (str, "")}, {"note": str}, "note", "lost its default"),
    ],
)
def test_a_change_that_makes_stored_events_unreadable_is_a_failure(
    before: dict[str, Any], after: dict[str, Any], field: str, problem: str
) -> None:
    """The application would start, and park every event stored before."""
    (finding,) = _problems(before, after)
    assert (finding.level, finding.field) == ("failure", field)
    assert problem in finding.problem
    assert (
        "raise schema_version to 2 and write @upcaster('schema-test.order', from_version=1)" in finding.advice
    )


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"amount": int}, {"amount": (int | None, None)}),
        ({"amount": int}, {"amount": float}),
        ({"amount": int}, {"amount": int | str}),
        ({"amount": int}, {"amount": Any}),
        ({"order": str}, {"order": str, "note": (str, "")}),
        ({"order": str}, {"order": (str, "none")}),
    ],
)
def test_a_change_that_accepts_every_old_value_is_no_failure(
    before: dict[str, Any], after: dict[str, Any]
) -> None:
    """A harmless change would fail the build, until people ignore the check."""
    assert _problems(before, after) == []


def test_replacing_an_enum_with_its_plain_type_is_no_failure() -> None:
    """The check would advise to widen a type that was just widened."""
    before = {"side": Side, "how": Literal["a", "b"], "size": Literal[1, 2], "mixed": Literal["a", 1]}
    found = _problems(before, {"side": str, "how": str, "size": int, "mixed": str})
    assert [(each.level, each.field) for each in found] == [("failure", "mixed")]


def test_removing_an_enum_member_is_a_failure_and_adding_one_is_not() -> None:
    """Events with the removed member could not be read."""
    fewer, more = StrEnum("Fewer", ["BUY"]), StrEnum("More", ["BUY", "SELL"])
    assert _problems({"side": fewer}, {"side": more}) == []
    with registry.isolated():
        (finding,) = _problems({"side": more}, {"side": fewer})
    assert finding.level == "failure"


def test_a_raised_version_needs_its_upcasters_and_then_allows_any_change() -> None:
    """Following the check's advice would not satisfy the check."""
    with registry.isolated():
        (finding,) = _problems({"amount": int}, {"amount": str}, version=3)
        assert finding.level == "failure"
        assert "no upcaster starts from version 1" in finding.problem
    upcaster("schema-test.order", from_version=1)(lambda payload: payload)
    upcaster("schema-test.order", from_version=2)(lambda payload: payload)
    (finding,) = _problems({"amount": int}, {"amount": str}, version=3)
    assert finding.level == "note"
    with registry.isolated():
        _define("schema-test.back", version=2, order=str)
        snapshot = _restricted_to(export_schema(), "schema-test.back")
    _define("schema-test.back", version=1, order=str)
    (finding,) = [each for each in _check(snapshot) if each.event_type == "schema-test.back"]
    assert "went back from 2 to 1" in finding.problem


def test_a_removed_event_type_is_a_failure_and_a_new_one_a_note() -> None:
    """A class deleted too early would make its events unreadable."""
    with registry.isolated():
        _define("schema-test.gone", order=str)
        snapshot = _restricted_to(export_schema(), "schema-test.gone")
    _define("schema-test.fresh", order=str)
    fresh, gone = _check(snapshot)
    assert (fresh.event_type, fresh.level) == ("schema-test.fresh", "note")
    assert (gone.event_type, gone.level) == ("schema-test.gone", "failure")


def test_check_schema_rejects_a_document_that_is_not_a_snapshot() -> None:
    """A wrong file would look like a log without events."""
    documents: list[Any] = [{}, {"format": 99}, []]
    for document in documents:
        with pytest.raises(UsageError, match="not a schema snapshot"):
            check_schema(document)


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path / "schema_test_events.py"
    sys.modules.pop("schema_test_events", None)


def _run(*arguments: str) -> Any:
    sys.modules.pop("schema_test_events", None)
    with registry.isolated():
        return CliRunner().invoke(commands, ["schema", *arguments])


_SOURCE = """
from pabal import DomainEvent

class DoorOpened(DomainEvent):
    event_type = "schema-test.door"
    door: str
    {field}
"""


def test_schema_export_writes_a_snapshot_that_schema_check_compares_with(module: Path) -> None:
    """A build could not check its events with one command."""
    module.write_text(_SOURCE.format(field="by: str"))
    assert _run("export", "schema_test_events", "--output", "events.json").exit_code == 0
    printed = _run("export", "schema_test_events")
    assert printed.output == Path("events.json").read_text()

    fine = _run("check", "events.json", "schema_test_events")
    assert (fine.exit_code, "all stored events can be read" in fine.output) == (0, True)

    module.write_text(_SOURCE.format(field="by_whom: str"))
    wrong = _run("check", "events.json", "schema_test_events")
    assert wrong.exit_code == 1
    assert "schema-test.door.by: the field was removed" in wrong.output
    as_json = _run("check", "events.json", "schema_test_events", "--json")
    assert as_json.exit_code == 1
    report = json.loads(as_json.output)
    found = {each["field"] for each in report["findings"] if each["event_type"] == "schema-test.door"}
    assert (report["ok"], found) == (False, {"by", "by_whom"})


def test_schema_commands_that_cannot_run_exit_with_status_two(module: Path) -> None:
    """A build would mistake a missing file for a passed check."""
    module.write_text(_SOURCE.format(field="by: str"))
    Path("broken.json").write_text("{")
    for arguments in (
        ("check", "missing.json", "schema_test_events"),
        ("check", "broken.json", "schema_test_events"),
        ("export", "no_such_module_of_events"),
        ("export", "schema_test_events", "-o", "no/such/folder/events.json"),
    ):
        assert _run(*arguments).exit_code == 2
