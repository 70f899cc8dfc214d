"""AsyncAPI documents, validated against the official schema."""

from __future__ import annotations

import gzip
import hashlib
import json
import subprocess
import sys
from datetime import datetime
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any, ClassVar

import jsonschema
import msgspec
import pytest

from pabal import DomainEvent, InMemoryEventBus
from pabal.domain import registry
from pabal.integrations.asyncapi import asyncapi_document

_FOLDER = Path(__file__).parent / "schemas"


class Side(Enum):
    BUY = "buy"
    SELL = "sell"


class Leg(msgspec.Struct, frozen=True):
    symbol: str
    inner: Leg | None = None


class Traded(DomainEvent):
    event_type: ClassVar[str] = "asyncdoc.traded"
    aggregate_type: ClassVar[str] = "trade"
    side: Side
    price: Decimal
    legs: tuple[Leg, ...] = ()


class Odd(DomainEvent):
    event_type: ClassVar[str] = "asyncdoc.odd name/~1"


def _official_schema() -> Any:
    text = gzip.decompress((_FOLDER / "asyncapi-3.0.0.json.gz").read_bytes())
    assert hashlib.sha256(text).hexdigest() in (_FOLDER / "README.md").read_text("utf-8")
    return json.loads(text)


def _document() -> dict[str, Any]:
    bus = InMemoryEventBus()

    async def handle(event: Traded) -> None: ...

    all_events = bus.subscribe("asyncdoc.*", handle, name="report:all")
    one = bus.subscribe(Traded, handle, name="risk")
    document = asyncapi_document([all_events, one], title="Desk", version="1.2.0", event_types="asyncdoc.")
    decoded: dict[str, Any] = json.loads(json.dumps(document))
    return decoded


def _validator() -> Any:
    return jsonschema.Draft7Validator(_official_schema())


def test_the_document_validates_against_the_official_schema() -> None:
    """Generators and viewers of AsyncAPI would reject it."""
    assert [error.message for error in _validator().iter_errors(_document())] == []


def test_the_official_schema_rejects_an_invalid_document() -> None:
    """The test above would pass whatever the document contains."""
    document = _document()
    document["operations"]["risk.asyncdoc.traded"]["action"] = "subscribe"
    assert list(_validator().iter_errors(document)) != []


def test_every_reference_in_the_document_resolves() -> None:
    """A viewer would show nothing in place of the payload."""
    document = _document()

    def check(node: Any) -> None:
        if isinstance(node, dict):
            if isinstance(node.get("$ref"), str):
                found: Any = document
                for part in node["$ref"].removeprefix("#/").split("/"):
                    found = found[part]
            for value in node.values():
                check(value)
        elif isinstance(node, list):
            for value in node:
                check(value)

    check(document)


def test_the_document_lists_the_senders_and_receivers_of_each_event() -> None:
    """Readers would not learn which subscription an event reaches."""
    operations = _document()["operations"]
    received = {name for name, operation in operations.items() if operation["action"] == "receive"}
    assert received == {
        "report-all.asyncdoc.traded",
        "report-all.asyncdoc.odd-name--1",
        "risk.asyncdoc.traded",
    }
    assert {name for name in operations if name not in received} == {
        "publish.asyncdoc.traded",
        "publish.asyncdoc.odd-name--1",
    }


def test_a_stored_payload_validates_against_its_schema_in_the_document() -> None:
    """A consumer in another language would be generated for another payload."""
    document = _document()
    schema = {**document["components"]["schemas"]["asyncdoc.traded"], "components": document["components"]}
    payload = Traded(Side.BUY, Decimal("1.5"), (Leg("A", Leg("B")),)).to_dict()["payload"]
    payload = json.loads(json.dumps(payload))
    jsonschema.validate(payload, schema, jsonschema.Draft202012Validator)
    assert list(jsonschema.Draft202012Validator(schema).iter_errors({**payload, "side": "hold"})) != []


