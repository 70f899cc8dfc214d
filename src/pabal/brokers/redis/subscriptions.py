"""``bus.subscriptions`` of a bus on Redis: requests apply to all partitions of the group."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import Any

from pabal.brokers.redis.coordinator import Coordinator
from pabal.brokers.redis.group import GroupEngine
from pabal.bus.subscriptions import Subscriptions
from pabal.delivery.consumer import HALTED, Consumer
from pabal.delivery.feed import Feed
from pabal.errors import BusNotRunningError
from pabal.ports.control import SubscriptionAdmin
from pabal.ports.records import Replay, Start


class GroupSubscriptions(Subscriptions):
    """Control durable subscriptions by name, whichever processes of the group handle their partitions."""

    def __init__(
        self,
        engine: GroupEngine,
        storage: SubscriptionAdmin,
        check_running: Callable[[str], None],
        coordinator: Callable[[], Coordinator | None],
    ) -> None:
        super().__init__(engine, storage, check_running)
        self._group = engine
        self._coordinator = coordinator

    async def _declare(self, name: str) -> None:
        """Declare a subscription that may have been made just now, so that it can be controlled."""
        consumer, coordinator = self._group.consumers.get(name), self._coordinator()
        if consumer is not None and coordinator is not None:
            await coordinator.declarations.declare(consumer.subscription)

    def _consumers(self, name: str) -> list[tuple[Feed, Consumer]]:
        """Return the feed and consumer of a subscription in each partition of this process."""
        return [
            (engine.feed, engine.consumers[name])
            for engine in self._group.engines()
            if engine.feed is not None and name in engine.consumers
        ]

    async def pause(self, name: str) -> bool:
        """Stop deliveries to a subscription until it is resumed; False if it is paused already.

        Running handlers are not interrupted. In this process the pause is in effect when the call returns; in
        other processes, within moments.
        """
        self._check_running("pause a subscription")
        await self._declare(name)
        for feed, consumer in self._consumers(name):
            with suppress(BusNotRunningError):
                await feed.controls.wait_until_open(consumer)
        return await super().pause(name)

    async def resume(self, name: str) -> bool:
        """Continue a paused or halted subscription, in every process; False if it is neither.

        In this process it is in effect when the call returns; in other processes, within moments.
        """
        self._check_running("resume a subscription")
        await self._declare(name)
        halted = [(feed, one) for feed, one in self._consumers(name) if one.state == HALTED]
        epochs = [(engine, engine.halted_in(name)) for engine in self._group.engines()]
        resumed = await super().resume(name)
        for engine, epoch in epochs:
            with suppress(BusNotRunningError):
                resumed = await engine.resume(name, epoch) or resumed
        for feed, consumer in halted:
            with suppress(BusNotRunningError):
                await feed.controls.wait_until_open(consumer)
        return resumed

    async def reset(self, name: str, to: Start) -> int:
        """Move a subscription to the beginning, to now or to a time, in every partition; return its position.

        The position is counted over all partitions. All events above it are delivered (again). Waits for the
        subscription's running handlers in this process; other processes obey within moments, once theirs have
        ended. Raises UsageError for a position if the log has several partitions.
        """
        self._check_running("reset a subscription")
        await self._declare(name)
        position = await super().reset(name, to)
        await self._apply_requests()
        for engine in self._group.engines():
            consumer = engine.consumers.get(name)
            if engine.feed is not None and consumer is not None:
                with suppress(BusNotRunningError):
                    await engine.resume(name, engine.halted_in(name))
                    await engine.feed.controls.wait_until_open(consumer)
        return position

    async def replay(
        self, name: str, first: int | datetime = 1, last: int | datetime | None = None
    ) -> Replay:
        """Deliver finished events again, to this subscription only: all of them, or those between two times.

        Times apply to every partition; ``first`` is included, ``last`` is not. Events no longer on the server
        are left out, and so are dead letters. Positions of the replay are counted over all partitions. Raises
        UsageError for an empty range, and for positions if the log has several partitions.
        """
        self._check_running("replay events")
        await self._declare(name)
        for engine in self._group.engines():
            await engine.settlement.flush()  # the replay's range ends at the saved cursor
        group_log: Any = self._storage("replay events")
        replay: Replay = await group_log.request_replay(name, first, last)
        await self._apply_requests()
        return replay

    async def forget(self, name: str) -> bool:
        """Delete an abandoned subscription, so that it no longer holds back trimming; False if unknown.

        Its dead letters stay. Raises SubscriptionInUseError while a process holds it in any partition.
        """
        forgotten = await super().forget(name)
        coordinator = self._coordinator()
        if coordinator is not None:
            coordinator.declarations.forget(name)
        return forgotten

    async def _apply_requests(self) -> None:
        self._group.nudge()
        for engine in self._group.engines():
            if engine.feed is not None:
                with suppress(BusNotRunningError):  # being handed over; the next owner sees the request
                    await engine.feed.controls.apply_requests()
