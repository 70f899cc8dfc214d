"""The guide is complete: what exists is described, and what is described exists."""

from __future__ import annotations

import builtins
import importlib
import inspect
import pkgutil
import re
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pytest

import pabal
from pabal import (
    DeliveryContext,
    InMemoryEventBus,
    InMemoryEventStorage,
    RetryPolicy,
    SqliteEventStorage,
    errors,
    testing,
)
from pabal.bus.dead_letters import DeadLetter, DeadLetters
from pabal.bus.subscriptions import Subscriptions
from pabal.cli.app import commands
from pabal.domain.envelope import Envelope, Receipt
from pabal.ports import telemetry
from pabal.ports.inspection import ActionLog, LogInspection
from pabal.ports.storage import AttemptFailure, SubscriptionRecord
from pabal.storage.sqlite.transaction import Transaction
from pabal.testing import pytest_plugin
from tests.cli.texts import subcommands
from tests.docs.pages import ROOT, all_pages, blocks_of, first_column, name_of, prose_of, section_of, spans_of

_GUIDE = ROOT / "docs" / "guide.md"
_ERRORS = {
    name: value
    for name, value in vars(errors).items()
    if inspect.isclass(value) and issubclass(value, errors.PabalError)
}


def _names(text: str) -> set[str]:
    """Return the code spans of a text, each cut down to the name it begins with."""
    return {re.split(r"[(=,\s]", span, maxsplit=1)[0].strip('"') for span in re.findall(r"`([^`]+)`", text)}


def _parameters(function: Any) -> set[str]:
    return set(inspect.signature(function).parameters) - {"self", "options"}


def _public(cls: type) -> set[str]:
    return {name for name in dir(cls) if not name.startswith("_")}


def _tables(section: str) -> list[str]:
    """Return the tables of a section, each as one text."""
    return re.findall(r"(?:^\|.*\n)+", section, re.MULTILINE)


def _table_with(heading: str, header: str) -> str:
    for table in _tables(section_of(_GUIDE, heading) + "\n"):
        if header in table.splitlines()[0]:
            return table
    raise AssertionError(f"the guide has no table {header!r} under {heading!r}")


# -- options ------------------------------------------------------------------------------------------------


def test_the_guide_describes_exactly_the_options_of_subscribe() -> None:
    """An option would be unknown to readers, or promised and not there."""
    assert set(first_column(_table_with("Subscribing", "option"))) == _parameters(InMemoryEventBus.subscribe)


def test_the_guide_describes_exactly_the_options_of_a_bus() -> None:
    """An option would be unknown to readers, or promised and not there."""
    assert set(first_column(_table_with("Buses", "option"))) == _parameters(InMemoryEventBus)


def test_the_guide_describes_every_constructor_of_the_factory() -> None:
    """A way to make a bus would be unknown to readers."""
    described = set(first_column(_table_with("Buses", "constructor")))
    made_by_factory = {f"EventBusFactory.{name}" for name in _public(pabal.EventBusFactory)}
    assert described == made_by_factory | {"InMemoryEventBus"}


@pytest.mark.parametrize(
    ("heading", "header", "struct"),
    [
        ("When a handler fails", "`RetryPolicy`", RetryPolicy),
        ("Subscribing", "`DeliveryContext`", DeliveryContext),
    ],
)
def test_the_guide_describes_exactly_the_fields_of_each_record(
    heading: str, header: str, struct: type
) -> None:
    """A field would be unknown to readers, or promised and not there."""
    assert set(first_column(_table_with(heading, header))) - {struct.__name__} == set(_fields(struct))


def test_the_guide_describes_exactly_the_fields_of_a_dead_letter() -> None:
    """A field would be unknown to readers, or promised and not there."""
    described = set(first_column(_table_with("When a handler fails", "`DeadLetter`"))) - {"DeadLetter"}
    assert described == {*_fields(DeadLetter), "event", "payload"}


def test_the_retry_policy_table_shows_the_actual_defaults() -> None:
    """Readers would count on other delays than they get."""
    table = _table_with("When a handler fails", "`RetryPolicy`")
    for field in msgspec.structs.fields(RetryPolicy):
        row = next(line for line in table.splitlines() if line.startswith(f"| `{field.name}`"))
        shown = row.split("|")[3].strip().strip("`")
        default = field.default
        text = str(default) if not isinstance(default, tuple) else _classes_text(default)
        assert shown == text, field.name


def _classes_text(classes: tuple[type, ...]) -> str:
    names = ", ".join(cls.__name__ for cls in classes)
    return f"({names},)" if len(classes) == 1 else f"({names})"


def _fields(struct: type) -> tuple[str, ...]:
    return tuple(struct.__struct_fields__)  # type: ignore[attr-defined]


