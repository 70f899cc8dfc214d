"""A process manager takes orders from placed to shipped, with a timeout and compensation."""

from __future__ import annotations

import asyncio
from dataclasses import field
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar

import pytest

from pabal import InMemoryEventBus, InMemoryEventStorage, SqliteEventStorage
from pabal.cqrs import (
    Command,
    CommandBus,
    Idempotency,
    ProcessManager,
    ProcessManagers,
    ProcessTimedOut,
    on_timeout,
    reacts,
    starts,
)
from pabal.errors import HandlerNotFoundError, ProcessDefinitionError, UsageError
from pabal.eventsourcing import Repository
from pabal.testing import VirtualClock
from tests.cqrs.support import (
    CqrsOrder,
    Fulfilment,
    OrderPaid,
    OrderPlaced,
    PlaceOrder,
    make_commands,
)


class Shop:
    """Run the shop on a storage, as one process would."""

    def __init__(self, storage: Any, clock: VirtualClock | None = None) -> None:
        self.clock = clock or VirtualClock()
        self.bus = InMemoryEventBus(storage, clock=self.clock, seed=1)
        self.commands = make_commands(self.bus)
        self.processes = ProcessManagers(self.bus, self.commands, clock=self.clock)
        self.processes.add(Fulfilment, start="beginning")
        self.orders = Repository(CqrsOrder, self.bus)

    async def settle(self) -> None:
        """Drain until no more events are published: an event may cause further ones."""
        storage: Any = self.bus.storage
        before = -1
        while before != (before := await storage.head()):
            await self.clock.settle()  # lets the bus notice events just stored in memory
            await self.bus.drain(timeout=30)

    async def history(self, order: str) -> tuple[str, ...]:
        return (await self.orders.load(order)).history


async def test_a_process_turns_events_into_commands_until_it_ends(storage: Any) -> None:
    """An order would be placed, and nothing would follow."""
    shop = Shop(storage)
    async with shop.bus:
        await shop.commands.execute(PlaceOrder("o-1"))
        await shop.settle()
        assert await shop.history("o-1") == ("placed", "paid", "shipped")
        process = await shop.processes.load(Fulfilment, "o-1")
        assert process is not None
        assert (process.steps, process.ended, process.amount) == (
            ("placed", "paid", "shipped"),
            True,
            Decimal(10),
        )
        assert await shop.processes.load(Fulfilment, "o-2") is None


async def test_a_timeout_survives_a_restart(storage: Any) -> None:
    """An order that is never paid would stay open forever if the application restarts meanwhile."""
    shop = Shop(storage)
    async with shop.bus:
        await shop.commands.execute(PlaceOrder("o-1", Decimal(1000)))
        await shop.settle()
        await shop.clock.advance(30)
    clock = VirtualClock(start=shop.clock.time())
    shop = Shop(storage, clock)
    async with shop.bus:
        await clock.advance(29)
        await shop.settle()
        assert await shop.history("o-1") == ("placed",)
        await clock.advance(2)
        await _until(shop, "o-1", ("placed", "cancelled"))
        process = await shop.processes.load(Fulfilment, "o-1")
        assert process is not None
        assert process.steps == ("placed", "unpaid")


async def _until(shop: Shop, order: str, history: tuple[str, ...]) -> None:
    async with asyncio.timeout(30):
        while await shop.history(order) != history:
            await shop.clock.settle()
    await shop.settle()


async def test_a_cancelled_timeout_does_nothing(storage: Any) -> None:
    """A paid order would be cancelled a minute later."""
    shop = Shop(storage)
    async with shop.bus:
        await shop.bus.publish(OrderPlaced("o-1", Decimal(1000)))
        await shop.settle()
        await Repository(CqrsOrder, storage).update("o-1", CqrsOrder.pay)
        await shop.settle()
        head = await storage.head()
        await shop.clock.advance(61)
        async with asyncio.timeout(30):
            while await storage.head() == head:  # the timeout's event is delivered, and ignored
                await shop.clock.settle()
        await shop.settle()
        assert await shop.history("o-1") == ("placed", "paid", "shipped")


async def test_a_rejected_command_is_compensated(storage: Any) -> None:
    """A process would hang at the first rejection, or send the same command forever."""
    shop = Shop(storage)
    await shop.orders.update("o-1", lambda order: order.place(Decimal(10)))
    await shop.orders.update("o-1", lambda order: order.cancel("by the customer"))
    async with shop.bus:
        await shop.settle()
        process = await shop.processes.load(Fulfilment, "o-1")
        assert process is not None
        assert (process.steps, process.ended) == (("placed", "rejected"), True)
        assert await shop.history("o-1") == ("placed", "cancelled", "cancelled")
        head = await storage.head()
        await shop.bus.subscriptions.reset("process:cqrs_fulfilment", "beginning")
        await shop.settle()
        assert await storage.head() == head
        assert await shop.bus.dead_letters.list() == []


