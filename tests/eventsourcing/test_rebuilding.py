"""The tables of a projection are rebuilt next to the live ones."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from dataclasses import replace
from decimal import Decimal
from typing import Any, ClassVar

import pytest

from pabal import DomainEvent, InMemoryEventBus, Receipt
from pabal.domain.registry import registry
from pabal.errors import EventNotProjectedError, ProjectionError, UsageError
from pabal.eventsourcing.generations import abandon, read_generations
from tests.eventsourcing.read_models import BALANCES, ONE, Balances, BalancesV2, Choosy, deposit, entries
from tests.eventsourcing.samples import Deposited, Stray, Withdrawn


async def test_a_rebuild_during_publishing_ends_with_the_same_rows(bus: InMemoryEventBus) -> None:
    """A rebuilt model would differ from the live one, or lack what was published meanwhile. Promise 32."""
    async with Balances(bus, batch=50) as balances:
        await deposit(bus, 500)
        steps: list[tuple[int, int]] = []
        publishing = asyncio.create_task(_keep_publishing(bus, 40))
        await balances.rebuild(progress=lambda position, head: steps.append((position, head)))
        last = await publishing
        await balances.reached(last, timeout=30)
        live = await balances.rows(BALANCES)
        assert await entries(balances) == 540
        await balances.rebuild()
        assert await balances.rows(BALANCES) == live
        assert len(steps) >= 10
        assert all(position <= head for position, head in steps)
        names = await balances.rows(
            "SELECT name FROM sqlite_schema WHERE name LIKE 'balances%' AND type = 'table'"
        )
        assert names == [("balances",)]
        await balances.reached(await deposit(bus, 1), timeout=30)
        assert await entries(balances) == 541


def _dump(bus: InMemoryEventBus) -> list[tuple[object, ...]]:
    """Return everything the file holds of the balances: values with their types, and the schema.

    The generation number in an index's name is removed, because it counts the rebuilds.
    """
    file = sqlite3.connect(bus.storage.path)  # type: ignore[union-attr]
    rows = file.execute("SELECT rowid, quote(account), quote(balance), entries FROM balances").fetchall()
    schema = file.execute("SELECT type, sql FROM sqlite_schema WHERE tbl_name = 'balances' ORDER BY name")
    rows += [(kind, sql and re.sub(r"__\d+_", "__", sql)) for kind, sql in schema]
    file.close()
    return rows


async def test_a_live_model_and_a_rebuilt_one_are_identical(bus: InMemoryEventBus) -> None:
    """Promise 32, byte for byte. It would be visible whether a row was written live or in a rebuild."""
    for batch in (1, 7, 1000):
        async with Balances(bus, batch=batch) as balances:
            await balances.reached(await deposit(bus, 90, accounts=17), timeout=30)
            await bus.publish(Withdrawn("a3", Decimal(2)))
            await balances.reached(await bus.publish(Stray()), timeout=30)
    followed = _dump(bus)
    assert len(followed) == 17 + 3, "17 accounts; the table, its key and its index"
    await Balances(bus, batch=50).rebuild()
    assert _dump(bus) == followed


async def test_a_build_on_a_log_that_grows_with_every_batch_ends(
    bus: InMemoryEventBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A build would follow the end of a busy log for as long as publishers append, and never go live."""
    read_page = bus.storage.read_page  # type: ignore[union-attr]

    async def read_and_append(*arguments: Any, **options: Any) -> Any:
        page = await read_page(*arguments, **options)
        await deposit(bus, 2)
        return page

    await deposit(bus, 25)
    monkeypatch.setattr(bus.storage, "read_page", read_and_append)
    balances = Balances(bus, batch=10)
    steps: list[tuple[int, int]] = []
    async with asyncio.timeout(30):
        await balances.start(progress=lambda *at: steps.append(at))
        first = len(steps)
        await balances.rebuild(progress=lambda *at: steps.append(at))
    monkeypatch.undo()
    assert first == 4, "three batches of the log, and what was appended meanwhile"
    assert all(position == head for position, head in (steps[first - 1], steps[-1]))
    await balances.reached(await deposit(bus, 1), timeout=30)
    await balances.stop()
    assert await entries(balances) == await bus.storage.head()  # type: ignore[union-attr]


