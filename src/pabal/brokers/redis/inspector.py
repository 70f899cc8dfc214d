"""Inspect and control a group from outside: without joining it, taking leases or creating a log."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import datetime
from typing import Any, NamedTuple

from pabal.brokers.redis.actions import GroupActions
from pabal.brokers.redis.address import masked
from pabal.brokers.redis.control import Group
from pabal.brokers.redis.cursors import as_pairs
from pabal.brokers.redis.dead_letters import GroupDeadLetters
from pabal.brokers.redis.deliveries import deliveries
from pabal.brokers.redis.group_control import GroupControl, measure
from pabal.brokers.redis.keys import GroupKeys, LogKeys, check_name
from pabal.brokers.redis.link import Link
from pabal.brokers.redis.reader import MOST_SEARCHED, LogReader
from pabal.brokers.redis.subscription_reading import head_of, read_subscriptions, sum_partitions
from pabal.domain.envelope import id_to_bytes
from pabal.errors import BrokerError, InvalidEventError, UsageError
from pabal.ports.groups import Found, Matches, OnDamage, Place, Placed
from pabal.ports.inspection import ActionRecord, DeliveryRecord
from pabal.ports.storage import DeadLetterGroup, DeadLetterRecord
from pabal.ports.views import SubscriptionView, Totals, stored_view


class _Heartbeat(NamedTuple):
    """A process's heartbeat, when the process was first seen, and when it last changed."""

    beat: bytes
    first_seen: float
    moved: float | None