async def test_a_redelivered_event_sends_no_command_again(storage: Any) -> None:
    """After a crash, an order would be paid twice."""
    shop = Shop(storage)
    async with shop.bus:
        await shop.commands.execute(PlaceOrder("o-1"))
        await shop.settle()
        head = await storage.head()
        await shop.bus.subscriptions.reset("process:cqrs_fulfilment", "beginning")
        await shop.settle()
        assert await storage.head() == head
        assert await shop.history("o-1") == ("placed", "paid", "shipped")


async def test_an_event_without_an_instance_is_ignored(storage: Any) -> None:
    """A payment for an unknown order would start a process in the middle."""
    shop = Shop(storage)
    async with shop.bus:
        await shop.bus.publish(OrderPaid("stray"))
        await shop.settle()
        assert await storage.head() == 1
        assert await shop.processes.load(Fulfilment, "stray") is None


async def test_an_instance_started_by_another_process_continues_from_its_stored_state(storage: Any) -> None:
    """A process that had found no such instance earlier would keep believing so, and drop its events."""
    here, there = Shop(storage), Shop(storage)
    async with here.bus:
        await here.bus.publish(OrderPaid("o-1"))
        await here.settle()
    async with there.bus:
        await there.bus.publish(OrderPlaced("o-1", Decimal(2000)))
        await there.settle()
    async with here.bus:
        await here.bus.publish(OrderPaid("o-1"))
        await here.settle()
        found = await here.processes.load(Fulfilment, "o-1")
        assert found is not None
        assert found.steps[:2] == ("placed", "paid")


async def test_a_process_whose_first_steps_were_trimmed_continues(tmp_path: Path) -> None:
    """Its next event would be rejected forever, and all later events of its key would queue behind it."""
    placed = OrderPlaced("o-1", Decimal(2000))
    async with SqliteEventStorage(tmp_path / "shop.db", durability="normal") as storage:
        shop = Shop(storage)
        async with shop.bus:
            for _ in range(2):
                await shop.bus.publish(OrderPlaced("o-1", placed.amount))
                await shop.settle()
        assert (await storage.trim(max_events=1)).deleted == 3
        shop = Shop(storage)
        async with shop.bus:
            await shop.bus.publish(placed)
            await shop.settle()
            found = await shop.processes.load(Fulfilment, "o-1")
            assert found is not None
            assert found.steps == ("placed", "placed", "placed")


async def test_a_process_whose_steps_were_all_trimmed_can_start_again(tmp_path: Path) -> None:
    """A customer's second order would be rejected forever because the first one was trimmed."""
    async with SqliteEventStorage(tmp_path / "shop.db", durability="normal") as storage:
        shop = Shop(storage)
        async with shop.bus:
            await shop.bus.publish(OrderPlaced("o-1", Decimal(2000)))
            await shop.settle()
            await shop.bus.publish(OrderPlaced("o-2", Decimal(2000)))
            await shop.settle()
        assert (await storage.trim(max_events=1)).deleted == 3
        shop = Shop(storage)
        async with shop.bus:
            assert await shop.processes.load(Fulfilment, "o-1") is None
            for _ in range(2):
                await shop.bus.publish(OrderPlaced("o-1", Decimal(2000)))
                await shop.bus.drain(timeout=30, retries=False)
            found = await shop.processes.load(Fulfilment, "o-1")
            assert found is not None
            assert found.steps == ("placed", "placed")


async def test_timeouts_use_the_clock_of_the_bus_by_default() -> None:
    """A test with a virtual clock on its bus would advance it for years without a timeout."""

    class Dunning(ProcessManager):
        @starts(OrderPlaced, key="order")
        def placed(self, event: OrderPlaced) -> None:
            self.set_timeout("unpaid", seconds=900)

        @on_timeout("unpaid")
        def late(self, event: ProcessTimedOut) -> None:
            self.end()

    clock = VirtualClock()
    bus = InMemoryEventBus(InMemoryEventStorage(), clock=clock)
    processes = ProcessManagers(bus, make_commands(bus))
    processes.add(Dunning)
    async with bus:
        await bus.publish(OrderPlaced("o-1"))
        await bus.drain(timeout=30)
        await clock.advance(901)
        await bus.drain(timeout=30)
        dunning = await processes.load(Dunning, "o-1")
        assert dunning is not None
        assert dunning.ended


