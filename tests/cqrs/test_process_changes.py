"""Process managers under changing conditions: a new release, little memory, an unexpected command."""

from __future__ import annotations

import tracemalloc
from decimal import Decimal
from enum import Enum
from typing import Any, ClassVar

import pytest

from pabal import DomainEvent, InMemoryEventBus, InMemoryEventStorage, RetryPolicy
from pabal.cqrs import (
    Command,
    CommandBus,
    Idempotency,
    ProcessManager,
    ProcessManagers,
    on_timeout,
    process_runner,
    reacts,
    starts,
)
from pabal.cqrs.process_events import CommandRejected
from pabal.errors import DecodeError, UsageError
from pabal.testing import VirtualClock
from tests.cqrs.support import Fulfilment, OrderPaid, OrderPlaced, PlaceOrder, RejectedError
from tests.cqrs.test_processes import Shop


async def test_process_instances_evicted_from_the_cache_are_loaded_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With many orders at a time, all but the last would start over or stall."""
    monkeypatch.setattr(process_runner, "_MAX_CACHED_INSTANCES", 1)
    shop = Shop(InMemoryEventStorage())
    async with shop.bus:
        for number in range(4):
            await shop.commands.execute(PlaceOrder(f"o-{number}"))
        await shop.settle()
        for number in range(4):
            assert await shop.history(f"o-{number}") == ("placed", "paid", "shipped")


async def test_a_rejection_of_a_command_that_a_new_release_dropped_is_ignored() -> None:
    """The rejection of an older release's command would be retried until it is parked."""
    shop = Shop(InMemoryEventStorage())
    async with shop.bus:
        await shop.commands.execute(PlaceOrder("o-1"))
        await shop.settle()
        before = await shop.bus.storage.head()  # type: ignore[union-attr]
        placed = Fulfilment("o-2")
        await shop.bus.publish(OrderPlaced("o-2"))
        await shop.settle()
        await shop.bus.publish(
            CommandRejected(placed.process_type, "o-2", "c-1", "GoneCommand", "RejectedError", "no")
        )
        await shop.settle()
        assert await shop.bus.dead_letters.list() == []
        process = await shop.processes.load(Fulfilment, "o-2")
        assert process is not None
        assert "rejected" not in process.steps
        assert before < await shop.bus.storage.head()  # type: ignore[union-attr]


class Remind(Command[None]):
    order: str


class Reminder(ProcessManager):
    """Set a timeout in the first step, and do not change it in later ones."""

    process_type: ClassVar[str] = "cqrs_reminder"
    rejections = (RejectedError,)
    count: int = 0

    @starts(OrderPlaced, key="order")
    def placed(self, event: OrderPlaced) -> None:
        self.set_timeout("late", 60)

    @reacts(OrderPaid, key="order")
    def paid(self, event: OrderPaid) -> None:
        self.count += 1

    @on_timeout("late")
    def late(self, event: object) -> None:
        self.send(Remind(self.key))


async def start_reminders(reject: bool) -> tuple[InMemoryEventBus, VirtualClock, list[str]]:
    """Return a running bus with the process above, and the list of orders that were reminded."""
    clock, reminded = VirtualClock(), []
    bus = InMemoryEventBus(InMemoryEventStorage(), clock=clock)
    commands = CommandBus()
    commands.use(Idempotency(bus))

    @commands.handles(Remind)
    async def remind(command: Remind) -> None:
        if reject:
            raise RejectedError("not now")
        reminded.append(command.order)

    processes = ProcessManagers(bus, commands, clock=clock)
    processes.add(Reminder, start="beginning", retry=RetryPolicy(max_attempts=1))
    await bus.start()
    return bus, clock, reminded


async def test_a_timeout_that_later_steps_do_not_change_fires_once_and_on_time() -> None:
    """If each step published it again, it would fire several times; if each moved it, too late."""
    bus, clock, reminded = await start_reminders(reject=False)
    await bus.publish(OrderPlaced("o-1"))
    await bus.drain(timeout=None)
    await clock.advance(30)
    for _ in range(3):
        await bus.publish(OrderPaid("o-1"))
    await bus.drain(timeout=None)
    await clock.advance(29)
    assert reminded == []
    await clock.advance(1)
    await bus.drain(timeout=None)
    await clock.advance(600)
    assert reminded == ["o-1"]
    await bus.stop()


class Symbol(str, Enum):  # noqa: UP042 - of which a format makes another text than a StrEnum's
    BITCOIN = "btc"


class SymbolListed(DomainEvent):
    event_type: ClassVar[str] = "cqrs.symbol.listed"
    symbol: Symbol