async def _keep_publishing(bus: InMemoryEventBus, count: int) -> Receipt:
    return [await bus.publish(Deposited("a0", ONE)) for _ in range(count)][-1]


async def test_the_live_tables_stay_readable_during_a_rebuild(bus: InMemoryEventBus) -> None:
    """Readers would find an empty or half-built model for the duration of a rebuild."""
    async with Balances(bus, batch=10) as balances:
        await balances.reached(await deposit(bus, 100), timeout=30)
        totals: list[int] = []
        reader = sqlite3.connect(bus.storage.path)  # type: ignore[union-attr]

        def read_total(position: int, head: int) -> None:
            totals.append(reader.execute("SELECT sum(entries) FROM balances").fetchone()[0])

        await balances.rebuild(progress=read_total)
        reader.close()
        assert totals == [100] * len(totals)
        assert len(totals) >= 10


async def test_start_builds_a_higher_version_that_replaces_the_lower(bus: InMemoryEventBus) -> None:
    """New methods would continue with rows written by the old ones."""
    async with Balances(bus) as balances:
        await balances.reached(await deposit(bus, 6), timeout=30)
        async with BalancesV2(bus) as newer:
            assert await newer.rows(BALANCES) == [("a0", 200), ("a1", 200), ("a2", 200)]
            # The older version, still running elsewhere, must not touch the new tables.
            receipt = await deposit(bus, 1)
            await newer.reached(receipt, timeout=30)
            with pytest.raises(ProjectionError, match="version 2"):
                await balances.reached(receipt, timeout=30)
    with pytest.raises(ProjectionError, match="version 2"):
        await Balances(bus).start()
    back = Balances(bus)
    await back.rebuild()
    assert await entries(back) == 7


async def test_a_removed_version_does_not_write_into_tables_of_another_version(bus: InMemoryEventBus) -> None:
    """Both are at the same position of a first generation: old methods would write into new tables."""
    async with Balances(bus) as balances:
        await balances.reached(await deposit(bus, 6), timeout=30)
        newer = BalancesV2(bus)
        await newer.remove()
        async with newer:
            pass
        receipt = await deposit(bus, 1)
        with pytest.raises(ProjectionError, match="version 2"):
            await balances.reached(receipt, timeout=30)
        async with newer:
            await newer.reached(receipt, timeout=30)
            assert await newer.rows(BALANCES) == [("a0", 300), ("a1", 200), ("a2", 200)]


async def test_a_newer_version_stops_when_an_older_one_rebuilds_the_tables(bus: InMemoryEventBus) -> None:
    """After a rollback, the new version's processes would use methods that do not fit the tables."""
    async with BalancesV2(bus) as newer:
        await newer.reached(await deposit(bus, 6), timeout=30)
        await Balances(bus).rebuild()
        receipt = await deposit(bus, 1)
        with pytest.raises(ProjectionError, match="rebuilt by version 1, this class is version 2"):
            await newer.reached(receipt, timeout=30)
        await newer.start()
        await newer.reached(receipt, timeout=30)
        assert (await newer.rows(BALANCES))[0] == ("a0", 300)


async def test_an_interrupted_build_resumes_at_the_next_start(bus: InMemoryEventBus) -> None:
    """A long build that was stopped would start over at the first event, or count events twice."""
    await deposit(bus, 50)

    class StoppedError(Exception):
        pass

    def stop_at(position: int, head: int) -> None:
        if position >= 20:
            raise StoppedError

    with pytest.raises(StoppedError):
        await Balances(bus, batch=10).start(progress=stop_at)
    positions: list[int] = []
    balances = Balances(bus, batch=10)
    await balances.start(progress=lambda position, head: positions.append(position))
    await balances.stop()
    assert positions == [30, 40, 50]
    assert await entries(balances) == 50


