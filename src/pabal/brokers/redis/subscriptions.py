"""``bus.subscriptions`` of a bus on a server: what is asked holds in every partition of the group."""

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
from pabal.ports.control import SubscriptionSteering
from pabal.ports.records import Replay, Start


class GroupSubscriptions(Subscriptions):
    """Steer by durable name, whichever processes of the group have the partitions."""

    def __init__(
        self,
        engine: GroupEngine,
        storage: SubscriptionSteering,
        check_running: Callable[[str], None],
        coordinator: Callable[[], Coordinator | None],
    ) -> None:
        super().__init__(engine, storage, check_running)
        self._group = engine
        self._coordinator = coordinator

    async def _declare(self, name: str) -> None:
        """Give a subscription that was made a moment ago its place, so that it can be steered."""
        consumer, coordinator = self._group.consumers.get(name), self._coordinator()
        if consumer is not None and coordinator is not None:
            await coordinator.declarations.declare(consumer.subscription)

    def _consumers(self, name: str) -> list[tuple[Feed, Consumer]]:
        """Return what handles a subscription in each partition of this process."""
        return [
            (engine.feed, engine.consumers[name])
            for engine in self._group.engines()
            if engine.feed is not None and name in engine.consumers
        ]

    async def pause(self, name: str) -> bool:
        """Let a subscription take no more events until it is resumed; False if it is paused already.

        Handlers that run go on to their end. In the partitions of this process it holds when the call
        returns, in those of others within moments.
        """
        self._check_running("pause a subscription")
        await self._declare(name)
        for feed, consumer in self._consumers(name):
            with suppress(BusNotRunningError):
                await feed.controls.opened(consumer)
        return await super().pause(name)

    async def resume(self, name: str) -> bool:
        """Let a paused or halted subscription go on, in every process; False if it is neither.

        Here it holds when the call returns, elsewhere within moments.
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
                await feed.controls.opened(consumer)
        return resumed

    async def reset(self, name: str, to: Start) -> int:
        """Move a subscription to the beginning, to now or to a time, in every partition; return its position.

        Positions are counted over all partitions. Everything above is delivered, or delivered again. Waits
        for its running handlers in this process; others obey within moments, once theirs have ended. Raises
        UsageError for a position in a log of several partitions.
        """
        self._check_running("reset a subscription")
        await self._declare(name)
        position = await super().reset(name, to)
        await self._obey()
        for engine in self._group.engines():
            consumer = engine.consumers.get(name)
            if engine.feed is not None and consumer is not None:
                with suppress(BusNotRunningError):
                    await engine.resume(name, engine.halted_in(name))
                    await engine.feed.controls.opened(consumer)
        return position

    async def replay(
        self, name: str, first: int | datetime = 1, last: int | datetime | None = None
    ) -> Replay:
        """Deliver once more, to this subscription alone, what it has finished: all, or between two times.

        A time bounds every partition, ``first`` included and ``last`` not. What the server keeps no more is
        left out, and so are dead letters. Positions of the replay are counted over all partitions. Raises
        UsageError for a range that holds nothing, and for positions in a log of several partitions.
        """
        self._check_running("replay events")
        await self._declare(name)
        for engine in self._group.engines():
            await engine.settlement.flush()  # the range is cut where its saved cursor stands
        front: Any = self._storage("replay events")
        replay: Replay = await front.request_replay(name, first, last)
        await self._obey()
        return replay

    async def forget(self, name: str) -> bool:
        """Remove a subscription that was given up, so that it holds nothing back; False if unknown.

        Its dead letters stay. Raises SubscriptionInUseError while some process has it in some partition.
        """
        forgotten = await super().forget(name)
        coordinator = self._coordinator()
        if coordinator is not None:
            coordinator.declarations.forget(name)
        return forgotten

    async def _obey(self) -> None:
        self._group.nudge()
        for engine in self._group.engines():
            if engine.feed is not None:
                with suppress(BusNotRunningError):  # its partition is handed over: the next owner sees it
                    await engine.feed.controls.obey()
