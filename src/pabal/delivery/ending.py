"""How the work of an engine ends: handlers get their time, then they are cancelled."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pabal.delivery.engine import Engine
    from pabal.delivery.feed import Feed

_log = logging.getLogger("pabal")
_LAST_MOMENT = 0.25
"""Seconds that cancelled handlers get to tidy up."""
_LAST_SAVE = 5.0
"""Seconds that saving gets though no time is left: a busy disk is not to cost finished work."""


async def work_off(engine: Engine, deadline: float) -> None:
    """Return when what is queued has been handled, at the latest at ``deadline`` (monotonic)."""
    left = deadline - engine.clock.monotonic()
    with suppress(TimeoutError):
        async with asyncio.timeout(max(0.0, left)):
            await engine.background.until(lambda: not engine.pending)


async def end_work(engine: Engine, deadline: float) -> None:
    """Let running handlers end until ``deadline`` (monotonic), then cancel them and what runs beside."""
    if engine.crew is not None:
        if engine in engine.crew.fellows:
            engine.crew.fellows.remove(engine)
        await _leave_crew(engine, deadline)
    tasks = [worker.task for worker in engine.workers] if engine.crew is None else []
    if running := _undone(tasks):
        remaining = max(0.0, deadline - engine.clock.monotonic())
        await asyncio.wait(running, timeout=remaining)
    told = set(tasks) if engine.cancelling else set()
    engine.cancelling = True
    if ending := _undone([*tasks, *engine.background.tasks]):
        for task in ending:
            if task not in told:  # a second time would cut short how a handler tidies up
                task.cancel()
        _, left = await asyncio.wait(ending, timeout=_LAST_MOMENT)
        if left:
            _log.warning("%d tasks go on though cancelled; the next start waits for handlers", len(left))
    for task in tasks:
        if task.done() and not task.cancelled() and task.exception() is not None:
            _log.error("a worker ended with an error", exc_info=task.exception())


async def save_last(engine: Engine, feed: Feed, deadline: float) -> None:
    """Save progress and give subscriptions up, until ``deadline`` (monotonic) or a last moment after it.

    What was asked of the storage by then is still done once the file is free. Else it is as if the process
    had died: what was not saved is delivered again, and leases run out.
    """
    now = asyncio.get_running_loop().time
    until = now() + max(_LAST_SAVE, deadline - engine.clock.monotonic())
    try:
        async with asyncio.timeout_at(until):
            await engine.settlement.stop()
    except TimeoutError:
        _log.warning("progress could not be saved before the bus stopped; it may be delivered again")
    try:
        async with asyncio.timeout_at(max(until, now() + _LAST_MOMENT)):
            await feed.leases.release()
    except TimeoutError:
        _log.warning("subscriptions could not be given up; other processes wait until their leases are over")


def is_dead(future: asyncio.Future[Any]) -> bool:
    """Tell whether a future belongs to a loop that was closed: nobody can be told of it any more."""
    return future.get_loop().is_closed()


def bury(*tasks: asyncio.Future[Any] | None) -> None:
    """End what was under way in a loop that was closed, lest its rest runs whenever its memory is freed."""
    for task in tasks:
        if isinstance(task, asyncio.Task) and is_dead(task) and not task.done():
            try:
                task.get_coro().close()
            except Exception:
                _log.warning("a task of an event loop that was closed did not end", exc_info=True)


async def end_tasks(*tasks: asyncio.Future[Any] | None) -> None:
    """Cancel tasks and return when they have ended; of a loop that was closed nothing can be awaited."""
    bury(*tasks)
    living = [task for task in tasks if task is not None and not is_dead(task)]
    for task in living:
        task.cancel()
    if living:
        await asyncio.wait(living)


def bury_work(engine: Engine) -> None:
    """Forget what a closed loop left of an engine. It is the same as if the process had died there.

    What handlers had finished and nobody had saved is delivered again, as after a crash.
    """
    for futures in (engine.resting, engine.admission.waiters):
        futures.clear()
    engine.background.bury()
    engine.settlement.bury()
    if engine.feed is not None:
        engine.feed.bury()
    bury(*(worker.task for worker in engine.workers))
    engine.workers[:] = [worker for worker in engine.workers if not is_dead(worker.task)]
    for consumer in engine.consumers.values():
        consumer.in_flight = 0


def _undone(tasks: Iterable[asyncio.Future[Any]]) -> list[asyncio.Future[Any]]:
    """Leave out what has ended: it may belong to a loop that was closed, of which nothing can be awaited."""
    return [task for task in tasks if not task.done()]


async def _leave_crew(engine: Engine, deadline: float) -> None:
    """Return when the crew handles nothing of an engine any more, at the latest at ``deadline``."""
    while any(consumer.in_flight for consumer in engine.consumers.values()):
        left = deadline - engine.clock.monotonic()
        if left <= 0:
            return
        future = asyncio.get_running_loop().create_future()
        engine.background.observers.append(future)
        await asyncio.wait([future], timeout=min(left, 3600.0))


async def ended(tasks: list[asyncio.Task[None]]) -> None:
    """Return when these workers of an earlier run have ended: none may handle an event beside a new one."""
    loop = asyncio.get_running_loop()
    left = [task for task in tasks if not task.done() and task.get_loop() is loop]
    if left:
        await asyncio.wait(left)
    tasks.clear()