async def test_tables_that_several_processes_build_together_go_live_complete(bus: InMemoryEventBus) -> None:
    """Where one has moved on, another would put half a model in place of the whole one."""
    await deposit(bus, 300)

    async def start(balances: Balances) -> int:
        await balances.start()
        return balances.position

    builders = [Balances(bus, batch=10) for _ in range(3)]
    assert await asyncio.gather(*(start(each) for each in builders)) == [300, 300, 300]
    for each in builders:
        await each.stop()
    assert await entries(builders[0]) == 300


async def test_stop_interrupts_a_start_that_builds_and_the_next_start_resumes(bus: InMemoryEventBus) -> None:
    """A user who stops the program would have to wait for hours, or kill it."""
    await deposit(bus, 50)
    balances = Balances(bus, batch=10)
    tasks: list[asyncio.Task[None]] = []

    def stop_at(position: int, head: int) -> None:
        if position == 20:
            tasks.append(asyncio.create_task(balances.start()))
            tasks.append(asyncio.create_task(balances.stop()))

    with pytest.raises(UsageError, match="was stopped"):
        await balances.start(progress=stop_at)
    waiting, stopping = tasks
    await stopping
    with pytest.raises(UsageError, match="was stopped"):
        await waiting
    assert not balances.is_running
    positions: list[int] = []
    await balances.start(progress=lambda position, head: positions.append(position))
    await balances.stop()
    assert positions == [40, 50]
    assert await entries(balances) == 50


async def test_stop_does_not_interrupt_a_rebuild(bus: InMemoryEventBus) -> None:
    """A rebuild may run on a stopped projection, and its caller would never see it end."""
    await deposit(bus, 50)
    balances = Balances(bus, batch=10)
    async with balances:
        pass
    stops: list[asyncio.Task[None]] = []
    await balances.rebuild(progress=lambda *at: stops.append(asyncio.create_task(balances.stop())))
    await asyncio.gather(*stops)
    assert await entries(balances) == 50


async def test_a_cancelled_rebuild_leaves_only_the_live_tables(bus: InMemoryEventBus) -> None:
    """Half a model would stay in the file forever, and hold back trimming."""
    async with Balances(bus, batch=10) as balances:
        await balances.reached(await deposit(bus, 50), timeout=30)
        rebuilding = asyncio.create_task(balances.rebuild(progress=lambda *at: rebuilding.cancel()))
        with pytest.raises(asyncio.CancelledError):
            await rebuilding
        tables = "SELECT name FROM sqlite_schema WHERE name LIKE 'balances%' AND type = 'table'"
        assert await balances.rows(tables) == [("balances",)]
        assert (await bus.storage.trim(max_events=1)).held_back_by == ()  # type: ignore[union-attr]
        await balances.reached(await deposit(bus, 1), timeout=30)
        assert await entries(balances) == 51


async def test_abandoning_a_build_that_is_already_live_changes_nothing(bus: InMemoryEventBus) -> None:
    """The tables would be live without their position: no start would ever succeed again."""
    async with Balances(bus) as balances:
        await balances.reached(await deposit(bus, 5), timeout=30)
    (live,) = await bus.storage.transact(lambda tx: read_generations(tx, "balances"))  # type: ignore[union-attr]
    build = replace(live, is_live=False)
    await bus.storage.transact(lambda tx: abandon(tx, "balances", build))  # type: ignore[union-attr]
    async with balances:
        assert await entries(balances) == 5


