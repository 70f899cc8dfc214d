"""An idle bus does nothing. The eighth problem's test measures the CPU time itself."""

from __future__ import annotations

import asyncio

from pabal import BaseEventBus, InMemoryEventBus, InMemoryEventStorage
from tests.bus.samples import Moved
from tests.bus.support import Backend, spin_loop


class CountingLoop(asyncio.SelectorEventLoop):
    """A loop that counts how often it wakes up."""

    wakes = 0

    def _run_once(self) -> None:
        self.wakes += 1
        super()._run_once()  # type: ignore[misc]


def test_an_idle_bus_without_other_processes_never_wakes_the_loop() -> None:
    """There is no polling: without a timer that is due, nothing runs, not even once a second."""
    loop = CountingLoop()

    async def main(bus: BaseEventBus) -> int:
        @bus.on(Moved, timeout=3600)
        async def note(event: Moved) -> None: ...

        async with bus:
            await bus.publish(Moved("rook"))
            await bus.publish(Moved("later"), delay=3600)
            await bus.drain(60)
            await spin_loop(100)
            before = loop.wakes
            await asyncio.sleep(0.5)
            return loop.wakes - before

    try:
        for bus in (InMemoryEventBus(), InMemoryEventBus(InMemoryEventStorage())):
            # One wake-up ends the sleep itself; the log in memory may save a watermark meanwhile.
            assert loop.run_until_complete(main(bus)) <= 3
    finally:
        loop.close()


async def test_a_busy_bus_leaves_no_tasks_behind(backend: Backend) -> None:
    """Tasks left over from each burst of events would accumulate."""
    bus = await backend.start_bus()

    async def note(event: Moved) -> None: ...

    bus.subscribe(Moved, note)
    await bus.publish(Moved("rook"))
    await bus.drain(60)
    await spin_loop()
    before = len(asyncio.all_tasks())
    for n in range(500):
        await bus.publish(Moved(f"piece-{n % 9}", n))
    await bus.drain(60)
    await spin_loop()
    assert len(asyncio.all_tasks()) <= before
