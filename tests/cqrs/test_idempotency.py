"""A command id is handled once, and stored together with the events it caused."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from pabal import InMemoryEventStorage, SqliteEventStorage
from pabal.cqrs import Command, CommandBus, Idempotency, retry_conflicts
from pabal.domain.ids import new_event_id
from pabal.errors import CommandIdReusedError, ConcurrencyError, DecodeError, UsageError
from pabal.eventsourcing import Repository, UnitOfWork
from pabal.ports.storage import StreamAppend
from tests.cqrs.support import (
    CqrsOrder,
    OrderPaid,
    Orders,
    PayOrder,
    PlaceOrder,
    RefusedError,
    ShipOrder,
    Totals,
    make_commands,
)


@pytest.fixture(params=["memory", "sqlite"])
async def storage(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Any]:
    made: Any = InMemoryEventStorage()
    if request.param == "sqlite":
        made = SqliteEventStorage(tmp_path / "shop.db", durability="normal")
    yield made
    await made.aclose()


_SEND_TAGS = """
import asyncio, sys
from pabal import SqliteEventStorage
from pabal.cqrs import Command, CommandBus, Idempotency

class Tag(Command[int]):
    tags: frozenset[str]

async def tag(command: Tag) -> int:
    print("handled")
    return len(command.tags)

async def main():
    async with SqliteEventStorage(sys.argv[1]) as storage:
        commands = CommandBus()
        commands.use(Idempotency(storage))
        commands.register(Tag, tag)
        print(await commands.execute(Tag(frozenset("abcdefg"), command_id="one")))

asyncio.run(main())
"""


async def _types(storage: Any) -> list[str]:
    return [envelope.event.event_type async for envelope in storage.read()]


async def test_a_command_sent_twice_is_handled_once_and_answers_the_same(storage: Any) -> None:
    """A client that repeats a request after losing the answer would place two orders."""
    commands = make_commands(storage)
    command = PlaceOrder("o-1")
    assert await commands.execute(command) == "o-1"
    assert await commands.execute(command) == "o-1"
    assert await make_commands(storage).execute(command) == "o-1"
    assert await _types(storage) == ["cqrs-shop.placed", "pabal.command.handled"]


async def test_two_sendings_at_a_time_are_handled_once(storage: Any) -> None:
    """Two clicks would place two orders."""
    commands = make_commands(storage)
    command = PlaceOrder("o-1")
    assert await asyncio.gather(*(commands.execute(command) for _ in range(5))) == ["o-1"] * 5
    assert (await _types(storage)).count("cqrs-shop.placed") == 1


async def test_a_command_that_its_own_handler_sends_again_is_an_error_not_a_deadlock(storage: Any) -> None:
    """The second sending waits for the first, which waits for the second: it would hang without an error."""
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
async def test_commands_whose_handlers_send_each_other_are_an_error_not_a_deadlock(
    storage: Any, buses: int
) -> None:
    """Each would wait for the command that the other's handler is handling, and hang without an error."""
    here = there = CommandBus()
    here.use(Idempotency(storage))
    if buses == 2:
        there = CommandBus()
        there.use(Idempotency(storage))
    handled: list[str] = []
    all_begun = asyncio.Event()
    order, payment, shipment = PlaceOrder("o-1"), PayOrder("o-1"), ShipOrder("o-1")

    async def begun(name: str) -> None:
        handled.append(name)
        if len(handled) == 3:
            all_begun.set()
        await all_begun.wait()

    @here.handles(PlaceOrder)
    async def place(command: PlaceOrder) -> Any:
        await begun("place")
        return await there.execute(payment)

    @there.handles(PayOrder)
    async def pay(command: PayOrder) -> Any:
        await begun("pay")
        return await here.execute(shipment)

    @here.handles(ShipOrder)
    async def ship(command: ShipOrder) -> Any:
        await begun("ship")
        return await here.execute(order)

    async with asyncio.timeout(30):
        sending = here.execute(order), there.execute(payment), here.execute(shipment)
        for error in await asyncio.gather(*sending, return_exceptions=True):
            assert isinstance(error, UsageError), error
    assert await _types(storage) == []


async def test_commands_that_wait_for_one_another_without_a_circle_are_handled(storage: Any) -> None:
    """A command that two handlers send at once would be refused to one of them, although it will finish."""
    commands = CommandBus()
    commands.use(Idempotency(storage))
    met, common = asyncio.Barrier(2), ShipOrder("o-1")

    @commands.handles(PlaceOrder)
    async def place(command: PlaceOrder) -> Any:
        await met.wait()
        return await commands.execute(common)

    @commands.handles(ShipOrder)
    async def ship(command: ShipOrder) -> str:
        return "shipped"

    async with asyncio.timeout(30):
        sending = [commands.execute(PlaceOrder(order)) for order in ("o-1", "o-2")]
        assert await asyncio.gather(*sending) == ["shipped", "shipped"]
    assert await _types(storage) == ["pabal.command.handled"] * 3