async def test_an_event_parked_for_a_missing_command_handler_can_be_retried(storage: Any) -> None:
    """A forgotten handler would make the process lose a step."""

    class Unhandled(Command[None]):
        order: str

    class Asking(ProcessManager):
        @starts(OrderPlaced, key="order")
        def placed(self, event: OrderPlaced) -> None:
            self.send(Unhandled(event.order))

    bus = InMemoryEventBus(storage)
    commands = CommandBus()
    commands.use(Idempotency(bus))
    ProcessManagers(bus, commands).add(Asking, retry_count=0)
    handled: list[str] = []
    async with bus:
        await bus.publish(OrderPlaced("o-1"))
        await bus.drain(timeout=30)
        (letter,) = await bus.dead_letters.list()
        assert letter.attempts[-1].error_type.endswith(HandlerNotFoundError.__name__)

        @commands.handles(Unhandled)
        async def handle(command: Unhandled) -> None:
            handled.append(command.order)

        await bus.dead_letters.retry(letter.id)
        await bus.drain(timeout=30)
    assert handled == ["o-1"]


def test_an_invalid_process_class_is_rejected_when_defined() -> None:
    """The mistake would surface with the first event, or as state lost at a restart."""
    with pytest.raises(ProcessDefinitionError, match="count has no default"):

        class NoDefault(ProcessManager):
            count: int

    with pytest.raises(ProcessDefinitionError, match=r"seen uses dataclasses\.field\(\)"):

        class FieldDefault(ProcessManager):
            seen: list[str] = field(default_factory=list)

    with pytest.raises(ProcessDefinitionError, match="key is an attribute of every process"):

        class OwnKey(ProcessManager):
            key: str = ""

    with pytest.raises(ProcessDefinitionError, match="two methods take"):

        class Twice(ProcessManager):
            @starts(OrderPlaced, key="order")
            def one(self, event: OrderPlaced) -> None: ...

            @reacts(OrderPlaced, key="order")
            def two(self, event: OrderPlaced) -> None: ...

    with pytest.raises(ProcessDefinitionError, match=r"waits\(\) is async"):

        class Waits(ProcessManager):
            @starts(OrderPlaced, key="order")  # type: ignore[type-var]
            async def waits(self, event: OrderPlaced) -> None: ...


def test_process_managers_require_idempotency_a_log_and_a_handled_event() -> None:
    """A crash could make commands be handled twice, without any warning."""
    bus = InMemoryEventBus(InMemoryEventStorage())
    with pytest.raises(UsageError, match="use\\(Idempotency"):
        ProcessManagers(bus, CommandBus())
    with pytest.raises(UsageError, match="has no log"):
        ProcessManagers(InMemoryEventBus(), make_commands(bus))
    with pytest.raises(ProcessDefinitionError, match="takes no events"):
        ProcessManagers(bus, make_commands(bus)).add(ProcessManager)


def test_a_step_rejects_unknown_timeouts_invalid_commands_and_unstorable_state() -> None:
    """The state would be restored differently, or a timeout never fire."""

    class Careless(ProcessManager):
        count: int = 0
        price: Decimal = Decimal(0)
        process_type: ClassVar[str] = "careless"

        @on_timeout("late")
        def late(self, event: object) -> None: ...

    careless = Careless("1")
    with pytest.raises(ProcessDefinitionError, match="no method handles the timeout 'never'"):
        careless.set_timeout("never", 5)
    with pytest.raises(ProcessDefinitionError, match="must derive from Command"):
        careless.send(object())  # type: ignore[arg-type]
    careless.count = "three"  # type: ignore[assignment]
    with pytest.raises(ProcessDefinitionError, match="its state cannot be stored"):
        Careless.codec.encode(careless)
    careless.count, careless.price = 3, "1.5"  # type: ignore[assignment]
    with pytest.raises(ProcessDefinitionError, match=r"price is '1.5' and would come back as Dec"):
        Careless.codec.encode(careless)
    careless.price = Decimal("1.5")
    careless.other = 5  # type: ignore[attr-defined]
    with pytest.raises(ProcessDefinitionError, match="other has no annotation"):
        Careless.codec.encode(careless)
    assert careless.take(object()) is False


async def test_a_dead_letter_names_the_process_whose_key_is_not_text() -> None:
    """The dead letter would mention an operation between types, not the process whose key is a number."""

    class Numbered(ProcessManager):
        @starts(OrderPlaced, key="amount")
        def placed(self, event: OrderPlaced) -> None: ...

    bus = InMemoryEventBus(InMemoryEventStorage())
    commands = CommandBus()
    commands.use(Idempotency(bus))
    ProcessManagers(bus, commands).add(Numbered)
    async with bus:
        await bus.publish(OrderPlaced("o-1", Decimal(7)))
        await bus.drain(timeout=30)
        (letter,) = await bus.dead_letters.list()
    assert "Numbered: the key of OrderPlaced is Decimal('7'), not text" in letter.reason
    assert letter.event == OrderPlaced("o-1", Decimal(7))