async def test_a_timeout_reaches_an_instance_whose_key_is_an_enum_member() -> None:
    """An enum's value and its format differ: after a restart, no timeout or rejection would reach it."""

    class Listing(ProcessManager):
        process_type = "cqrs_listing"
        late: bool = False

        @starts(SymbolListed, key="symbol")
        def listed(self, event: SymbolListed) -> None:
            self.set_timeout("late", 60)

        @on_timeout("late")
        def timed_out(self, event: object) -> None:
            self.late = True

    storage, clock = InMemoryEventStorage(), VirtualClock()
    for run in range(2):
        bus = InMemoryEventBus(storage, clock=clock)
        commands = CommandBus()
        commands.use(Idempotency(bus))
        processes = ProcessManagers(bus, commands, clock=clock)
        processes.add(Listing)
        async with bus:
            if run == 0:
                await bus.publish(SymbolListed(Symbol.BITCOIN))
            else:
                await clock.advance(60)
            await bus.drain(timeout=None)
            assert await bus.dead_letters.list() == []
            keys: tuple[Any, ...] = (Symbol.BITCOIN, "btc")
            for key in keys:
                instance = await processes.load(Listing, key)
                assert instance is not None
                assert instance.late == (run == 1)
            with pytest.raises(UsageError, match="the key is 5; keys are text"):
                await processes.load(Listing, 5)  # type: ignore[arg-type]


async def test_a_rejection_without_an_on_rejected_method_becomes_a_dead_letter() -> None:
    """The rejection would be lost: the process would wait forever, and no operator would see why."""
    bus, clock, reminded = await start_reminders(reject=True)
    await bus.publish(OrderPlaced("o-1"))
    await bus.drain(timeout=None)
    await clock.advance(60)
    await bus.drain(timeout=None)
    [letter] = await bus.dead_letters.list()
    assert letter.attempts[0].error_type == "RejectedError"
    assert reminded == []
    await bus.stop()


def test_the_error_for_an_undecodable_state_advises_what_applies_to_states() -> None:
    """The error advised to write an upcaster, which states do not have, and to fix a correct payload."""
    before = Reminder("o-1")
    before.count = 3
    stored = before.codec.encode(before)

    class Counted(ProcessManager):
        count: str = ""

        @starts(OrderPlaced, key="order")
        def placed(self, event: OrderPlaced) -> None: ...

    with pytest.raises(DecodeError, match=r"state of .*Counted.*a state has no upcaster, so annotate"):
        Counted.codec.restore(Counted("o-1"), stored)


async def test_an_older_release_keeps_attributes_stored_by_a_newer_one() -> None:
    """During a rolling release, each step of an old process would drop the attributes of the new version."""

    def newer() -> type[ProcessManager]:
        class Newer(ProcessManager):
            process_type: ClassVar[str] = "cqrs_rolling"
            count: int = 0
            lines: tuple[Decimal, ...] = ()

            @starts(OrderPlaced, key="order")
            def placed(self, event: OrderPlaced) -> None:
                self.lines = (*self.lines, event.amount)

        return Newer

    def older() -> type[ProcessManager]:
        class Older(ProcessManager):
            process_type: ClassVar[str] = "cqrs_rolling"
            count: int = 0

            @starts(OrderPlaced, key="order")
            def placed(self, event: OrderPlaced) -> None:
                self.count += 1

        return Older

    storage = InMemoryEventStorage()
    found: Any = None
    for process_class in (newer(), older(), older(), newer()):
        bus, commands = InMemoryEventBus(storage), CommandBus()
        commands.use(Idempotency(bus))
        processes = ProcessManagers(bus, commands)
        processes.add(process_class)
        async with bus:
            await bus.publish(OrderPlaced("o-1", Decimal("1.50")))
            await bus.drain(timeout=30)
            assert await bus.dead_letters.list() == []
            found = await processes.load(process_class, "o-1")
    assert (found.count, found.lines) == (2, (Decimal("1.50"), Decimal("1.50")))


async def test_the_memory_a_step_needs_does_not_grow_with_earlier_steps() -> None:
    """Each step copied the causes of all earlier ones: after 10,000 steps, it took five times as long."""

    class Counting(ProcessManager):
        process_type = "cqrs_counting"
        number: int = 0

        @starts(OrderPlaced, key="order")
        def placed(self, event: OrderPlaced) -> None:
            self.number += 1

    bus = InMemoryEventBus(InMemoryEventStorage())
    commands = CommandBus()
    commands.use(Idempotency(bus))
    processes = ProcessManagers(bus, commands)
    processes.add(Counting)
    async with bus:
        await bus.publish_batch([OrderPlaced("o-1") for _ in range(3000)])
        await bus.drain()
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            await bus.publish(OrderPlaced("o-1"))
            await bus.drain()
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        process = await processes.load(Counting, "o-1")
    assert process is not None
    assert process.number == 3001
    assert peak - before < 64 * 1024, "3,000 causes in a set of their own take twice that"
