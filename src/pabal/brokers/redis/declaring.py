"""Declare subscriptions: create their cursors in all partitions, whichever process handles those."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from pabal.brokers.redis.group_control import places_of
from pabal.brokers.redis.keys import GroupKeys
from pabal.brokers.redis.log import RedisLog
from pabal.brokers.redis.scripts import script
from pabal.delivery.subscription import Subscription
from pabal.errors import BrokerUnavailableError, StorageError


class Declarations:
    """Declare each subscription once; existing cursors are kept."""

    def __init__(self, log: RedisLog, keys: GroupKeys) -> None:
        self._log = log
        self._keys = keys
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
        self.numbers[name] = await create_cursors(
            self._log, self._keys, name, dict(zip(parts, places, strict=True))
        )

    def forget(self, name: str) -> None:
        """Make the next ``declare`` of a subscription declare it again."""
        self.numbers.pop(name, None)

    def forget_all(self) -> None:
        """Declare every subscription again, because the server may have forgotten their numbers."""
        self.numbers.clear()


async def create_cursors(log: RedisLog, keys: GroupKeys, name: str, places: Mapping[int, int | str]) -> int:
    """Create a subscription's cursor where it has none of these partitions; return its number."""
    used = [
        keys.names,
        keys.letters,
        keys.letter_rows,
        keys.letter_states,
        keys.letter_index,
        keys.letter_ids,
    ]
    arguments: list[int | str] = [keys.group, name]
    for part, place in places.items():
        used += (keys.of(part).cursors, log.keys.marks(part), log.keys.part(part), log.keys.log(part))
        arguments += (part, place)
    return int(await log.link.run(script("declare"), tuple(used), *arguments))
