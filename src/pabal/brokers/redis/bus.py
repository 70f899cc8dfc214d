"""``RedisEventBus``: an event bus whose log is on a Redis or Valkey server, shared by many processes."""

from __future__ import annotations

import asyncio
import os
import socket
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal

from pabal.brokers.redis.actions import GroupActions
from pabal.brokers.redis.coordinator import Coordinator, seconds_left
from pabal.brokers.redis.figures import collect_statistics, judge_health
from pabal.brokers.redis.group import GroupEngine
from pabal.brokers.redis.group_log import GroupLog
from pabal.brokers.redis.keys import GroupKeys, check_name
from pabal.brokers.redis.log import RedisLog
from pabal.brokers.redis.notes import NoteConnection
from pabal.brokers.redis.reports import ConnectionLost
from pabal.brokers.redis.subscriptions import GroupSubscriptions
from pabal.brokers.redis.tail import Tail
from pabal.brokers.redis.waiting import GroupSource, places_after, whole_group_drained
from pabal.brokers.redis.wire import PartitionKey, aggregate_key
from pabal.bus.base import BaseEventBus
from pabal.bus.draining import drain_timeout_error
from pabal.bus.intake import Backpressure
from pabal.bus.log_watch import LogWatch
from pabal.bus.statistics import Health
from pabal.domain.counting import counted
from pabal.domain.envelope import Receipt
from pabal.errors import (
    BusNotRunningError,
    InsideHandlerError,
    StorageClosedError,
    UsageError,
)
from pabal.ports.arguments import at_least_one
from pabal.ports.clock import Clock
from pabal.ports.inspection import ActionLog
from pabal.ports.storage import EventStorage

WhenDisconnected = Literal["wait", "fail"]


