"""Type checkers accept the code that applications write, and find the mistakes in it."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

USER_CODE = """
import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, ClassVar, assert_type

import msgspec

from pabal import DomainEvent, InMemoryEventBus, Receipt, RetryPolicy, Subscription, register_event, upcaster


class OrderEvent(DomainEvent):
    aggregate_type: ClassVar[str | None] = "order"
    order_id: str

    @property
    def aggregate_id(self) -> str:
        return self.order_id


class OrderPlaced(OrderEvent):
    event_type: ClassVar[str] = "order.placed"
    schema_version: ClassVar[int] = 2
    symbol: str
    quantity: Decimal
    price: Decimal | None = None
    tags: tuple[str, ...] = ()
    notes: list[str] = msgspec.field(default_factory=list[str])


class Configured(DomainEvent, kw_only=True):
    depth: int = 3
    name: str


@dataclass(frozen=True)
class PriceSeen:
    symbol: str


register_event(PriceSeen, event_type="price.seen", aggregate_id="symbol")
assert_type(register_event(PriceSeen), type[PriceSeen])


@upcaster("order.placed", from_version=1)
def add_symbol(payload: Mapping[str, Any]) -> Mapping[str, Any]:
    return {**payload, "symbol": "KRW-BTC"}


event = OrderPlaced("o-1", "KRW-BTC", Decimal("0.5"))
OrderPlaced("o-1", "KRW-BTC", Decimal("0.5"), None, ("a",), ["b"])
OrderPlaced(order_id="o-1", symbol="KRW-BTC", quantity=Decimal(1), metadata={"desk": "A"})
OrderPlaced("o-1", "KRW-BTC", Decimal(1), occurred_at=datetime.now(UTC), correlation_id="c")
Configured(name="x")
assert_type(event.quantity, Decimal)
assert_type(event.price, Decimal | None)
assert_type(event.event_id, str)
assert_type(event.aggregate_id, str)
assert_type(event.metadata, Mapping[str, Any])
assert_type(event.to_dict(), dict[str, Any])
print(event.metadata["desk"], event == event, {event: 1})

OrderPlaced("o-1", "KRW-BTC", 0.5)  # error
OrderPlaced("o-1", "KRW-BTC")  # error
OrderPlaced("o-1", "KRW-BTC", Decimal(1), None, (), [], "id")  # error
OrderPlaced("o-1", "KRW-BTC", Decimal(1), amount=3)  # error
Configured("x")  # error
event.symbol = "KRW-ETH"  # error
event.event_id = "x"  # error
event.metadata["desk"] = "B"  # error
event.no_such_field  # error


class Calls:
    async def handle(self, event: OrderPlaced) -> None: ...


async def main() -> None:
    bus = InMemoryEventBus(worker_count=4)
    async with bus:

        @bus.on(OrderPlaced, name="check-risk", priority=1, retry=RetryPolicy(max_attempts=4))
        async def check_risk(event: OrderPlaced) -> None: ...

        assert_type(bus.subscribe(OrderPlaced, Calls(), where=lambda e: e.quantity > 10), Subscription)
        receipt = await bus.publish(event)
        assert_type(receipt, Receipt)
        assert_type(receipt.position, int | None)
        await bus.publish_batch([event, PriceSeen("BTC")])
        bus.subscribe(OrderPlaced, Calls(), on_exhausted="explode")  # error
        InMemoryEventBus(worker_count="many")  # error
        bus.publish(event, dilay=3)  # error


asyncio.run(main())
"""

HANDLERS = """
from abc import abstractmethod
from typing import ClassVar, assert_type

from pabal import BaseEventBus, DeliveryContext, DomainEvent, EventBus, EventBusFactory
from pabal.domain import Aggregate, applies
from pabal.eventsourcing import Repository
from pabal.testing import EventRecorder, given


class Lit(DomainEvent):
    lamp: str

    @property
    def aggregate_id(self) -> str:
        return self.lamp


class Broken(DomainEvent):
    cause: str


class OfLamps(DomainEvent):
    _abstract: ClassVar[bool] = True

    @property
    @abstractmethod
    def aggregate_id(self) -> str: ...


class Lamp(Aggregate):
    is_lit: bool = False

    def light(self) -> bool:
        self.record(Lit(self.id))
        return self.is_lit

    @applies(Lit)
    def _lit(self, event: Lit) -> None:
        self.is_lit = True


class Note:
    def handle(self, event: Lit, context: DeliveryContext) -> None: ...


bus: BaseEventBus = EventBusFactory.from_url("memory://")
as_protocol: EventBus = bus