async def test_a_task_that_a_handler_left_behind_may_send_its_command_again(storage: Any) -> None:
    """A background task started by a handler could never send that command again."""
    commands = CommandBus()
    commands.use(Idempotency(storage))
    has_returned = asyncio.Event()
    left: list[asyncio.Task[str]] = []

    @commands.handles(PlaceOrder)
    async def place(command: PlaceOrder) -> str:
        async def later() -> str:
            await has_returned.wait()
            return await commands.execute(command)

        left.append(asyncio.create_task(later()))
        return "placed"

    await commands.execute(PlaceOrder("o-1"))
    has_returned.set()
    assert await left[0] == "placed"
    assert len(left) == 1


async def test_a_command_may_be_handed_on_to_a_bus_with_a_log_of_its_own(storage: Any) -> None:
    """It would be refused as waiting for itself, although it is not being handled on the other log."""
    here, there = CommandBus(), CommandBus()
    here.use(Idempotency(storage))
    there.use(Idempotency(InMemoryEventStorage()))

    @here.handles(PlaceOrder)
    async def hand_on(command: PlaceOrder) -> str:
        return await there.execute(command)

    @there.handles(PlaceOrder)
    async def place(command: PlaceOrder) -> str:
        return "placed there"

    assert await here.execute(PlaceOrder("o-1")) == "placed there"


async def test_a_handler_that_commits_by_itself_is_told(storage: Any) -> None:
    """Its events would be stored without the command's id, and the command handled again after a crash."""
    orders = Repository(CqrsOrder, storage)
    commands = CommandBus()
    commands.use(Idempotency(storage))

    @commands.handles(PlaceOrder)
    async def place(command: PlaceOrder, work: UnitOfWork) -> str:
        async with work:
            (await work.edit(orders, command.order)).place(command.amount)
        return command.order

    with pytest.raises(UsageError, match="without 'async with'"):
        await commands.execute(PlaceOrder("o-1"))
    assert await _types(storage) == []


async def test_two_buses_at_a_time_store_the_effects_of_one(storage: Any) -> None:
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
    assert (await _types(storage)).count("cqrs-shop.placed") == 1


async def test_a_command_that_raises_leaves_nothing_and_may_be_sent_again(storage: Any) -> None:
    """A rejected command would count as handled."""
    commands = make_commands(storage)
    await commands.execute(PlaceOrder("o-1"))
    before = await _types(storage)
    again = PlaceOrder("o-1")
    for _ in range(2):
        with pytest.raises(RefusedError):
            await commands.execute(again)
    assert await _types(storage) == before


async def test_one_id_with_other_content_is_an_error(storage: Any) -> None:
    """A client that mixes up its ids would be told that its order was placed."""
    commands = make_commands(storage)
    command = PlaceOrder("o-1")
    await commands.execute(command)
    with pytest.raises(CommandIdReusedError, match="was already used by PlaceOrder"):
        await commands.execute(PlaceOrder("o-1", Decimal(11), command_id=command.command_id))
    with pytest.raises(CommandIdReusedError, match="PayOrder was not handled"):
        await commands.execute(PayOrder("o-1", command_id=command.command_id))


async def test_one_id_with_another_command_of_equal_content_is_an_error(storage: Any) -> None:
    """A payment would return the result of a shipment, and not happen."""
    commands = make_commands(storage)
    await commands.execute(PlaceOrder("o-1"))
    pay = PayOrder("o-1")
    await commands.execute(pay)
    with pytest.raises(CommandIdReusedError, match="was already used by PayOrder"):
        await commands.execute(ShipOrder("o-1", command_id=pay.command_id))


async def test_a_result_comes_back_as_the_type_it_was(storage: Any) -> None:
    """A repeated command would return a dictionary where the first call returned a struct."""
    commands = CommandBus()
    commands.use(Idempotency(storage))

    @commands.handles(PlaceOrder)
    async def place(command: PlaceOrder) -> Totals:
        return Totals(3)

    command: object = PlaceOrder("o-1")
    assert [await commands.execute(command), await commands.execute(command)] == [Totals(3), Totals(3)]


async def test_a_result_that_cannot_be_kept_is_told_and_nothing_stored(storage: Any) -> None:
    """The command would be handled, but its repetition could not be answered."""
    orders = Repository(CqrsOrder, storage)
    commands = CommandBus()
    commands.use(Idempotency(storage))

    @commands.handles(PlaceOrder)
    async def place(command: PlaceOrder, work: UnitOfWork) -> object:
        (await work.edit(orders, command.order)).place(command.amount)
        return object()

    with pytest.raises(UsageError, match="has no JSON form"):
        await commands.execute(PlaceOrder("o-1"))
    assert await _types(storage) == []