async def test_an_unknown_event_is_skipped_live_and_fails_a_rebuild(
    bus: InMemoryEventBus, caplog: pytest.LogCaptureFixture
) -> None:
    """Promise 34: a class that was not imported would be silently missing from a rebuilt model."""
    with registry.isolated():

        class Forgotten(DomainEvent):
            event_type: ClassVar[str] = "es.forgotten"

        balances = Balances(bus)
        await balances.start()
        receipts = await bus.publish_batch([Deposited("a", ONE), Forgotten(), Deposited("a", ONE)])
        # Known to the registry, but not relevant to this projection.
        await balances.reached(receipts[-1], timeout=30)
        await balances.stop()
        position = (await bus.publish_batch([Forgotten(), Forgotten()]))[0].position
    await balances.start()
    await balances.reached(await bus.publish(Deposited("a", ONE)), timeout=30)
    assert await balances.rows(BALANCES) == [("a", 3, 3)]
    assert caplog.text.count("skips 'es.forgotten'") == 1, "not again for each event"
    with pytest.raises(EventNotProjectedError) as caught:
        await balances.rebuild()
    assert (caught.value.event_type, caught.value.position) == ("es.forgotten", receipts[1].position)
    assert position is not None
    # The live model is unaffected and continues.
    await balances.reached(await bus.publish(Deposited("a", ONE)), timeout=30)
    assert await balances.rows(BALANCES) == [("a", 4, 4)]
    await balances.stop()


async def test_events_of_pabal_itself_are_no_unknown_events(
    bus: InMemoryEventBus, caplog: pytest.LogCaptureFixture
) -> None:
    """A process that has read models alone could not build them beside one that handles commands."""
    with registry.isolated():

        class Handled(DomainEvent):
            event_type: ClassVar[str] = "pabal.command.handled.elsewhere"

        await bus.publish_batch([Deposited("a", ONE), Handled()])
    async with Balances(bus) as balances:
        await balances.reached(await bus.publish(Deposited("a", ONE)), timeout=30)
        await balances.rebuild()
        assert await balances.rows(BALANCES) == [("a", 2, 2)]
    assert "skips" not in caplog.text


async def test_an_event_of_a_matching_type_without_a_method_fails_a_rebuild(bus: InMemoryEventBus) -> None:
    """Promise 34: a new event of the family would be missing from the model without any error."""
    async with Choosy(bus) as choosy:
        await choosy.reached(await bus.publish(Stray()), timeout=30)
        with pytest.raises(EventNotProjectedError, match=r"es\.stray"):
            await choosy.rebuild()

    class LessChoosy(Choosy):
        name = "choosy"
        ignores = (Stray,)

    async with LessChoosy(bus) as less:
        await less.rebuild()


async def test_start_raises_on_a_log_whose_beginning_was_trimmed(bus: InMemoryEventBus) -> None:
    """A model built from the remaining events would look complete."""
    await deposit(bus, 20)
    await bus.storage.trim(max_events=5)  # type: ignore[union-attr]
    with pytest.raises(ProjectionError, match="trimmed"):
        await Balances(bus).start()


async def test_start_does_not_touch_tables_of_the_application(bus: InMemoryEventBus) -> None:
    """An application's own table with that name would be dropped."""
    await bus.storage.transact(lambda tx: tx.execute("CREATE TABLE balances (precious TEXT)"))  # type: ignore[union-attr]
    with pytest.raises(ProjectionError, match="already"):
        await Balances(bus).start()
    assert await bus.storage.query("SELECT * FROM balances") == []  # type: ignore[union-attr]


async def test_a_name_taken_by_the_application_is_reported_with_the_projection(bus: InMemoryEventBus) -> None:
    """A bare SQLite error would name neither the projection nor what to rename."""
    await bus.storage.transact(lambda tx: tx.execute("CREATE TABLE balances__1 (precious TEXT)"))  # type: ignore[union-attr]
    with pytest.raises(
        ProjectionError, match=r"'balances' .* cannot create its tables: table balances__1 already"
    ):
        await Balances(bus).start()


async def test_a_renamed_projection_reports_the_owner_of_its_tables_before_it_builds(
    bus: InMemoryEventBus,
) -> None:
    """It would read the whole log, for minutes, and only then report that the table exists."""
    async with Balances(bus) as balances:
        await balances.reached(await deposit(bus, 3), timeout=30)

    class Renamed(Balances):
        pass

    steps: list[int] = []
    with pytest.raises(ProjectionError, match="table balances belongs to projection 'balances'; if this"):
        await Renamed(bus).start(progress=lambda position, head: steps.append(position))
    assert steps == []
    await balances.remove()
    async with Renamed(bus) as renamed:
        assert await entries(renamed) == 3
