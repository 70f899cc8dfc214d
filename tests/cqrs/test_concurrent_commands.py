"""Commands that are sent, or send each other, at the same time are handled once and never deadlock."""

from __future__ import annotations

import asyncio
import threading
from decimal import Decimal
from typing import Any

import pytest

from pabal import InMemoryEventStorage
from pabal.cqrs import Command, CommandBus, Idempotency, retry_conflicts
from pabal.errors import ConcurrencyError, UsageError
from pabal.eventsourcing import Repository, UnitOfWork
from tests.cqrs.support import (
    CqrsOrder,
    Orders,
    PayOrder,
    PlaceOrder,
    RejectedError,
    ShipOrder,
    make_commands,
    stored_types,
)


async def test_concurrent_sends_of_a_command_are_handled_once(storage: Any) -> None:
    """Two clicks would place two orders."""
    commands = make_commands(storage)
    command = PlaceOrder("o-1")
    assert await asyncio.gather(*(commands.execute(command) for _ in range(5))) == ["o-1"] * 5
    assert (await stored_types(storage)).count("cqrs-shop.placed") == 1


async def test_a_handler_that_sends_its_own_command_raises_instead_of_deadlocking(storage: Any) -> None:
    """The second send waits for the first, which waits for the second: it would hang without an error."""
    commands = CommandBus()
    commands.use(Idempotency(storage))

    @commands.handles(PlaceOrder)
    async def place(command: PlaceOrder) -> str:
        answer: str = await commands.execute(command if command.order == "o-1" else PlaceOrder("o-1"))
        return answer

    with pytest.raises(UsageError, match="its own handler"):
        await commands.execute(PlaceOrder("o-1"))
    with pytest.raises(UsageError, match="its own handler"):
        await commands.execute(PlaceOrder("o-2"))


@pytest.mark.parametrize("buses", [1, 2])
async def test_handlers_that_send_each_others_commands_raise_instead_of_deadlocking(
    storage: Any, buses: int
) -> None:
    """Each would wait for the command that the other's handler is handling, and hang without an error."""
    here = there = CommandBus()
    here.use(Idempotency(storage))
    if buses == 2:
        there = CommandBus()
        there.use(Idempotency(storage))
    handled: list[str] = []
    all_started = asyncio.Event()
    order, payment, shipment = PlaceOrder("o-1"), PayOrder("o-1"), ShipOrder("o-1")

    async def wait_for_all(name: str) -> None:
        handled.append(name)
        if len(handled) == 3:
            all_started.set()
        await all_started.wait()

    @here.handles(PlaceOrder)
    async def place(command: PlaceOrder) -> Any:
        await wait_for_all("place")
        return await there.execute(payment)

    @there.handles(PayOrder)
    async def pay(command: PayOrder) -> Any:
        await wait_for_all("pay")
        return await here.execute(shipment)

    @here.handles(ShipOrder)
    async def ship(command: ShipOrder) -> Any:
        await wait_for_all("ship")
        return await here.execute(order)

    async with asyncio.timeout(30):
        sending = here.execute(order), there.execute(payment), here.execute(shipment)
        for error in await asyncio.gather(*sending, return_exceptions=True):
            assert isinstance(error, UsageError), error
    assert await stored_types(storage) == []


async def test_two_handlers_that_send_the_same_command_both_get_its_result(storage: Any) -> None:
    """A command that two handlers send at once would be rejected for one of them, although it will finish."""
    commands = CommandBus()
    commands.use(Idempotency(storage))
    barrier, common = asyncio.Barrier(2), ShipOrder("o-1")

    @commands.handles(PlaceOrder)
    async def place(command: PlaceOrder) -> Any:
        await barrier.wait()
        return await commands.execute(common)

    @commands.handles(ShipOrder)
    async def ship(command: ShipOrder) -> str:
        return "shipped"

    async with asyncio.timeout(30):
        sending = [commands.execute(PlaceOrder(order)) for order in ("o-1", "o-2")]
        assert await asyncio.gather(*sending) == ["shipped", "shipped"]
    assert await stored_types(storage) == ["pabal.command.handled"] * 3


async def test_a_background_task_of_a_handler_may_send_its_command_again(storage: Any) -> None:
    """A background task started by a handler could never send that command again."""
    commands = CommandBus()
    commands.use(Idempotency(storage))
    returned = asyncio.Event()
    background: list[asyncio.Task[str]] = []

    @commands.handles(PlaceOrder)
    async def place(command: PlaceOrder) -> str:
        async def later() -> str:
            await returned.wait()
            return await commands.execute(command)

        background.append(asyncio.create_task(later()))
        return "placed"

    await commands.execute(PlaceOrder("o-1"))
    returned.set()
    assert await background[0] == "placed"
    assert len(background) == 1


async def test_a_handler_may_forward_its_command_to_a_bus_with_another_log(storage: Any) -> None:
    """It would be rejected as waiting for itself, although it is not being handled on the other log."""
    here, there = CommandBus(), CommandBus()
    here.use(Idempotency(storage))
    there.use(Idempotency(InMemoryEventStorage()))

    @here.handles(PlaceOrder)
    async def forward(command: PlaceOrder) -> str:
        return await there.execute(command)

    @there.handles(PlaceOrder)
    async def place(command: PlaceOrder) -> str:
        return "placed there"

    assert await here.execute(PlaceOrder("o-1")) == "placed there"