@bus.on(Lit, name="one", where=lambda event: event.lamp == "hall", ordering=lambda event: event.lamp)
async def one(event: Lit) -> int:
    return 1


@bus.on(Lit, batch=50, where=lambda event: event.lamp == "hall")
async def many(events: list[Lit]) -> None: ...


@bus.on((Lit, Broken), where=lambda event: bool(event.event_id))
@bus.on("lit.*", name="pattern")
def all_of_them(event: DomainEvent, context: DeliveryContext) -> None: ...


async def rename(lamp: Lamp) -> str:
    return lamp.id


async def main() -> None:
    assert_type(await one(Lit("hall")), int)
    await many([Lit("hall")])
    bus.subscribe(Lit, one, where=lambda event: event.lamp == "hall")
    bus.subscribe(Lit, all_of_them)
    bus.subscribe(Lit, Note(), timeout=5)
    bus.subscribe(Lit, lambda event: print(event.lamp))
    bus.subscribe(Lit, lambda event, context: print(event.lamp, context.attempt))
    bus.subscribe(Lit, many, batch=10)
    bus.subscribe((Lit, Broken), all_of_them, batch=None)
    assert_type(await bus.wait_for(Lit, where=lambda event: event.lamp == "hall", timeout=5), Lit)
    assert_type((await EventBusFactory.create_default_event_bus("x.db").wait_for(Lit)).lamp, str)
    await bus.wait_for((Lit, Broken), where=lambda event: bool(event))
    lamps = Repository(Lamp, EventBusFactory.create_default_event_bus("x.db"))
    bus.subscribe(OfLamps, all_of_them, where=lambda event: event.aggregate_id == "hall")
    bus.on(OfLamps, name="of lamps")(all_of_them)
    assert_type(await bus.wait_for(OfLamps), OfLamps)
    assert_type(EventRecorder(bus).published_of(OfLamps), list[OfLamps])
    assert_type(await lamps.update("hall", rename), str)
    assert_type(await lamps.update("hall", lambda lamp: lamp.light()), bool)
    given(Lamp).when(lambda lamp: lamp.light()).then(Lit("test"))

    bus.subscribe(Broken, one)  # error
    bus.subscribe(Broken, Note())  # error
    bus.subscribe(Lit, many)  # error
    bus.subscribe(Lit, one, batch=10)  # error
    bus.subscribe(Lit, one, where=lambda event: event.cause)  # error
    bus.on(Lit, where=lambda event: event.cause)  # error
    bus.on(Lit, nam="one")  # error
    bus.on(Lit, on_exhausted="explode")  # error
    await bus.wait_for(Lit, where=lambda event: event.cause)  # error
"""


def expected(code: str) -> set[int]:
    """Return the lines in which the checkers have to find a mistake, and no others."""
    return {number for number, line in enumerate(code.splitlines(), 1) if line.endswith("# error")}


@pytest.fixture(name="code", params=[USER_CODE, HANDLERS], ids=["events", "handlers"])
def _code(request: pytest.FixtureRequest) -> str:
    code: str = request.param
    return code


@pytest.fixture(name="module")
def _module(tmp_path: Path, code: str) -> Path:
    path = tmp_path / "application.py"
    path.write_text(code)
    return path


def test_mypy_accepts_correct_application_code_and_finds_the_mistakes(
    module: Path, code: str, request: pytest.FixtureRequest
) -> None:
    """Positional constructors would be errors in every application, or handlers of a wrong event none."""
    kept = getattr(request.config, "cache", None)
    cache = kept.mkdir("mypy") if kept else module.parent
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--cache-dir",
        str(cache),
        "--config-file=",
        str(module),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=module.parent)
    found = {int(line) for line in re.findall(r"application\.py:(\d+): error", done.stdout)}
    assert found == expected(code), done.stdout + done.stderr


def test_pyright_accepts_correct_application_code_and_finds_the_mistakes(module: Path, code: str) -> None:
    """An editor would underline every event that an application makes, or every condition."""
    pyright = shutil.which("pyright", path=str(Path(sys.executable).parent))
    if pyright is None:
        pytest.skip("pyright is not installed")
    (module.parent / "pyrightconfig.json").write_text('{"typeCheckingMode": "strict"}')
    command = [pyright, "--outputjson", "--pythonpath", sys.executable, "--project", str(module.parent)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=module.parent)
    try:
        report = json.loads(done.stdout)
    except ValueError:
        pytest.skip(f"pyright could not be started: {done.stderr[-200:]}")
    errors = [one for one in report["generalDiagnostics"] if one["severity"] == "error"]
    assert {one["range"]["start"]["line"] + 1 for one in errors} == expected(code), errors
