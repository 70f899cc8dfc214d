"""Step 2: handlers run in workers. The publisher neither waits for them nor gets their exceptions.

Run it: ``python -m examples.small_bus.step2_worker_pool``
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from zlib import crc32

from examples.small_bus.step1_interface import Event, Handler, OrderPlaced

ATTEMPTS = 3


class PooledBus:
    """Pass events to a fixed number of workers, each with its own queue.

    All events of one key go to the same worker, so they are handled in the order they were published. With a
    single queue they would not be: two workers that take two events may finish in any order.
    """

    def __init__(self, workers: int = 4, max_queue: int = 1000, delay: float = 0.1) -> None:
        self._handlers: defaultdict[type[Event], list[Handler]] = defaultdict(list)
        self._queues = [asyncio.Queue[Event](max_queue) for _ in range(workers)]
        self._tasks: list[asyncio.Task[None]] = []
        self._delay = delay
        self.given_up: list[tuple[Event, Exception]] = []

    def subscribe(self, event_type: type[Event], handler: Handler, name: str) -> None:
        """See ``EventBus``."""
        self._handlers[event_type].append(handler)

    async def start(self) -> None:
        """Start the workers."""
        self._tasks = [asyncio.create_task(self._work(queue)) for queue in self._queues]

    async def stop(self) -> None:
        """Handle everything queued, then end the workers."""
        await self.drain()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()

    async def publish(self, event: Event) -> None:
        """Queue an event. Wait only while the queue is full, so that publishers cannot outrun the workers."""
        # hash() of a string differs between processes; a checksum does not.
        queue = self._queues[crc32(event.key.encode()) % len(self._queues)]
        await queue.put(event)

    async def drain(self) -> None:
        """Return when everything published so far was handled. Tests use this instead of sleeping."""
        for queue in self._queues:
            await queue.join()

    def _handlers_for(self, event: Event) -> list[Handler]:
        return self._handlers[type(event)]

    async def _work(self, queue: asyncio.Queue[Event]) -> None:
        while True:
            event = await queue.get()
            for handler in self._handlers_for(event):
                await self._attempt(handler, event)
            queue.task_done()

    async def _attempt(self, handler: Handler, event: Event) -> None:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                await handler(event)
            except Exception as error:  # a failing handler must not end the worker
                if attempt == ATTEMPTS:
                    self.given_up.append((event, error))
                else:
                    await asyncio.sleep(self._delay * 2 ** (attempt - 1))
            else:
                return


async def main() -> None:
    """Publish faster than the handler works, and let it fail once."""
    bus = PooledBus(workers=2)
    failures = iter([ConnectionError("the ledger is down")])

    async def write_invoice(event: Event) -> None:
        if error := next(failures, None):
            print(f"ledger: {event.key} failed, {error}")
            raise error
        await asyncio.sleep(0.05)
        print(f"ledger: invoice for {event.key}")

    bus.subscribe(OrderPlaced, write_invoice, name="ledger")
    await bus.start()
    for number in range(1, 5):
        await bus.publish(OrderPlaced(f"o-{number}", quantity=1))
        print(f"shop:   o-{number} is published")
    await bus.stop()


if __name__ == "__main__":
    asyncio.run(main())