# -- calls --------------------------------------------------------------------------------------------------


def test_the_guide_describes_every_public_call_of_a_bus() -> None:
    """A call would be unknown to readers."""
    text = _GUIDE.read_text("utf-8")
    missing = {name for name in _public(InMemoryEventBus) if not re.search(rf"\b{name}\b", text)}
    assert missing - {"is_running", "storage"} == set()


def test_the_guide_describes_every_call_of_the_dead_letters() -> None:
    """A call would be unknown to readers."""
    described = _names(section_of(_GUIDE, "When a handler fails"))
    wanted = {name for name in _public(DeadLetters) if name != "check_decodable"}
    missing = {name for name in wanted if f"bus.dead_letters.{name}" not in described}
    assert not missing


def test_the_guide_describes_every_call_that_controls_subscriptions() -> None:
    """A call would be unknown to readers."""
    described = _names(section_of(_GUIDE, "Controlling subscriptions"))
    assert {f"bus.subscriptions.{name}" for name in _public(Subscriptions)} - described == set()


def test_the_guide_describes_every_call_of_a_storage_that_an_application_makes() -> None:
    """A call would be unknown to readers."""
    # The rest is the port between a bus and its storage, and is described there.
    for_the_bus = {
        "add_control_listener",
        "add_listener",
        "append_events",
        "begin_retry",
        "capabilities",
        "discard_dead_letter",
        "durability",
        "get_dead_letter",
        "journal",
        "listen_to_others",
        "list_dead_letters",
        "max_payload_bytes",
        "note_halt",
        "open_subscription",
        "parked_positions",
        "path",
        "poll_controls",
        "poll_head",
        "queued_positions",
        "latest_samples",
        "read_controls",
        "read_series",
        "record_sample",
        "read_page",
        "read_positions",
        "release_due",
        "release_subscription",
        "renew_leases",
        "request_reopening",
        "save_progress",
        "schedule_event",
    }
    # What operators ask is described with pabal.operations, and what the doctor asks with the doctor.
    for_the_bus |= {
        name for port in (ActionLog, LogInspection) for name in vars(port) if not name.startswith("_")
    }
    for_the_bus.add("noted_durability")
    described = {name.removeprefix("storage.") for name in _names(section_of(_GUIDE, "Storage"))}
    for storage in (SqliteEventStorage, InMemoryEventStorage):
        assert _public(storage) - for_the_bus - described == set()


def test_the_guide_names_every_public_name() -> None:
    """A name that can be imported from pabal would be explained nowhere."""
    text = _GUIDE.read_text("utf-8")
    missing = {name for name in pabal.__all__ if not re.search(rf"\b{name}\b", text)}
    # Protocols that applications only annotate with, and the version.
    assert missing - {"EventBus", "__version__"} == set()


def test_the_guide_names_every_field_of_receipts_envelopes_failures_and_records() -> None:
    """A field would be unknown to readers."""
    described = _names(prose_of(_GUIDE))
    for struct in (Receipt, Envelope, AttemptFailure, SubscriptionRecord):
        assert set(_fields(struct)) - described == set(), struct.__name__


def test_the_guide_describes_every_call_of_a_transaction() -> None:
    """A call would be unknown to readers."""
    described = _names(section_of(_GUIDE, "Storage"))
    wanted = {"execute", "executemany", "store_event", "store_events"}
    assert wanted <= _public(Transaction)
    assert {name for name in wanted if f"tx.{name}" not in described} == set()


# -- errors -------------------------------------------------------------------------------------------------


def test_the_error_table_lists_every_error_under_its_branch() -> None:
    """A reader who gets an error would not find who has to act."""
    branches: dict[str, str] = {}
    for line in _tables(section_of(_GUIDE, "Errors"))[0].splitlines()[2:]:
        who, listed = line.split("|")[1:3]
        branch = re.search(r"\(`(\w+)`\)", who)
        for name in re.findall(r"`(\w+)`", listed):
            branches[name] = branch[1] if branch else ""
    named_as_branch = set(filter(None, branches.values()))
    assert set(branches) | named_as_branch | {"PabalError"} == set(_ERRORS)
    for name, above in branches.items():
        if above:
            assert issubclass(_ERRORS[name], _ERRORS[above]), name


def test_the_tree_in_the_errors_module_matches_the_class_hierarchy() -> None:
    """The tree that everybody reads first would be wrong."""
    drawn: dict[str, str | None] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"^    ((?:[│ ]   )*)(?:[├└]── )?(\w+Error)\b", line)
        if not found:
            continue
        depth = len(found[1]) // 4 + ("──" in line)
        path = [*path[:depth], found[2]]
        drawn[found[2]] = path[-2] if depth else None
    assert set(drawn) == set(_ERRORS)
    for name, parent in drawn.items():
        assert parent is None or _ERRORS[parent] in _ERRORS[name].__bases__, name