def test_names_that_differ_only_in_forbidden_characters_stay_distinct() -> None:
    """One of two subscriptions would be missing from the document."""
    bus = InMemoryEventBus()

    async def handle(event: Traded) -> None: ...

    both = [bus.subscribe(Traded, handle, name=name) for name in ("a:b", "a/b", "publish")]
    document = asyncapi_document(both, title="Desk", version="1", event_types="asyncdoc.traded")
    assert set(document["operations"]) == {
        "a-b.asyncdoc.traded",
        "a-b-2.asyncdoc.traded",
        "publish-2.asyncdoc.traded",
        "publish.asyncdoc.traded",
    }


def test_operations_with_colliding_joined_names_all_stay_in_the_document() -> None:
    """The sender or receiver of an event would be missing from the document."""
    with registry.isolated():

        class Placed(DomainEvent):
            event_type: ClassVar[str] = "asyncops.placed"

        class OrderPlaced(DomainEvent):
            event_type: ClassVar[str] = "asyncops.asyncops.placed"

        bus = InMemoryEventBus()

        async def handle(event: DomainEvent) -> None: ...

        all_events = [
            bus.subscribe(OrderPlaced, handle, name="audit"),
            bus.subscribe(Placed, handle, name="audit.asyncops"),
            bus.subscribe(Placed, handle, name="publish.asyncops"),
        ]
        document = asyncapi_document(all_events, title="Desk", version="1", event_types="asyncops.")
    described = {
        (operation["action"], operation.get("title"), operation["channel"]["$ref"].rpartition("/")[2])
        for operation in document["operations"].values()
    }
    assert described == {
        ("send", None, "asyncops.placed"),
        ("send", None, "asyncops.asyncops.placed"),
        ("receive", "audit", "asyncops.asyncops.placed"),
        ("receive", "audit.asyncops", "asyncops.placed"),
        ("receive", "publish.asyncops", "asyncops.placed"),
    }


APPLICATION = """
from pabal import DomainEvent, InMemoryEventBus
from pabal.domain import registry

class Baked(DomainEvent):
    event_type = "bakery.baked"
    loaf: str

bus = InMemoryEventBus()
bus.subscribe(Baked, lambda event: None, name="sell")
"""


def _run_asyncapi(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    (folder / "bakery.py").write_text(APPLICATION, "utf-8")
    command = [sys.executable, "-m", "pabal", "asyncapi", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=60)


def test_the_asyncapi_command_prints_the_document_of_an_application(tmp_path: Path) -> None:
    """A build step would need its own script."""
    result = _run_asyncapi(tmp_path, "bakery:bus", "--title", "Bakery", "--types", "bakery.")
    assert result.returncode == 0, result.stderr
    document = json.loads(result.stdout)
    assert list(_validator().iter_errors(document)) == []
    assert set(document["operations"]) == {"publish.bakery.baked", "sell.bakery.baked"}


@pytest.mark.parametrize("application", ["no_such_module", "bakery:nothing", "bakery:Baked", ""])
def test_the_asyncapi_command_rejects_an_invalid_application(tmp_path: Path, application: str) -> None:
    """A mistyped name would end in a traceback, or an empty document."""
    result = _run_asyncapi(tmp_path, application)
    assert (result.returncode, result.stdout) == (2, "")
    assert "Traceback" not in result.stderr


def test_an_event_named_like_a_nested_struct_gets_a_separate_schema() -> None:
    """The field would refer to the event's schema, and every consumer decode it wrongly."""
    with registry.isolated():

        class Settled(DomainEvent):
            event_type: ClassVar[str] = "asyncdoc.settled"
            leg: Leg
            at: datetime

        class Other(DomainEvent):
            event_type: ClassVar[str] = "Leg"
            fee: int

        document = asyncapi_document(title="Desk", version="1")
    schemas = document["components"]["schemas"]
    assert schemas["asyncdoc.settled"]["properties"]["at"] == {"type": "string", "format": "date-time"}
    reference = schemas["asyncdoc.settled"]["properties"]["leg"]["$ref"]
    assert schemas[reference.rpartition("/")[2]]["properties"].keys() == {"symbol", "inner"}
    (channel,) = [each for each in document["channels"].values() if each["address"] == "Leg"]
    (message,) = channel["messages"]
    payload = document["components"]["messages"][message]["payload"]["$ref"]
    assert schemas[payload.rpartition("/")[2]]["properties"].keys() == {"fee"}
