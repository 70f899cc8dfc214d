"""The envelope that a projection's handler can see, and scripts that create its tables."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

from pabal import EventBusFactory
from pabal.eventsourcing import Projection, ProjectionTransaction, projects
from tests.eventsourcing.samples import Deposited


class Journal(Projection):
    name = "journal"
    # The semicolons inside the trigger must not end a statement.
    tables = """
        CREATE TABLE {journal} (position INTEGER PRIMARY KEY, version INTEGER, note TEXT);
        CREATE TRIGGER {journal}_noted AFTER INSERT ON {journal} BEGIN
            UPDATE {journal} SET note = 'a;b' WHERE position = NEW.position;
        END;
    """

    @projects(Deposited)
    def _deposited(self, event: Deposited, tx: ProjectionTransaction) -> None:
        envelope = tx.envelope
        assert envelope.event == event
        tx.execute(
            "INSERT INTO {journal} (position, version) VALUES (?, ?)",
            (envelope.position, envelope.stream_version),
        )


async def test_a_projection_method_sees_the_envelope_and_its_tables_may_have_triggers(
    tmp_path: Path,
) -> None:
    """A read model that links to the log needs the position; a script may contain triggers."""
    async with EventBusFactory.create_default_event_bus(tmp_path / "log.db") as bus:
        journal = Journal(bus)
        async with journal:
            await bus.publish(Deposited("a", Decimal(1)))
            receipt = await bus.publish(Deposited("a", Decimal(2)))
            await journal.reached(receipt, timeout=30)
            assert await journal.rows("SELECT * FROM {journal} ORDER BY position") == [
                (1, 1, "a;b"),
                (2, 2, "a;b"),
            ]
