"""A command id is handled once, and stored together with the events it caused."""

from __future__ import annotations

import asyncio
import os
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pytest

from pabal import SqliteEventStorage
from pabal.cqrs import Command, CommandBus, Idempotency
from pabal.domain.ids import new_event_id
from pabal.errors import CommandIdReusedError, ConcurrencyError, DecodeError, UsageError
from pabal.eventsourcing import Repository, UnitOfWork
from pabal.ports.storage import StreamAppend
from tests.cqrs.support import (
    CqrsOrder,
    OrderPaid,
    PayOrder,
    PlaceOrder,
    RejectedError,
    ShipOrder,
    Totals,
    make_commands,
    stored_types,
)

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


async def test_a_command_sent_twice_is_handled_once_and_returns_the_same_result(storage: Any) -> None:
    """A client that repeats a request after losing the response would place two orders."""
    commands = make_commands(storage)
    command = PlaceOrder("o-1")
    assert await commands.execute(command) == "o-1"
    assert await commands.execute(command) == "o-1"
    assert await make_commands(storage).execute(command) == "o-1"
    assert await stored_types(storage) == ["cqrs-shop.placed", "pabal.command.handled"]


async def test_a_handler_that_commits_its_unit_of_work_raises_a_usage_error(storage: Any) -> None:
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
    assert await stored_types(storage) == []


async def test_a_command_that_raises_stores_nothing_and_may_be_sent_again(storage: Any) -> None:
    """A rejected command would count as handled."""
    commands = make_commands(storage)
    await commands.execute(PlaceOrder("o-1"))
    before = await stored_types(storage)
    rejected = PlaceOrder("o-1")
    for _ in range(2):
        with pytest.raises(RejectedError):
            await commands.execute(rejected)
    assert await stored_types(storage) == before


async def test_reusing_a_command_id_with_other_content_raises(storage: Any) -> None:
    """A client that mixes up its ids would believe that its order was placed."""
    commands = make_commands(storage)
    command = PlaceOrder("o-1")
    await commands.execute(command)
    with pytest.raises(CommandIdReusedError, match="was already used by PlaceOrder"):
        await commands.execute(PlaceOrder("o-1", Decimal(11), command_id=command.command_id))
    with pytest.raises(CommandIdReusedError, match="PayOrder was not handled"):
        await commands.execute(PayOrder("o-1", command_id=command.command_id))


async def test_reusing_a_command_id_for_another_command_with_equal_content_raises(storage: Any) -> None:
    """A payment would return the result of a shipment, and not happen."""
    commands = make_commands(storage)
    await commands.execute(PlaceOrder("o-1"))
    pay = PayOrder("o-1")
    await commands.execute(pay)
    with pytest.raises(CommandIdReusedError, match="was already used by PayOrder"):
        await commands.execute(ShipOrder("o-1", command_id=pay.command_id))


async def test_a_repeated_command_returns_a_result_of_the_same_type(storage: Any) -> None:
    """A repeated command would return a dictionary where the first call returned a struct."""
    commands = CommandBus()
    commands.use(Idempotency(storage))

    @commands.handles(PlaceOrder)
    async def place(command: PlaceOrder) -> Totals:
        return Totals(3)

    command: object = PlaceOrder("o-1")
    assert [await commands.execute(command), await commands.execute(command)] == [Totals(3), Totals(3)]


async def test_a_result_without_a_json_form_raises_and_nothing_is_stored(storage: Any) -> None:
    """The command would be handled, but sending it again could not return its result."""
    orders = Repository(CqrsOrder, storage)
    commands = CommandBus()
    commands.use(Idempotency(storage))

    @commands.handles(PlaceOrder)
    async def place(command: PlaceOrder, work: UnitOfWork) -> object:
        (await work.edit(orders, command.order)).place(command.amount)
        return object()

    with pytest.raises(UsageError, match="has no JSON form"):
        await commands.execute(PlaceOrder("o-1"))
    assert await stored_types(storage) == []


async def test_a_result_that_contradicts_its_annotation_raises_and_nothing_is_stored(
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
    assert await stored_types(storage) == []


async def test_a_result_that_would_not_come_back_equal_raises_and_nothing_is_stored(storage: Any) -> None:
    """A caller that sends the command again would get a dictionary instead of the struct it knows."""
    orders = Repository(CqrsOrder, storage)
    commands = CommandBus()
    commands.use(Idempotency(storage))

    @commands.handles(PlaceOrder)
    async def place(command: PlaceOrder, work: UnitOfWork):  # type: ignore[no-untyped-def]
        (await work.edit(orders, command.order)).place(command.amount)
        return Totals(3)

    with pytest.raises(
        UsageError, match=r"returned Totals\(count=3\), which would come back as \{'count': 3\}"
    ):
        await commands.execute(PlaceOrder("o-1"))
    assert await stored_types(storage) == []


class Ticket(msgspec.Struct, eq=False):
    """A result that is equal only to itself."""

    number: int


class TakeTicket(Command[Ticket]):
    """A command with such a result."""


async def test_a_result_of_a_class_without_equality_is_stored_and_returned_again(storage: Any) -> None:
    """Two of its instances are never equal, so it would be refused though it comes back as it was."""
    commands = CommandBus()
    commands.use(Idempotency(storage))

    @commands.handles(TakeTicket)
    async def take(command: TakeTicket) -> Ticket:
        return Ticket(7)

    command = TakeTicket(command_id="one")
    numbers = [(await commands.execute(command)).number for _ in range(2)]
    assert numbers == [7, 7]


async def test_a_stored_result_that_a_new_release_cannot_decode_raises_a_decode_error(storage: Any) -> None:
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


async def test_a_command_with_a_set_sent_again_by_another_process_is_recognised(tmp_path: Path) -> None:
    """Sets are ordered differently in each process: a command sent again after a crash would be rejected."""
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


async def test_a_message_without_a_command_id_is_handled_and_not_recorded(storage: Any) -> None:
    """Other message classes could not be used on such a bus."""

    class Ping:
        pass

    commands = CommandBus()
    commands.use(Idempotency(storage))

    @commands.handles(Ping)
    async def ping(message: Ping) -> str:
        return "pong"

    assert await commands.execute(Ping()) == "pong"
    assert await stored_types(storage) == []


async def test_a_command_without_a_json_form_is_rejected(storage: Any) -> None:
    """It would later be impossible to know whether a repeated command is the same."""

    class Strange(Command[None]):
        what: object

    commands = CommandBus()
    commands.use(Idempotency(storage))

    @commands.handles(Strange)
    async def strange(command: Strange) -> None: ...

    with pytest.raises(UsageError, match=r"the command .*Strange has no JSON form"):
        await commands.execute(Strange(object()))


@pytest.mark.parametrize("command_id", [5, UUID(int=7), None, "", b"x", ["a"]])
async def test_a_command_id_that_is_not_text_is_rejected(storage: Any, command_id: Any) -> None:
    """A UUID from a web framework would end in a bare TypeError, and None would be handled each time."""
    commands, orders = make_commands(storage), Repository(CqrsOrder, storage)
    with pytest.raises(UsageError, match=r"PlaceOrder has the command_id .* it must be text"):
        await commands.execute(PlaceOrder("o-1", Decimal(10), command_id=command_id))
    assert not await orders.exists("o-1")


async def test_resending_a_command_whose_record_was_trimmed_raises_and_stores_nothing(tmp_path: Path) -> None:
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
        assert await stored_types(storage) == ["pabal.command.handled"]
