"""When a process forks while its bus runs, the child gets errors and the parent is not affected."""

from __future__ import annotations

from tests.brokers.server import Server
from tests.forking import needs_fork, run_program

pytestmark = needs_fork

PARENT = """
import asyncio
from asyncio.events import _set_running_loop
from pabal.brokers.redis import RedisEventBus
from pabal.errors import UsageError
from tests.brokers.events import Moved, Recorder, moves

url, namespace = sys.argv[1:]

async def assert_rejected(call):
    try:
        await call()
    except UsageError:
        return
    raise AssertionError(f"{call} was not rejected")

async def use_inherited_bus(bus):
    for call in (bus.start, bus.stop, bus.drain, bus.dead_letters.list, bus.subscriptions.list):
        await assert_rejected(call)
    await assert_rejected(lambda: bus.publish(Moved("a", 1)))
    try:
        bus.publish_threadsafe(Moved("a", 1))
    except UsageError as error:
        assert "forked" in str(error), error
    else:
        raise AssertionError("accepted an event that nothing would publish")
    async with RedisEventBus(url, group="child", namespace=namespace) as own:
        await own.publish(Moved("a", 1000))

async def main():
    recorder, lost = Recorder(), []
    bus = RedisEventBus(url, group="g", namespace=namespace)
    bus.subscribe(Moved, recorder.handle, name="sub")
    bus.listen(lambda report: lost.append(report) if "Lost" in type(report).__name__ else None)
    async with bus:
        child = os.fork()
        if child == 0:
            _set_running_loop(None)
            end_child(lambda: asyncio.run(use_inherited_bus(bus)))
        assert (await asyncio.to_thread(os.waitpid, child, 0))[1] == 0
        await bus.publish_batch(moves(3, 30))
        await bus.drain(timeout=30)
    assert sorted(recorder.numbers) == [*range(30), 1000], recorder.numbers
    assert lost == [], lost

asyncio.run(main())
"""


def test_a_forked_child_gets_errors_and_does_not_disturb_the_parents_bus(
    shared_server: Server, namespace: str
) -> None:
    """Answers to the child's calls would arrive in the parent, and its own publishes would hang."""
    run_program(PARENT, shared_server.url, namespace)
