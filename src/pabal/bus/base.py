"""``BaseEventBus``: everything that is the same on every bus, wherever its log is kept."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from datetime import datetime
from itertools import count
from threading import get_ident
from types import TracebackType
from typing import Any, Literal, Self, Unpack, overload

from pabal.bus.dead_letters import DeadLetter, DeadLetters
from pabal.bus.inbox import Inbox, running_loop
from pabal.bus.intake import Backpressure, Intake
from pabal.bus.options import CommonOptions, E, F, Handler, Kind, SeveralTypes, SubscribeOptions, WaitOptions
from pabal.bus.statistics import Health
from pabal.bus.subscriptions import Subscriptions, add_subscription, end_subscription
from pabal.bus.waiting import Expectations, timeout_with_message
from pabal.delivery.context import Middleware, current_event
from pabal.delivery.engine import Engine
from pabal.delivery.lane import IDLE
from pabal.delivery.matching import EventMatcher
from pabal.delivery.retry import RetryPolicy
from pabal.delivery.shutdown import all_ended
from pabal.delivery.subscription import BY_AGGREGATE, OnExhausted, Ordering, Subscription, make_subscription
from pabal.domain.envelope import Receipt
from pabal.errors import BusNotRunningError, InsideHandlerError, UsageError
from pabal.ports.arguments import at_least_one
from pabal.ports.inspection import ActionLog
from pabal.ports.storage import BusLog, EventStorage, Start
from pabal.ports.telemetry import Listener

_identities = count(1)


class BaseEventBus(ABC):
    """Publish events to handlers; ``EventBus`` shows an example.

    ``EventBusFactory.from_url`` returns this type. Everything that applications call is the same on every
    bus. A bus belongs to the event loop that starts it.
    """

    def __init__(
        self,
        engine: Engine,
        log: BusLog | None,
        *,
        max_queue_size: int,
        backpressure: Backpressure,
        subscriptions: Subscriptions | None = None,
    ) -> None:
        self._engine = engine
        self._is_stored = log is not None
        self._max_queue_size = at_least_one("max_queue_size", max_queue_size)
        engine.admission.room = max_queue_size
        self._loop: asyncio.AbstractEventLoop | None = None
        self._state: Literal["stopped", "starting", "running", "stopping"] = "stopped"
        self._lifecycle_lock = asyncio.Lock()
        self._started_at = 0.0
        self._expectations = Expectations(engine)
        self._intake = Intake(
            engine, log, self._expectations, limit=max_queue_size, backpressure=backpressure
        )
        self._inbox = Inbox(engine, self._intake)
        self.dead_letters = DeadLetters(engine, log, self._check_running)
        self.subscriptions = subscriptions or Subscriptions(engine, log, self._check_running)
        # Bound once, because ``publish`` uses these for every event.
        self._thread = 0
        self._loop_is_running: Callable[[], bool] = bool
        self._direct_routes = engine.router.direct
        self._remember = self._expectations.recent.append

    # -- life -----------------------------------------------------------------------------------------

    @property
    def is_running(self) -> bool:
        """Return whether the bus takes and delivers events."""
        return self._state == "running"

    @property
    @abstractmethod
    def storage(self) -> EventStorage | None:
        """Return the bus's storage, or None."""

    @property
    def address(self) -> str | None:
        """Return the URL of the server that keeps the log, without user and password, or None."""
        return None

    @property
    def action_log(self) -> ActionLog | None:
        """Return the log of operators' actions on the bus, if a server keeps one; otherwise None."""
        return None

    async def start(self) -> None:
        """Begin to deliver; with a log, from each subscription's cursor. Harmless if already running.

        When it returns, ``worker_count`` workers run and every subscription is open. It first waits for
        handlers of an earlier run that did not end when cancelled. A running bus whose tasks the application
        has all cancelled begins again. Raises StorageError, WrongLoopError.
        """
        self._check_loop("start the bus", alive=True)
        async with self._lifecycle_lock:
            if self._state == "running" and running_loop() is self._loop and not all_ended(self._engine):
                return
            if self._state != "stopped":  # its call, its loop or its tasks ended before it was stopped
                await self._end(self._engine.clock.monotonic())
            self._state, self._loop = "starting", asyncio.get_running_loop()
            try:
                await self._begin()
                self._expectations.start()
                self._thread, self._loop_is_running = get_ident(), self._loop.is_running
                self._state, self._started_at = "running", self._engine.clock.monotonic()
                self._intake.open()
                self._inbox.open()
                if self._is_stored:
                    await self._intake.try_to_release(self._engine.clock.time())
                self._engine.begin_work()  # last, because handlers publish
            except BaseException:
                await self._end(self._engine.clock.monotonic())
                raise

    @abstractmethod
    async def _begin(self) -> None:
        """Open the log and every subscription."""

    async def stop(self, timeout: float = 10.0) -> None:
        """Stop within ``timeout`` seconds and a quarter. Harmless if already stopped.

        New publishes are refused at once, except from running handlers. Without a log, queued events are
        handled as far as time allows. With a log, only running handlers are waited for, and the rest is
        delivered after the next start, or on a server by the next process that takes the partition. Handlers
        still running at the end are cancelled, and their events delivered again. If the disk hangs, saving
        gets five seconds. Raises InsideHandlerError, WrongLoopError.
        """
        self._check_loop("stop the bus", alive=True)
        if self._engine.in_handler():
            raise InsideHandlerError(action="stop the bus")
        async with self._lifecycle_lock:
            if self._state == "stopped":
                return
            deadline = self._engine.clock.monotonic() + timeout
            self._state, self._thread = "stopping", 0  # from now on every publish is checked
            await self._end(deadline)

    @abstractmethod
    async def _end(self, deadline: float) -> None:
        """End everything that was begun, possibly only in part; ``deadline`` is a monotonic time."""

    async def __aenter__(self) -> Self:
        """Start the bus."""
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Drain unless the block failed, then stop. With a log, retries that are due later stay stored."""
        try:
            if kind is None and self._state == "running":
                await self.drain(retries=not self._is_stored)
        finally:
            await self.stop()  # also if waiting was cancelled

    # -- subscribing ----------------------------------------------------------------------------------

    @overload
    def subscribe(
        self,
        event_type: Kind[E],
        handler: Handler[list[E]],
        *,
        batch: int,
        **options: Unpack[CommonOptions[E]],
    ) -> Subscription: ...
    @overload
    def subscribe(
        self,
        event_type: Kind[E],
        handler: Handler[E],
        *,
        batch: None = ...,
        **options: Unpack[CommonOptions[E]],
    ) -> Subscription: ...
    @overload
    def subscribe(
        self, event_type: SeveralTypes, handler: Any, **options: Unpack[SubscribeOptions[Any]]
    ) -> Subscription: ...
    def subscribe(
        self,
        event_type: Any,
        handler: Any,
        *,
        name: str | None = None,
        priority: int = 1,
        retry: RetryPolicy | None = None,
        retry_count: int | None = None,
        timeout: float | None = None,
        where: Callable[[Any], bool] | None = None,
        ordering: Ordering = BY_AGGREGATE,
        on_exhausted: OnExhausted = "park",
        start: Start = "now",
        batch: int | None = None,
    ) -> Subscription:
        """Call ``handler`` for every event of ``event_type``, at least once.

        ``event_type`` is a class (including its subclasses), a tuple of classes, or a pattern on the type
        name. ``handler`` is an async function, a sync function (run in a thread), or an object with
        ``handle(event)``; a second parameter receives the DeliveryContext. The guide describes the options.
        Can be called before and after ``start()``.

        Raises SubscriptionError, InvalidHandlerError, DuplicateSubscriptionError.
        """
        self._check_loop("subscribe")
        subscription = make_subscription(
            f"sub-{next(_identities)}",
            event_type,
            handler,
            name=name,
            priority=priority,
            retry=retry,
            retry_count=retry_count,
            timeout=timeout,
            where=where,
            ordering=ordering,
            on_exhausted=on_exhausted,
            start=start,
            batch=batch,
        )
        add_subscription(self._engine, subscription, is_stored=self._is_stored)
        return subscription

    @overload
    def on(self, event_type: Kind[E], **options: Unpack[SubscribeOptions[E]]) -> Callable[[F], F]: ...
    @overload
    def on(self, event_type: SeveralTypes, **options: Unpack[SubscribeOptions[Any]]) -> Callable[[F], F]: ...
    def on(self, event_type: Any, **options: Any) -> Callable[[F], F]:
        """Subscribe the decorated function, with the options of ``subscribe``, and return it."""
        EventMatcher(event_type)  # now, because @bus.on without an event class would never call ``decorate``

        def decorate(handler: F) -> F:
            self.subscribe(event_type, handler, **options)
            return handler

        return decorate

    def unsubscribe(self, subscription: Subscription | str) -> bool:
        """End a subscription, given as object or by its id; True if it existed. Raises UsageError for a name.

        A running handler ends as usual. With storage, the cursor stays for the name's next subscription.
        """
        self._check_loop("unsubscribe")
        return end_subscription(self._engine, subscription)

    def use(self, middleware: Middleware) -> None:
        """Call ``async (event, context, call_next)`` around every attempt, inside middleware added before."""
        if not callable(middleware):
            raise UsageError(f"{middleware!r} is not a middleware; pass async (event, context, call_next)")
        self._check_loop("use middleware")
        self._engine.middleware = (*self._engine.middleware, middleware)
        self._engine.rewire()

    def listen(self, listener: Listener, *, logs: bool = False) -> Callable[[], None]:
        """Call a plain function with every telemetry report; return a function that removes it.

        With ``logs=True`` the listener does the logging; otherwise the bus logs warnings and errors.
        """
        return self._engine.listeners.attach(listener, logs=logs)

    # -- publishing -----------------------------------------------------------------------------------

    async def publish(
        self, event: Any, *, delay: float | None = None, deliver_at: datetime | None = None
    ) -> Receipt:
        """Publish one event and return its receipt.

        With storage, the event is on disk when this returns; without, it is accepted. ``delay`` (seconds) or
        ``deliver_at`` (aware) schedules it, durably if there is storage; the receipt then has no position.
        Cancelling leaves the event absent or published once; with storage, publishing it again is harmless.

        Raises BusNotRunningError, WrongLoopError, InvalidEventError, QueueFullError, StorageError.
        """
        # The fast path for nearly every publish without storage, where each lookup counts.
        engine = self._engine
        route = self._direct_routes.get(type(event))
        if (
            route is None
            or get_ident() != self._thread
            or engine.pending >= self._max_queue_size
            or current_event.get() is not None
            or delay is not None
            or deliver_at is not None
        ):
            self._check_running("publish")
            if self._is_stored and delay is None and deliver_at is None:
                return await self._intake.store(event)
            return await self._intake.publish(event, delay, deliver_at)
        engine.sequence = sequence = engine.sequence + 1
        for arrivals in route.arrivals:
            if arrivals.state == IDLE:
                # The thread is right; whether the loop is too only matters if workers have to be woken.
                if not self._loop_is_running():
                    self._check_running("publish")
                engine.make_ready(arrivals)
            arrivals.add(event)
            engine.pending += 1
        self._remember(event)
        return Receipt(event.event_id, None, sequence)

    async def publish_batch(self, events: Iterable[Any]) -> list[Receipt]:
        """Publish several events in order and return their receipts: all stored or none.

        A batch enters a full queue as a whole, so it may exceed ``max_queue_size`` by its own length. Raises
        what ``publish`` raises; if one event is refused, none is published.
        """
        self._check_running("publish")
        return await self._intake.publish_batch(list(events))

    def publish_threadsafe(self, event: Any) -> Future[Receipt]:
        """Publish from any thread (a Qt slot, a worker); events of one thread keep their order.

        Returns a concurrent future with the receipt. Raises BusNotRunningError at once; errors of the event
        come through the future.
        """
        return self._inbox.put(event, current_event.get())

    # -- waiting, and looking -------------------------------------------------------------------------

    @abstractmethod
    async def drain(self, timeout: float | None = None, *, retries: bool = True) -> None:
        """Wait until every event published so far is handled or parked and, with storage, saved.

        This includes deliveries that wait for a retry, unless ``retries`` is False. Raises DrainTimeoutError
        after ``timeout`` seconds, and InsideHandlerError inside a handler.
        """

    @overload
    async def wait_for(self, event_type: Kind[E], **options: Unpack[WaitOptions[E]]) -> E: ...
    @overload
    async def wait_for(self, event_type: SeveralTypes, **options: Unpack[WaitOptions[Any]]) -> Any: ...
    async def wait_for(
        self, event_type: Any, *, where: Any = None, timeout: float | None = None, since: Any = None
    ) -> Any:
        """Return the first event of a type (class, tuple or pattern) for which ``where`` holds.

        Looks at events published after ``since`` (a receipt of this bus) and then at new ones, so that a
        reaction published before this call is not missed; without ``since``, only at new ones. For ``since``,
        a bus without storage remembers the last 1,024 events, and a server the events it keeps, of all
        processes. Raises TimeoutError after ``timeout`` seconds (None waits for ever), BusNotRunningError.
        """
        self._check_running("wait_for")
        async with timeout_with_message(timeout, event_type):
            return await self._first(event_type, where, since)

    @abstractmethod
    async def _first(self, event_type: Any, where: Any, since: Receipt | None) -> Any:
        """Return the event for ``wait_for``."""

    @abstractmethod
    def get_statistics(self) -> dict[str, Any]:
        """Return figures since the start; ``subscriptions`` holds those of each subscription, by name."""

    @abstractmethod
    def health(self) -> Health:
        """Return ok, degraded or failing, with the reasons as sentences."""

    def remarks(self) -> list[str]:
        """Return problems that no subscription's figures show; only a bus on a server has any."""
        return []

    async def get_failed_events(self, limit: int = 100) -> list[DeadLetter]:
        """Return the first dead letters (short form of ``dead_letters.list``)."""
        return await self.dead_letters.list(limit=limit)

    async def clear_failed_events(self) -> int:
        """Discard all dead letters (short form of ``dead_letters.discard("all")``); return how many."""
        return await self.dead_letters.discard("all")

    async def resume(self, name: str) -> bool:
        """Resume a halted or paused subscription (short form of ``subscriptions.resume``)."""
        return await self.subscriptions.resume(name)

    # -- guards ---------------------------------------------------------------------------------------

    def _check_running(self, action: str) -> None:
        # While the bus stops, a handler may still publish: refusing it would make an innocent delivery fail.
        if self._state != "running" and not (self._state == "stopping" and self._engine.in_handler()):
            raise BusNotRunningError(action=action, state=self._state)
        self._check_loop(action)

    def _check_loop(self, action: str, *, alive: bool = False) -> None:
        """Refuse a call from outside the loop that runs the bus (``alive``: unless that loop is closed)."""
        loop = self._loop
        if loop is not None and running_loop() is not loop and not (alive and loop.is_closed()):
            raise self._inbox.refusal(action)
