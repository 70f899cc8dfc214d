"""Carry out membership's plans: take partitions, hand them over, let them go, restore them.

A *look* is a survey of the group on the server: its members, leases, requests and schedule. The coordinator
takes one every tick and then acts on it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress

from pabal.brokers.redis.control import ControlWatch
from pabal.brokers.redis.declaring import Declarations
from pabal.brokers.redis.group import GroupEngine, Running
from pabal.brokers.redis.heartbeat import Heartbeat
from pabal.brokers.redis.keys import GroupKeys
from pabal.brokers.redis.log import RedisLog
from pabal.brokers.redis.membership import Membership, Plan, View, make_plan
from pabal.brokers.redis.notes import NoteConnection, SuspectJournal, deaths_in, forget_notes
from pabal.brokers.redis.partition import PartitionStorage
from pabal.brokers.redis.peers import Peers
from pabal.brokers.redis.reports import (
    EventsLost,
    GroupRestored,
    PartitionGivenUp,
    PartitionLost,
    PartitionTaken,
)
from pabal.brokers.redis.scripts import script
from pabal.brokers.redis.tail import Tail
from pabal.delivery.shutdown import end_tasks
from pabal.errors import BrokerError, BusNotRunningError, PabalError, StorageClosedError, StorageError
from pabal.ports.clock import Clock
from pabal.ports.telemetry import StorageTrouble

_log = logging.getLogger("pabal")
_LONGEST_TICK = 0.3
_CALLS = 256


class Coordinator:
    """Run a process's share of the partitions, from ``start`` to ``stop``.

    A process takes part as long as it has a subscription; a process that only publishes owns no partition.
    """

    def __init__(
        self,
        log: RedisLog,
        keys: GroupKeys,
        engine: GroupEngine,
        tail: Tail,
        *,
        group: str,
        member: str,
        lease: float,
        keep: int,
        note_connection: NoteConnection,
        on_due: Callable[[], Awaitable[bool]],
    ) -> None:
        self._log = log
        self._keys = keys
        self._engine = engine
        self._tail = tail
        self._group = group
        self._keep = keep
        self._note_connection = note_connection
        self._on_due = on_due
        self.membership = Membership(log, keys, member, lease)
        self.declarations = Declarations(log, keys)
        self.controls = ControlWatch(log, keys)
        self.peers = Peers(log.link, keys, member)
        self._tick = min(lease / 3, _LONGEST_TICK)
        self.heartbeat = Heartbeat(lease, self._tick, self.membership.send_heartbeat, self._release_all)
        self._task: asyncio.Task[None] | None = None
        self._wake: asyncio.Event | None = None
        self._inherited: set[int] = set()
        """Partitions of dead processes that we are taking but do not run yet; that may take several looks."""
        self._trim_at = 0.0
        self.view: View | None = None
        self.trouble: PabalError | None = None
        """Why the last look, or acting on it, failed; None if it succeeded."""
        self.lost_events = 0
        """Number of events that disappeared from the server before the group had finished them."""

    # -- life -----------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Take the partitions that are free now, and start looking at the group regularly."""
        self._wake = asyncio.Event()
        self._engine.nudge, self._engine.announce = self._wake.set, self.declarations.announce
        self.heartbeat.start()
        try:
            await self._log.insist(self._enter)
        except BaseException:
            await self.heartbeat.stop()
            raise
        self._task = asyncio.create_task(self._run(), name="pabal-redis-partitions")

    async def _enter(self) -> None:
        await self._log.link.run(script("enter"), (self._log.keys.groups,), self._group)
        await self._run_round()

    async def stop(self, deadline: float) -> None:
        """Save progress and hand over all partitions, concurrently; leave the group."""
        self._engine.detach()
        await end_tasks(self._task)
        await self.heartbeat.stop()
        handing = {
            running.ending
            or asyncio.create_task(self._hand_over(running, deadline), name="pabal-redis-handover")
            for running in self._engine.running.values()
            if running.ending is not None or self._log.link.is_connected
        }
        if handing:
            _, late = await asyncio.wait(handing, timeout=seconds_left(deadline, self._engine.clock))
            await end_tasks(*late)
        # Partitions that cannot be saved now are taken over when the lease expires, and deliver again.
        for running in tuple(self._engine.running.values()):
            await self._engine.abandon(running)
        self._note_connection.close()
        try:
            if self._log.link.is_connected:
                async with asyncio.timeout(seconds_left(deadline, self._engine.clock)):
                    await self.membership.leave()
        except (BrokerError, TimeoutError):
            return  # the other processes notice the missing heartbeats

    async def _run(self) -> None:
        assert self._wake is not None
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._tick):
                    await self._wake.wait()
            self._wake.clear()
            try:
                await self._run_round()
                self.trouble = None
            except StorageClosedError:
                return
            except PabalError as error:
                self.trouble = error
                self._engine.report(StorageTrouble("", error))
            except Exception:
                _log.exception("taking or renewing partitions failed; trying again")

    async def _release_all(self) -> None:
        """Stop delivering: heartbeats are overdue, so others may have taken this process's partitions."""
        held = [running for running in self._engine.running.values() if running.is_open]
        # Concurrently, because each may have to wait for the answer to its last save.
        for error in await asyncio.gather(*map(self._drop_partition, held), return_exceptions=True):
            if error is not None:
                _log.error("a partition could not be released properly", exc_info=error)

    # -- one look, and acting on it -------------------------------------------------------------------

    async def _run_round(self) -> None:
        subscriptions = [consumer.subscription for consumer in self._engine.consumers.values()]
        for subscription in subscriptions:
            await self.declarations.declare(subscription)
        if not subscriptions:
            await self._withdraw()
            return
        sent_at = time.monotonic()
        view = self.view = await self.membership.read_view()
        if not view.same_log:
            await self._log.rejoin()
        self.heartbeat.note_confirmed(sent_at)
        self._engine.count_parked(view.dead_letters)
        if await self.controls.refresh(view.control_version):
            for running in self._engine.running.values():
                running.storage.control_listeners.notify()
        mine = {number for number, running in self._engine.running.items()}
        await self._apply_plan(make_plan(self.membership.member, view, mine))
        # Concurrently, because each answer takes long while handlers keep the loop busy.
        await asyncio.gather(*map(self._update_head, self._engine.running.values()))
        for partition in view.called:
            await self._answer_calls(partition)
        owners = {lease.owner for lease in view.leases}
        for name in view.dead:
            if name not in owners:
                await forget_notes(self._log, self._keys, name)
                await self.membership.remove_member(name)
        if time.monotonic() >= self._trim_at:
            self._trim_at = time.monotonic() + 5.0
            await self.trim()  # before releasing due events, because a full server needs the room
            await self.peers.check(self._engine.consumers, view)
        if view.next_due is not None and view.next_due <= self._engine.clock.time():
            await self._on_due()

    async def _withdraw(self) -> None:
        """Hand over all partitions, then leave the group: this process has no subscription (any more)."""
        self._give(self._engine.running)
        if not self._engine.running and self.heartbeat.is_active:
            self.heartbeat.suspend()
            await self.membership.leave()

    def _give(self, partitions: Iterable[int]) -> None:
        """Begin to hand over partitions."""
        for partition in partitions:
            running = self._engine.running[partition]
            if running.ending is None:
                running.ending = asyncio.create_task(self._hand_over(running), name="pabal-redis-handover")
                self._engine.background.spawn(running.ending)

    async def _apply_plan(self, plan: Plan) -> None:
        mine = dict(self._engine.running)
        for partition in plan.lost:
            await self._drop_partition(mine[partition])
        for partition in plan.forgotten:
            await self._restore(mine[partition])
        self._give(plan.give)
        self._inherited.update(partition for partition, owner in plan.take if self._is_other(owner))
        if self._inherited or self._note_connection.is_broken:
            await self._note_connection.open()
        # Concurrently, because each answer takes long while handlers keep the loop busy.
        taking = [self._take_over(partition, owner) for partition, owner in plan.take]
        for error in await asyncio.gather(*taking, return_exceptions=True):
            if error is not None:
                raise error

    def _is_other(self, owner: str) -> bool:
        return owner not in ("", self.membership.member)

    async def _take_over(self, partition: int, owner: str) -> None:
        retries: list[str | bytes] = []
        if self._is_other(owner):
            retries = await deaths_in(self._log, self._keys, partition, owner)
        epoch = await self.membership.take(partition, owner, retries)
        if epoch:
            await self._begin(partition, epoch, owner)
        self._inherited.discard(partition)

    def _storage(self, partition: int) -> PartitionStorage:
        return PartitionStorage(
            self._log,
            self._keys,
            partition,
            self.membership.member,
            group=self._group,
            on_lost=lambda first, last: self._note_lost(partition, first, last),
        )

    async def _begin(self, partition: int, epoch: int, taken_from: str) -> None:
        storage = self._storage(partition)
        pages = storage.pages
        head = await pages.follow()
        if partition in self._inherited:
            storage.journal = SuspectJournal(self._note_connection, partition, head)
        pages.on_follow = self._tail.refresh
        known = dict(self.declarations.numbers)
        running = await self._engine.take(partition, epoch, storage, known)
        for consumer in running.engine.consumers.values():
            if consumer.number != known.get(consumer.name):
                self.declarations.forget(consumer.name)  # it was forgotten: the next turn declares it again
        assert running.engine.feed is not None
        pages.on_head = running.engine.feed.advance_to
        self._tail.follow(partition, pages)
        self._engine.report(PartitionTaken("", partition, taken_from))

    async def _hand_over(self, running: Running, deadline: float = float("inf")) -> None:
        await self._engine.hand_over(running, deadline)
        self._tail.unfollow(running.partition)
        try:
            await running.storage.give_up()
        except StorageError:
            return  # the partition is taken over when the lease expires
        self._engine.report(PartitionGivenUp("", running.partition))

    async def _drop_partition(self, running: Running) -> None:
        """Stop handling a partition without saving, unless it is already being let go or handed over."""
        if running.ending is not None:
            return
        running.ending = asyncio.current_task()
        self._tail.unfollow(running.partition)
        await self._engine.abandon(running)
        _log.warning(
            "partition %d was released because another process has taken it over, or may have",
            running.partition,
        )
        self._engine.report(PartitionLost("", running.partition))

    async def _restore(self, running: Running) -> None:
        engine = running.engine
        if await running.storage.restore(running.epoch, list(engine.consumers.values())):
            _log.error(
                "the server had lost the progress of group %r in partition "
                "%d; it was restored from the memory of this process",
                self._group,
                running.partition,
            )
            self._engine.report(GroupRestored("", running.partition))
            if engine.feed is not None:
                engine.feed.controls.note_halts()
            engine.background.spawn(running.release_lost_keys())
            running.has_jumped = True
        else:
            await self._drop_partition(running)

    async def resume_partitions(self) -> None:
        """Continue in a new incarnation of the log, and record how far the previous one had come."""
        jumped = tuple(self._engine.running.values())
        for running in jumped:
            running.has_jumped = True
        with suppress(StorageError):  # the next look continues with those that failed
            for running in jumped:
                await self._resume_partition(running)

    async def _update_head(self, running: Running) -> None:
        """Tell an engine its head: ``note_head`` may have deferred it, and does not know it if not followed.

        That is so after a gap, for example, or after more events of this process than are kept for readers.
        """
        if running.has_jumped:
            await self._resume_partition(running)
        pages, feed = running.storage.pages, running.engine.feed
        if feed is not None:
            feed.advance_to(pages.end if pages.follows else await pages.measure())

    async def _resume_partition(self, running: Running) -> None:
        feed = running.engine.feed
        if feed is None:
            return
        running.has_jumped = running.storage.pages.follows = False
        try:
            keys = (self._log.keys.part(running.partition),)
            await self._log.link.run(script("known"), keys, feed.head)
            feed.advance_to(await running.storage.pages.follow())
        except BaseException:
            running.has_jumped = True
            raise

    def _note_lost(self, partition: int, first: int, last: int) -> None:
        self.lost_events += last - first + 1
        _log.error(
            "%d events of partition %d disappeared from the server before group %r finished "
            "them (positions %d to %d); something other than pabal removed them, or the server lost them",
            last - first + 1,
            partition,
            self._group,
            first,
            last,
        )
        self._engine.report(EventsLost("", partition, first, last))

    # -- requests of other processes ------------------------------------------------------------------

    async def _answer_calls(self, partition: int) -> None:
        """Act on dead letters of a partition that some process has retried or discarded."""
        running = self._engine.running.get(partition)
        if running is None or running.ending is not None:
            return
        key = self._keys.of(partition).calls
        calls = await self._log.link.call("SMEMBERS", key)
        for start in range(0, len(calls), _CALLS):
            made = {call: call.decode(errors="replace") for call in calls[start : start + _CALLS]}
            try:
                answered = await running.answer(tuple(made.values()))
            except BusNotRunningError:
                return  # the partition is being let go; its next owner sees the calls
            if answered:
                done = [call for call, text in made.items() if text in answered]
                await self._log.link.call("SREM", key, *done)

    async def has_calls(self) -> bool:
        """Return whether a dead letter was retried or discarded and its owner has not acted on it yet."""
        parts = range(self._log.partitions)
        counted = [self._log.link.call("SCARD", self._keys.of(part).calls) for part in parts]
        return any(await asyncio.gather(*counted))

    async def trim(self) -> None:
        """Delete events from the server that every group has finished, in the partitions of this process."""
        keys = self._log.keys
        trimming = [
            self._log.link.run(
                script("trim"),
                (keys.log(partition), keys.part(partition), keys.marks(partition), keys.held(partition)),
                self._keep,
            )
            for partition in self._engine.running
        ]
        await asyncio.gather(*trimming)  # in one round trip, so that heartbeats do not wait behind many

    def note_head(self, partition: int, head: int) -> None:
        """Tell a partition's engine that its head has moved."""
        if self.heartbeat.is_overdue:
            # This process was suspended, and others may have taken its partitions: look before delivering.
            self._engine.nudge()
            return
        running = self._engine.running.get(partition)
        if running is not None and running.engine.feed is not None:
            running.engine.feed.advance_to(head)


def seconds_left(deadline: float, clock: Clock) -> float:
    """Return the seconds until a quarter second after a deadline (monotonic), but at least 0.05."""
    return max(0.05, deadline + 0.25 - clock.monotonic())