async def test_a_result_that_is_of_another_type_than_annotated_is_told_and_nothing_stored(
    storage: Any,
) -> None:
    """The first call would succeed, and every repetition fail."""
    orders = Repository(CqrsOrder, storage)
    commands = CommandBus()
    commands.use(Idempotency(storage))

    @commands.handles(PlaceOrder)
    async def place(command: PlaceOrder, work: UnitOfWork) -> str:
        (await work.edit(orders, command.order)).place(command.amount)
        return 3  # type: ignore[return-value]

    with pytest.raises(UsageError, match="place returned does not match its annotation"):
        await commands.execute(PlaceOrder("o-1"))
    assert await _types(storage) == []


async def test_a_first_result_that_a_new_release_takes_no_more_is_told_as_such(storage: Any) -> None:
    """The error would come from msgspec, and name neither the command nor the cause."""
    command = PlaceOrder("o-1")
    await make_commands(storage).execute(command)
    commands = CommandBus()
    commands.use(Idempotency(storage))

    @commands.handles(PlaceOrder)
    async def place(command: PlaceOrder) -> int:
        return 3

    with pytest.raises(DecodeError, match="result of PlaceOrder"):
        await commands.execute(command)


async def test_a_command_with_a_set_is_the_same_in_every_process(tmp_path: Path) -> None:
    """Sets are ordered differently in each process: a repetition after a crash would be refused as other."""
    script = tmp_path / "send.py"
    script.write_text(_SEND_TAGS)
    for seed in range(1, 4):
        # A separate process, because the hash seed is chosen when the interpreter starts.
        run = await asyncio.create_subprocess_exec(
            sys.executable,
            str(script),
            str(tmp_path / "shop.db"),
            env={**os.environ, "PYTHONHASHSEED": str(seed)},
            stdout=asyncio.subprocess.PIPE,
        )
        answer, _ = await run.communicate()
        assert answer.decode().split() == (["handled", "7"] if seed == 1 else ["7"])


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


async def test_without_retry_a_conflict_comes_to_the_caller(storage: Any) -> None:
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


async def test_a_message_without_an_id_passes_through(storage: Any) -> None:
    """Other message classes could not be used on such a bus."""

    class Ping:
        pass

    commands = CommandBus()
    commands.use(Idempotency(storage))

    @commands.handles(Ping)
    async def ping(message: Ping) -> str:
        return "pong"

    assert await commands.execute(Ping()) == "pong"
    assert await _types(storage) == []


async def test_a_command_without_json_form_is_told(storage: Any) -> None:
    """It would later be impossible to tell whether a command is the same."""

    class Strange(Command[None]):
        what: object

    commands = CommandBus()
    commands.use(Idempotency(storage))

    @commands.handles(Strange)
    async def strange(command: Strange) -> None: ...

    with pytest.raises(UsageError, match=r"the command .*Strange has no JSON form"):
        await commands.execute(Strange(object()))


@pytest.mark.parametrize("command_id", [5, UUID(int=7), None, "", b"x", ["a"]])
async def test_an_id_that_is_no_text_is_told(storage: Any, command_id: Any) -> None:
    """A UUID from a web framework would end in a bare TypeError, and None would be handled each time."""
    commands, orders = make_commands(storage), Repository(CqrsOrder, storage)
    with pytest.raises(UsageError, match=r"PlaceOrder has the command_id .* it must be text"):
        await commands.execute(PlaceOrder("o-1", Decimal(10), command_id=command_id))
    assert not await orders.exists("o-1")


async def test_one_id_in_two_event_loops_at_a_time_is_answered_alike(storage: Any) -> None:
    """The second, in another thread, would wait for a future of the first's loop: a RuntimeError."""

    class Slow(Command[str]):
        pass

    commands = CommandBus()
    commands.use(Idempotency(storage))
    met = threading.Barrier(2, timeout=60)

    @commands.handles(Slow)
    async def slow(command: Slow) -> str:
        await asyncio.to_thread(met.wait)
        return threading.current_thread().name

    command = Slow()
    answers = await asyncio.gather(
        *(asyncio.to_thread(lambda: asyncio.run(commands.execute(command))) for _ in range(2))
    )
    assert answers[0] == answers[1]
    assert await _types(storage) == ["pabal.command.handled"]


async def test_a_command_whose_record_was_trimmed_stores_nothing_again(tmp_path: Path) -> None:
    """Sent again after a nightly trim, it would take effect twice."""

    class Note(Command[None]):
        text: str

    async with SqliteEventStorage(tmp_path / "shop.db", durability="normal") as storage:
        commands = CommandBus()
        commands.use(Idempotency(storage))

        @commands.handles(Note)
        async def note(command: Note, work: UnitOfWork) -> None:
            work.append(StreamAppend("cqrs.note", new_event_id(), 0, (OrderPaid(command.text),)))

        await commands.execute(command := Note("once"))
        await commands.execute(Note("twice"))
        assert (await storage.trim(max_events=1)).deleted == 3
        with pytest.raises(ConcurrencyError):
            await commands.execute(command)
        assert await _types(storage) == ["pabal.command.handled"]
