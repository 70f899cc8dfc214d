"""A process that forks while a bus without a log runs: the child gets an error, the parent continues."""

from __future__ import annotations

from tests.forking import needs_fork, run_program

pytestmark = needs_fork

PROGRAM = """
import asyncio
from pabal import InMemoryEventBus
from pabal.errors import UsageError
from tests.bus.samples import Moved

seen = []

async def child(bus):
    try:
        await bus.publish(Moved("child"))
    except UsageError as error:
        assert "forked" in str(error), error
        return
    raise AssertionError("the child's publish was not rejected")

async def main():
    bus = InMemoryEventBus()

    @bus.on(Moved)
    async def note(event):
        seen.append(event.piece)

    async with bus:
        for number in range(2):
            await bus.publish(Moved(f"parent-{number}"))
            if number:
                await bus.drain(60)  # once with an event on its way to the handler, once with none
            forked = os.fork()
            if forked == 0:
                end_child(lambda: asyncio.run(child(bus)))
            assert os.waitpid(forked, 0)[1] == 0
            await bus.drain(60)
    assert seen == ["parent-0", "parent-1"], seen

asyncio.run(main())
"""


def test_publish_raises_in_a_child_forked_from_a_running_bus() -> None:
    """The child's copy has no workers: it would accept events that are never handled."""
    run_program(PROGRAM)
