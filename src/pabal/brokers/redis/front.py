"""The log as the bus sees it: where events, schedules and dead letters of all partitions go in and out."""

from __future__ import annotations

from collections.abc import Sequence

from pabal.brokers.redis.keys import GroupKeys
from pabal.brokers.redis.letters import GroupLetters
from pabal.brokers.redis.log import RedisLog
from pabal.brokers.redis.moving import GroupSteered, measure
from pabal.brokers.redis.partition import PartitionStorage
from pabal.brokers.redis.schedule import Schedule
from pabal.brokers.redis.standing import count_over_all, read_standing
from pabal.brokers.redis.steering import Group
from pabal.domain.event import DomainEvent
from pabal.ports.storage import SubscriptionRecord


class LogFront(GroupLetters, GroupSteered):
    """Take in what is published and scheduled, and show the dead letters of the whole group."""

    capabilities = PartitionStorage.capabilities

    def __init__(self, log: RedisLog, keys: GroupKeys) -> None:
        super().__init__(log, keys)
        self._whole = log
        self._schedule = Schedule(log)

    async def append_events(self, events: Sequence[DomainEvent]) -> list[int]:
        """Append events, all or none; return a number for each one's place in the whole log."""
        return self._whole.receipt_positions(await self._whole.append_to_all(events))

    async def schedule_event(self, event: DomainEvent, due_at: float) -> None:
        """Keep an event that enters the log at ``due_at`` (seconds since 1970)."""
        await self._schedule.add(event, due_at)

    async def release_due(self, now: float) -> float | None:
        """Append every scheduled event that is due; return when the next one is, or None."""
        return await self._schedule.release(now)

    # -- subscriptions --------------------------------------------------------------------------------

    async def _steering(self) -> Group:
        return Group(self._whole.link, self._whole.keys, self._keys, self._whole.partitions)

    async def list_subscriptions(self) -> list[SubscriptionRecord]:
        """Return every durable subscription of the group; positions are counted over all partitions."""
        group = await self._steering()
        standing = await read_standing(group.link, group.keys, range(group.partitions))
        return count_over_all(standing, await measure(group))