class GroupInspector(GroupControl):
    """Answer an operator's questions about one group; connects at the first question.

    Without ``group``, the log must have only one, which is used. The connection belongs to the event loop
    that asks; another loop gets another connection. A process that sends no heartbeat for ``silence``
    seconds (it gives several a second) is shown as handling nothing. This affects only what is shown: when
    other processes may take its partitions depends on the lease. A search looks at up to ``most`` events.
    Raises UsageError for an invalid name of a group or namespace.
    """

    def __init__(
        self,
        url: str,
        *,
        group: str | None = None,
        namespace: str = "pabal",
        patience: float = 5.0,
        silence: float = 3.0,
        most: int = MOST_SEARCHED,
    ) -> None:
        check_name("namespace", namespace)
        if group is not None:
            check_name("group", group)
        self.address = masked(url)
        self._url = url
        self._group = group
        self._log = LogKeys(namespace)
        self._namespace = namespace
        self._patience = patience
        self._silence = silence
        self._most = most
        self._link: Link | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._opening = asyncio.Lock()
        self._keys = GroupKeys(self._log, group or "")
        self._partitions = 0
        self._followers: set[Link] = set()
        self._heartbeats: dict[bytes, _Heartbeat] = {}

    @property
    def link(self) -> Link:
        """Return the connection; it must be open."""
        assert self._link is not None
        return self._link

    # -- the connection -------------------------------------------------------------------------------

    async def _ready(self) -> Link:
        """Connect, and find the log and the group; neither is created if it does not exist."""
        if self._loop is not asyncio.get_running_loop():
            # The connection of another loop was closed when that loop ended.
            self._loop, self._link, self._opening = asyncio.get_running_loop(), None, asyncio.Lock()
        async with self._opening:
            if self._link is None:
                link = Link(self._url, patience=self._patience, loads_scripts=False)
                await link.open()
                try:
                    await self._find(link)
                except BaseException:
                    await link.close()
                    raise
                self._link = link
        return self._link

    async def _find(self, link: Link) -> None:
        count = await link.call("HGET", self._log.meta, "partitions")
        if count is None:
            raise BrokerError(
                path=self.address,
                reason=f"there is no log in namespace {self._namespace!r}; "
                "choose another with namespace=… in the URL",
            )
        known = sorted(name.decode() for name in await link.call("SMEMBERS", self._log.groups))
        names = ", ".join(known) or "none"
        if self._group is None:
            if len(known) != 1:
                raise UsageError(f"{self.address}: choose a group with ?group=…; known groups: {names}")
            self._keys = GroupKeys(self._log, known[0])
        elif self._group not in known:
            raise UsageError(f"{self.address}: there is no group {self._group!r}; known groups: {names}")
        self._partitions = int(count)

    async def aclose(self) -> None:
        """Disconnect."""
        link, self._link = self._link, None
        if link is not None and self._loop is asyncio.get_running_loop():
            await link.close()
            for follower in tuple(self._followers):
                await follower.close()

    # -- figures --------------------------------------------------------------------------------------

    async def totals(self) -> Totals:
        """Return how many events the log holds, its head and its scheduled events, over all partitions."""
        found = await measure(await self._resolve_group())
        scheduled = await self.link.call("ZCARD", self._log.schedule)
        held = sum(one.count_assigned(one.first - 1, one.head) for one in found if one.first)
        return Totals(held, sum(one.count_assigned(0, one.head) for one in found), int(scheduled))

    async def published_since(self, moment: datetime) -> int:
        """Return how many events were published since ``moment``, of those still in the log."""
        found = await measure(await self._resolve_group(), moment)
        return sum(one.count_assigned(one.since, one.head) for one in found if one.since is not None)

    async def subscriptions(self) -> list[SubscriptionView]:
        """Return the durable subscriptions of the group, ordered by name, summed over the partitions."""
        found = await measure(await self._resolve_group())
        living = {name.decode() for name in await self._living()}
        standing = await read_subscriptions(self.link, self._keys, range(self._partitions))
        head = head_of(found)
        return [stored_view(record, 0, head) for record in sum_partitions(standing, found, living)]

    async def _resolve_group(self) -> Group:
        return Group(await self._ready(), self._log, self._keys, self._partitions)

    async def _living(self) -> set[bytes]:
        """Return the processes that send heartbeats; observe new ones for up to ``silence`` seconds."""
        while True:
            now = time.monotonic()
            seen: dict[bytes, _Heartbeat] = {}
            for name, beat in as_pairs(await self.link.call("HGETALL", self._keys.members)).items():
                earlier = self._heartbeats.get(name)
                if earlier is None:
                    seen[name] = _Heartbeat(beat, now, None)
                else:
                    seen[name] = (
                        earlier if earlier.beat == beat else _Heartbeat(beat, earlier.first_seen, now)
                    )
            self._heartbeats = seen
            if not any(one.moved is None and now - one.first_seen <= self._silence for one in seen.values()):
                break
            await asyncio.sleep(0.05)
        return {
            name for name, one in seen.items() if one.moved is not None and now - one.moved <= self._silence
        }

    # -- the log --------------------------------------------------------------------------------------

    async def _reader(self) -> LogReader:
        return LogReader(await self._ready(), self._log, self._partitions, most=self._most)

    async def search(self, matches: Matches, **where: Any) -> Found:
        """Return matching events between two places and times, newest or oldest first."""
        return await (await self._reader()).search(matches, **where)

    async def read(
        self,
        matches: Matches,
        *,
        after: Place | None,
        since: int | None,
        until: int | None,
        on_damage: OnDamage | None,
    ) -> AsyncGenerator[Placed, None]:
        """Iterate over matching events after a place, oldest first, up to the present end of the log."""
        reader = await self._reader()
        found = reader.read(
            matches,
            after=after,
            since=since,
            until=until,
            upto=await reader.heads(),
            on_damage=on_damage,
        )
        async with aclosing(found) as events:
            async for one in events:
                yield one

    async def follow(
        self, matches: Matches, after: Place | None, since: int | None
    ) -> AsyncGenerator[Placed, None]:
        """Iterate over matching events after a place (None: the log's end), then over new ones, for ever."""
        reader = await self._reader()
        heads = await reader.heads()
        if after is not None:
            earlier = reader.read(matches, after=after, since=since, upto=heads)
            async with aclosing(earlier) as events:
                async for one in events:
                    yield one
        blocking = Link(self._url, patience=self._patience, loads_scripts=False)
        self._followers.add(blocking)
        try:
            await blocking.open()
            async with aclosing(reader.follow(blocking, heads)) as coming:
                async for one in coming:
                    if matches(one.row) and (since is None or one.row.recorded_at >= since):
                        yield one
        finally:
            self._followers.discard(blocking)
            await blocking.close()

    async def find_event(self, event_id: str) -> Placed | None:
        """Return an event by its id, or None; at least the last 20,000 events of each partition are found."""
        try:
            wanted = id_to_bytes(event_id)
        except InvalidEventError:
            return None
        return await (await self._reader()).find(wanted)

    async def deliveries_at(self, place: Place) -> list[DeliveryRecord]:
        """Return the state of one event at every durable subscription of the group, ordered by name."""
        link = await self._ready()
        return await deliveries(GroupDeadLetters(self, self._keys), link, self._keys, place)

    # -- dead letters ---------------------------------------------------------------------------------

    async def _letters(self) -> GroupDeadLetters:
        await self._ready()
        return GroupDeadLetters(self, self._keys)

    async def list_dead_letters(self, **filters: Any) -> list[DeadLetterRecord]:
        """Return dead letters by ascending id; the filters are those of ``DeadLetterStore``."""
        return await (await self._letters()).list_dead_letters(**filters)

    async def group_dead_letters(self) -> list[DeadLetterGroup]:
        """Count dead letters by subscription and type of their last error, largest group first."""
        return await (await self._letters()).group_dead_letters()

    async def count_forgotten_letters(self) -> int:
        """Return how many dead letters belong to none of the group's durable subscriptions."""
        counts = await (await self._letters()).count_by_name()
        # Read after the dead letters: a subscription that is new in between is then known.
        known = frozenset(await self.link.call("HKEYS", self._keys.names))
        return sum(count for name, count in counts.items() if name not in known)

    async def get_dead_letter(self, dead_letter_id: int) -> DeadLetterRecord:
        """Return one dead letter. Raises DeadLetterNotFoundError."""
        return await (await self._letters()).get_dead_letter(dead_letter_id)

    async def begin_retry(
        self, dead_letter_id: int, payload: bytes | None, now: float
    ) -> DeadLetterRecord | None:
        """Mark a dead letter as being retried, for its partition's owner; None if it is retried already."""
        return await (await self._letters()).begin_retry(dead_letter_id, payload, now)

    async def discard_dead_letter(self, dead_letter_id: int) -> DeadLetterRecord:
        """Delete a dead letter and tell its partition's owner. Raises DeadLetterNotFoundError."""
        return await (await self._letters()).discard_dead_letter(dead_letter_id)

    # -- the audit log --------------------------------------------------------------------------------

    async def _actions(self) -> GroupActions:
        await self._ready()
        return GroupActions(self, self._keys)

    async def begin_action(self, actor: str, action: str, subject: str, details: Any) -> int:
        """Record the start of an operator's action in the audit log and return its number."""
        return await (await self._actions()).begin_action(actor, action, subject, details)

    async def finish_action(self, number: int, result: str, *, succeeded: bool) -> None:
        """Record the result of an action in the audit log."""
        await (await self._actions()).finish_action(number, result, succeeded=succeeded)

    async def list_actions(self, *, before: int | None = None, limit: int = 100) -> list[ActionRecord]:
        """Return up to ``limit`` recorded actions by descending number, below ``before`` if given."""
        return await (await self._actions()).list_actions(before=before, limit=limit)
