"""The whole log as the bus uses it: events, schedules and dead letters of all partitions."""

from __future__ import annotations

from collections.abc import Sequence

from pabal.brokers.redis.control import Group
from pabal.brokers.redis.dead_letters import GroupDeadLetters
from pabal.brokers.redis.group_control import GroupControl, measure
from pabal.brokers.redis.keys import GroupKeys
from pabal.brokers.redis.log import RedisLog
from pabal.brokers.redis.partition import PartitionStorage
from pabal.brokers.redis.schedule import Schedule
from pabal.brokers.redis.subscription_reading import read_subscriptions, sum_partitions
from pabal.domain.event import DomainEvent
from pabal.ports.storage import SubscriptionRecord


class GroupLog(GroupDeadLetters, GroupControl):
    """Append and schedule events; show subscriptions and dead letters of the whole group."""

    capabilities = PartitionStorage.capabilities

    def __init__(self, log: RedisLog, keys: GroupKeys) -> None:
        super().__init__(log, keys)
        self._redis_log = log
        self._schedule = Schedule(log)

    async def append_events(self, events: Sequence[DomainEvent]) -> list[int]:
        """Append events, all or none; return for each the number of its place in the whole log."""
        return self._redis_log.receipt_positions(await self._redis_log.append_to_all(events))

    async def schedule_event(self, event: DomainEvent, due_at: float) -> None:
        """Store an event that enters the log at ``due_at`` (seconds since 1970)."""
        await self._schedule.add(event, due_at)

    async def release_due(self, now: float) -> float | None:
        """Append all scheduled events that are due; return when the next one is due, or None."""
        return await self._schedule.release(now)

    # -- subscriptions --------------------------------------------------------------------------------

    async def _resolve_group(self) -> Group:
        return Group(self._redis_log.link, self._redis_log.keys, self._keys, self._redis_log.partitions)

    async def list_subscriptions(self) -> list[SubscriptionRecord]:
        """Return every durable subscription of the group; positions are counted over all partitions."""
        group = await self._resolve_group()
        by_partition = await read_subscriptions(group.link, group.keys, range(group.partitions))
        return sum_partitions(by_partition, await measure(group))
