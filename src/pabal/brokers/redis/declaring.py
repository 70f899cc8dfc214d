"""Declare subscriptions: create their cursors in all partitions, whichever process handles those."""

from __future__ import annotations

from contextlib import suppress

from pabal.brokers.redis.group_control import places_of
from pabal.brokers.redis.keys import GroupKeys
from pabal.brokers.redis.log import RedisLog
from pabal.brokers.redis.scripts import script
from pabal.delivery.subscription import Subscription
from pabal.errors import BrokerUnavailableError, StorageError


class Declarations:
    """Declare each subscription once; existing cursors are kept."""

    def __init__(self, log: RedisLog, keys: GroupKeys, group: str) -> None:
        self._log = log
        self._keys = keys
        self._group = group
        self.numbers: dict[str, int] = {}
        """The number of each declared subscription; one that is forgotten and made again gets another."""

    def announce(self, subscription: Subscription) -> None:
        """Declare a new subscription before any event that this process publishes from now on is appended."""
        _ = self._log.hold_appends_for(self._announce(subscription))

    async def _announce(self, subscription: Subscription) -> None:
        with suppress(StorageError):  # the coordinator's next turn declares it
            try:
                await self.declare(subscription)
            except BrokerUnavailableError:
                await self.declare(subscription)  # the connection broke; this call waits for the next one

    async def declare(self, subscription: Subscription) -> None:
        """Create a subscription's cursor in every partition where it has none. Raises BrokerError."""
        name = subscription.name
        if name in self.numbers:
            return
        parts = range(self._log.partitions)
        places = await places_of(self._log.link, self._log.keys, parts, subscription.start)
        keys: list[str] = [self._keys.names]
        for part in parts:
            keys += (self._keys.of(part).cursors, self._log.keys.marks(part), self._log.keys.part(part))
        number = await self._log.link.run(script("declare"), tuple(keys), self._group, name, *places)
        self.numbers[name] = int(number)

    def forget(self, name: str) -> None:
        """Make the next ``declare`` of a subscription declare it again."""
        self.numbers.pop(name, None)

    def forget_all(self) -> None:
        """Declare every subscription again, because the server may have forgotten their numbers."""
        self.numbers.clear()