class RedisEventBus(BaseEventBus):
    """Publish events to all groups of processes on one Redis or Valkey server.

    The log has a fixed number of ``partitions``. An event's ordering key (its aggregate, or what
    ``partition_key`` returns) determines its partition. Processes with the same ``group`` divide the
    partitions among themselves. Each partition is handled by one process at a time, so events of one key are
    handled in publish order, one at a time, across all machines. Every other group gets all events, too.

    ``publish`` returns when the server has the event; how safe it is there depends on the server's
    configuration (see the page on Redis in the documentation). While the server cannot be reached, publishers
    wait up to ``patience`` seconds, or fail at once with ``when_disconnected="fail"``. Publishing the same
    event again is harmless: the server remembers at least the last 20,000 ids of each partition.

    A process that sends no heartbeat for ``lease`` seconds loses its partitions to the others. ``keep`` is
    the number of positions per partition that stay on the server after every group has finished them.

    ``partitions`` is fixed by the first bus that starts on a log; None takes the log's number, or 16 for a
    new log. ``namespace`` is the prefix of the log's keys, so one server can hold several logs. The other
    options are those of ``InMemoryEventBus``. Raises UsageError for an invalid option; ``start()`` raises
    BrokerUnavailableError if the server does not answer within ``patience``, and PartitionCountError.

    >>> bus = RedisEventBus("redis://127.0.0.1:6379/0", group="risk")  # connects at start()
    >>> bus.address, bus.is_running
    ('redis://127.0.0.1:6379/0', False)
    """

    subscriptions: GroupSubscriptions

    def __init__(
        self,
        url: str,
        *,
        group: str,
        namespace: str = "pabal",
        partitions: int | None = None,
        partition_key: PartitionKey = aggregate_key,
        worker_count: int = 4,
        max_queue_size: int = 10_000,
        backpressure: Backpressure = "wait",
        max_payload_bytes: int = 1 << 20,
        lease: float = 10.0,
        patience: float = 30.0,
        when_disconnected: WhenDisconnected = "wait",
        keep: int = 1000,
        clock: Clock | None = None,
        seed: int | None = None,
    ) -> None:
        _check(group, namespace, partitions, lease, patience, when_disconnected, keep)
        self.group = group
        self._url = url
        self._lease = lease
        self._patience = patience
        self._keep = keep
        self._log = RedisLog(
            url,
            namespace=namespace,
            partitions=partitions,
            partition_key=partition_key,
            max_payload_bytes=max_payload_bytes,
            patience=patience,
            when_disconnected=when_disconnected,
            answer_within=max(2.0, lease),
        )
        self._keys = GroupKeys(self._log.keys, group)
        self._group_log = GroupLog(self._log, self._keys)
        self._group_engine = GroupEngine(
            worker_count=at_least_one("worker_count", worker_count), clock=clock, seed=seed
        )
        super().__init__(
            self._group_engine,
            self._group_log,
            max_queue_size=max_queue_size,
            backpressure=backpressure,
            subscriptions=GroupSubscriptions(
                self._group_engine, self._group_log, self._check_running, lambda: self._coordinator
            ),
        )
        self._coordinator: Coordinator | None = None
        self._tail: Tail | None = None
        self._watch: LogWatch | None = None
        self._appended_upto: dict[int, int] = {}
        """The last position this process appended in each partition, in this incarnation of the log."""
        self._log.on_loss = self._connection_lost
        self._log.on_raised = self._on_positions_raised
        self._log.on_appended = self._appended

    def __repr__(self) -> str:
        """Show the state, the server (without user and password) and the group."""
        return f"<RedisEventBus {self._state}, log {self._log.path}, group {self.group!r}>"

    @property
    def address(self) -> str:
        """Return the server's URL without user and password, fit for display."""
        return self._log.path

    @property
    def storage(self) -> EventStorage | None:
        """Return None: the log is on the server."""
        return None

    @property
    def action_log(self) -> ActionLog:
        """Return the audit log of operators' actions on the group, kept on the server."""
        return GroupActions(self._log, self._keys)

    @property
    def partitions(self) -> list[int]:
        """Return the numbers of the partitions that this process handles now, from 0; none when stopped."""
        return sorted(self._group_engine.running)

    # -- life -----------------------------------------------------------------------------------------

    async def _begin(self) -> None:
        await self._log.open()
        self._watch = LogWatch(GroupSource(self._log))
        await self._group_engine.start(None)
        self._tail = Tail(
            self._url, self._log.link, self._log.keys.log, self._note_head, patience=self._patience
        )
        await self._tail.start()
        member = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._coordinator = Coordinator(
            self._log,
            self._keys,
            self._group_engine,
            self._tail,
            group=self.group,
            member=member,
            lease=self._lease,
            keep=self._keep,
            note_connection=NoteConnection(self._url, self._keys.notes, member),
            on_due=self._intake.release_or_report,
        )
        await self._coordinator.start()

    async def _end(self, deadline: float) -> None:
        engine = self._group_engine
        if self._loop is not None and self._loop.is_closed():
            await self._log.link.close()  # nothing more can be sent or read, as if the process had died
        self._intake.is_open = False
        await self._inbox.flush(deadline)
        await engine.stop_handlers(deadline)
        if self._coordinator is not None:
            await self._coordinator.stop(deadline)
        await engine.stop(deadline)
        if self._tail is not None:
            await self._tail.stop()
        self._inbox.close()
        self._expectations.stop()
        if self._watch is not None:
            await self._watch.stop()
        await self._log.close(seconds_left(deadline, engine.clock))
        self._loop = None
        self._tail = self._coordinator = None
        self._state = "stopped"

    # -- callbacks of the log -------------------------------------------------------------------------

    def _note_head(self, partition: int, head: int) -> None:
        if self._coordinator is not None:
            self._coordinator.note_head(partition, head)

    def _appended(self, partition: int, first: int, events: tuple[Any, ...]) -> None:
        self._appended_upto[partition] = first + len(events) - 1
        running = self._group_engine.running.get(partition)
        if running is not None:
            running.storage.appended(first, events)

    def _connection_lost(self, error: Exception) -> None:
        self._engine.report(ConnectionLost("", error))

    def _on_positions_raised(self) -> None:
        self._appended_upto.clear()
        if self._coordinator is not None:
            self._coordinator.declarations.forget_all()
            self._engine.background.spawn(self._coordinator.resume_partitions())

    # -- waiting --------------------------------------------------------------------------------------

    async def drain(self, timeout: float | None = None, *, retries: bool = True) -> None:
        """Return when this group has handled or parked all events published so far, in all its processes.

        This includes events that handlers of this process publish meanwhile, replays, retried dead letters
        with what queued behind them, and deliveries that wait for a retry, unless ``retries`` is False.
        ``timeout`` is in seconds; None waits for ever. Raises DrainTimeoutError, InsideHandlerError,
        BusNotRunningError, BrokerUnavailableError.
        """
        if self._engine.in_handler():
            raise InsideHandlerError(action="wait for drain()")
        self._check_running("drain")
        assert self._coordinator is not None
        try:
            async with asyncio.timeout(timeout), self._convert_closed_error("drain"):
                await whole_group_drained(
                    self._log,
                    self._keys,
                    self._group_engine,
                    self._coordinator,
                    self._inbox,
                    retries,
                    self._appended_upto,
                )
        except TimeoutError:
            raise drain_timeout_error(self._group_engine.engines(), timeout) from None

    async def _first(self, event_type: Any, where: Any, since: Receipt | None) -> Any:
        async with self._convert_closed_error("wait_for"):
            assert self._watch is not None
            places = await places_after(self._log, since)
            return await self._watch.first(event_type, where, places, has_earlier=since is not None)

    @asynccontextmanager
    async def _convert_closed_error(self, action: str) -> AsyncIterator[None]:
        """Raise BusNotRunningError, naming ``action``, if the bus is stopped while the server is asked."""
        try:
            yield
        except StorageClosedError:
            if self.is_running:
                raise
            raise BusNotRunningError(action=action, state=self._state) from None

    # -- figures --------------------------------------------------------------------------------------

    def get_statistics(self) -> dict[str, Any]:
        """Return figures of this process since the start, over the partitions that it handles.

        Besides those of every bus: ``partitions``, their numbers; ``events_lost``, the number of events that
        disappeared from the server before they were handled; ``members``, the names of the processes in the
        group. The ``watermark`` of a subscription is a dictionary of positions by partition.
        """
        engine = self._group_engine
        uptime = engine.clock.monotonic() - self._started_at if self.is_running else 0.0
        coordinator = self._coordinator
        figures = collect_statistics(
            engine,
            () if coordinator is None else coordinator.controls.paused,
            uptime=uptime,
            published=self._intake.published,
            scheduled=self._intake.scheduled,
            is_running=self.is_running,
        )
        figures["events_lost"] = coordinator.lost_events if coordinator is not None else 0
        figures["members"] = list(coordinator.membership.living) if coordinator is not None else []
        return figures

    def health(self) -> Health:
        """Return the health: ok, degraded or failing, with a sentence for each reason."""
        troubles: list[str] = []
        if self.is_running and not self._log.link.is_connected:
            troubles.append(f"the server cannot be reached: {self._log.link.trouble}")
        coordinator = self._coordinator
        if coordinator is not None and coordinator.trouble is not None and not troubles:
            troubles.append(f"the group's partitions cannot be looked after: {coordinator.trouble}")
        return judge_health(self._group_engine, self.is_running, troubles, self.remarks())

    def remarks(self) -> list[str]:
        """Return problems that no subscription's figures show: lost events, and events nobody handles."""
        coordinator = self._coordinator
        if coordinator is None:
            return []
        lost = coordinator.lost_events
        what = counted(
            lost,
            "event was lost on the server before it was handled",
            "events were lost on the server before they were handled",
        )
        messages = [what] if lost else []
        return messages + coordinator.peers.remarks()


def _check(
    group: str,
    namespace: str,
    partitions: int | None,
    lease: float,
    patience: float,
    when_disconnected: str,
    keep: int,
) -> None:
    check_name("group", group)
    check_name("namespace", namespace)
    if partitions is not None and (
        isinstance(partitions, bool) or not isinstance(partitions, int) or not 1 <= partitions <= 1024
    ):
        raise UsageError(f"partitions is {partitions!r}; it must be a whole number from 1 to 1024")
    for option, seconds in (("lease", lease), ("patience", patience)):
        if not isinstance(seconds, (int, float)) or not seconds > 0:
            raise UsageError(f"{option} is {seconds!r}; it must be a positive number of seconds")
    if when_disconnected not in ("wait", "fail"):
        raise UsageError(f"when_disconnected is {when_disconnected!r}; use 'wait' or 'fail'")
    if isinstance(keep, bool) or not isinstance(keep, int) or keep < 0:
        raise UsageError(f"keep is {keep!r}; it must be a whole number of events, at least 0")