async def test_two_buses_that_handle_one_command_at_once_store_its_effects_once(storage: Any) -> None:
    """Two processes with the same command would both store its effects, even under different ids."""
    together = asyncio.Barrier(2)

    def make(order: str) -> CommandBus:
        orders = Repository(CqrsOrder, storage)
        commands = CommandBus()
        commands.use(Idempotency(storage))

        @commands.handles(PlaceOrder)
        async def place(command: PlaceOrder, work: UnitOfWork) -> None:
            await together.wait()
            (await work.edit(orders, order)).place(command.amount)

        return commands

    command = PlaceOrder("any")
    await asyncio.gather(make("o-1").execute(command), make("o-2").execute(command))
    assert (await stored_types(storage)).count("cqrs-shop.placed") == 1


async def test_a_command_that_is_refused_because_another_process_has_handled_it_returns_the_result(
    storage: Any,
) -> None:
    """The order is placed, but the second process would report that it could not be."""
    here, there = make_commands(storage), make_commands(storage)
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def wait(message: Any, context: Any, call_next: Any) -> Any:
        begun.set()
        await go_on.wait()
        return await call_next()

    there.use(wait)
    command = PlaceOrder("o-1")
    second = asyncio.create_task(there.execute(command))
    await begun.wait()
    assert await here.execute(command) == "o-1"
    go_on.set()
    assert await second == "o-1"
    assert (await stored_types(storage)).count("cqrs-shop.placed") == 1


async def test_a_conflict_with_another_command_is_retried_with_a_new_unit_of_work(storage: Any) -> None:
    """One of two commands on an aggregate would be lost to a conflict."""
    orders = Repository(CqrsOrder, storage, keep=0)
    other = Repository(CqrsOrder, storage, keep=0)
    commands = CommandBus(provide={Orders: orders}.__getitem__)
    commands.use(retry_conflicts())
    commands.use(Idempotency(storage))
    attempts: list[int] = []

    @commands.handles(PayOrder)
    async def pay(command: PayOrder, work: UnitOfWork, orders: Orders) -> int:
        order = await work.edit(orders, command.order)
        if not attempts:
            await other.update(command.order, lambda order: order.place(Decimal(1)))
        attempts.append(order.version)
        order.pay()
        return order.version

    command: object = PayOrder("o-1")
    assert await commands.execute(command) == 2
    assert attempts == [0, 1]


async def test_without_retries_a_conflict_reaches_the_caller(storage: Any) -> None:
    """A lost race would look like a handled command."""
    orders, other = Repository(CqrsOrder, storage, keep=0), Repository(CqrsOrder, storage, keep=0)
    commands = CommandBus()
    commands.use(Idempotency(storage))

    @commands.handles(PayOrder)
    async def pay(command: PayOrder, work: UnitOfWork) -> None:
        order = await work.edit(orders, command.order)
        await other.update(command.order, lambda order: order.place(Decimal(1)))
        order.pay()

    with pytest.raises(ConcurrencyError):
        await commands.execute(PayOrder("o-1"))


async def test_a_command_is_not_refused_by_a_copy_that_another_process_has_made_stale(storage: Any) -> None:
    """A process manager would compensate for an order that was never refused."""
    here, elsewhere = make_commands(storage), make_commands(storage)
    await here.execute(PlaceOrder("o-1"))
    await elsewhere.execute(PayOrder("o-1"))
    command = ShipOrder("o-1")
    with pytest.raises(ConcurrencyError) as caught:
        await here.execute(command)
    assert (caught.value.expected_version, caught.value.actual_version) == (1, 2)
    await here.execute(command)
    with pytest.raises(RejectedError, match="the order is shipped"):
        await here.execute(ShipOrder("o-1"))


async def test_a_command_that_changes_nothing_by_a_stale_copy_is_handled_again(storage: Any) -> None:
    """What another process allowed would be skipped for good: the command would count as handled."""

    class ShipIfPaid(Command[bool]):
        order: str

    orders = Repository(CqrsOrder, storage)
    commands = CommandBus()
    commands.use(retry_conflicts())
    commands.use(Idempotency(storage))

    @commands.handles(ShipIfPaid)
    async def ship(command: ShipIfPaid, work: UnitOfWork) -> bool:
        order = await work.edit(orders, command.order)
        if order.status == "paid":
            order.ship()
        return order.status == "shipped"

    elsewhere = make_commands(storage)
    await elsewhere.execute(PlaceOrder("o-1"))
    assert not await commands.execute(ShipIfPaid("o-1"))
    await elsewhere.execute(PayOrder("o-1"))
    assert await commands.execute(ShipIfPaid("o-1"))


async def test_a_command_sent_in_two_event_loops_at_once_returns_the_same_result(storage: Any) -> None:
    """The second, in another thread, would wait for a future of the first's loop: a RuntimeError."""

    class Slow(Command[str]):
        pass

    commands = CommandBus()
    commands.use(Idempotency(storage))
    barrier = threading.Barrier(2, timeout=60)

    @commands.handles(Slow)
    async def slow(command: Slow) -> str:
        await asyncio.to_thread(barrier.wait)
        return threading.current_thread().name

    command = Slow()
    answers = await asyncio.gather(
        *(asyncio.to_thread(lambda: asyncio.run(commands.execute(command))) for _ in range(2))
    )
    assert answers[0] == answers[1]
    assert await stored_types(storage) == ["pabal.command.handled"]