# -- figures ------------------------------------------------------------------------------------------------


async def test_the_guide_describes_exactly_the_keys_of_the_statistics() -> None:
    """A figure would be unknown to readers, or promised and not there."""
    bus = InMemoryEventBus()

    async def handle(event: pabal.DomainEvent) -> None: ...

    bus.subscribe(pabal.DomainEvent, handle, name="any")
    figures = bus.get_statistics()
    assert set(first_column(_table_with("Statistics and health", "| key |"))) == set(figures)
    of_one = set(first_column(_table_with("Statistics and health", "key of a subscription")))
    assert of_one == set(figures["subscriptions"]["any"])


async def test_the_guide_names_every_key_of_the_event_statistics() -> None:
    """A figure would be unknown to readers."""
    figures = await InMemoryEventStorage().get_event_statistics()
    assert set(figures) <= _names(section_of(_GUIDE, "Storage"))


def test_the_guide_describes_every_telemetry_report() -> None:
    """A report would be unknown to readers."""
    reports = {
        name
        for name, value in vars(telemetry).items()
        if inspect.isclass(value) and issubclass(value, telemetry.Report) and value is not telemetry.Report
    }
    assert set(first_column(_table_with("Statistics and health", "| report |"))) == reports


# -- commands -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", ["guide.md", "guide.ko.md"])
def test_the_guide_describes_exactly_the_commands_of_the_shell(page: str) -> None:
    """A command would be unknown to readers, or promised and not there."""
    text = (ROOT / "docs" / page).read_text("utf-8")
    named = set(re.findall(r"^\| `pabal ([a-z-]+)", text, re.MULTILINE))
    assert named == {name for name, _ in subcommands(commands)}


def test_the_guide_describes_the_whole_testing_kit() -> None:
    """A help for tests would be unknown to readers, or promised and not there."""
    text = section_of(_GUIDE, "Testing your application") + "".join(block.text for block in blocks_of(_GUIDE))
    assert {name for name in testing.__all__ if name not in text} == set()
    fixtures = set(first_column(_table_with("Testing your application", "fixture")))
    functions = inspect.getmembers(pytest_plugin, lambda value: "fixture" in type(value).__name__.lower())
    assert fixtures == {name for name, _ in functions}


# -- names in prose -----------------------------------------------------------------------------------------


@cache
def _known_names() -> frozenset[str]:
    """Return every name that Python, pabal or the benchmarks know, and two that name no object."""
    known = {*vars(builtins), "ProcessDied", "TestEvent"}
    known |= set(vars(importlib.import_module("benchmarks.harness")))
    for module in pkgutil.walk_packages(pabal.__path__, "pabal."):
        if not module.name.endswith("__main__"):
            known |= set(vars(importlib.import_module(module.name)))
    return frozenset(known)


def _classes_beside(page: Path) -> set[str]:
    """Return the classes of the example that a page is about."""
    if ROOT / "examples" not in page.parents:
        return set()
    texts = (file.read_text("utf-8") for file in page.parent.rglob("*.py"))
    return {name for text in texts for name in re.findall(r"^class (\w+)", text, re.MULTILINE)}


@cache
def _source_of(owner: type) -> str:
    return "".join(inspect.getsource(each) for each in owner.__mro__ if each.__module__.startswith("pabal."))


@pytest.mark.parametrize("page", all_pages(), ids=name_of)
def test_every_code_name_on_a_page_exists(page: Path) -> None:
    """Readers would look for something that was renamed, or never was there."""
    known = _known_names() | _classes_beside(page)
    code = " ".join(block.text for block in blocks_of(page))
    owners = {
        "bus": InMemoryEventBus,
        "storage": SqliteEventStorage,
        "tx": Transaction,
        "Appender": importlib.import_module("pabal.storage.sqlite.appender").Appender,
        "Consumer": importlib.import_module("pabal.delivery.consumer").Consumer,
        "EventBusFactory": pabal.EventBusFactory,
        "EventSchema": importlib.import_module("pabal.domain.schema").EventSchema,
    }
    unknown: list[str] = []
    for span in spans_of(page):
        dotted = re.match(r"^(?:await )?(\w+)\.(\w+)", span)
        if dotted and dotted[1] in owners:
            owner = owners[dotted[1]]
            if not hasattr(owner, dotted[2]) and f"self.{dotted[2]}" not in _source_of(owner):
                unknown.append(span)
        elif re.match(r"^(?:[A-Z][a-z]+){2,}$", span) and span not in known and span not in code:
            unknown.append(span)
    assert not unknown
