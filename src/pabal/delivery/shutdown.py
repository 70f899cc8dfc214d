"""How an engine stops: handlers get time to finish, then they are cancelled."""

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
"""Seconds that cancelled handlers get to clean up."""
_LAST_SAVE = 5.0
"""Seconds for the last save even after the deadline: a busy disk must not cost finished work."""


def all_ended(engine: Engine) -> bool:
    """Return whether every worker has ended: the application has cancelled them, and nothing is delivered."""
    return all(worker.task.done() for worker in engine.workers)


async def wait_until_idle(engine: Engine, deadline: float) -> None:
    """Return when nothing is pending any more, at the latest at ``deadline`` (monotonic)."""
    left = deadline - engine.clock.monotonic()
    with suppress(TimeoutError):
        async with asyncio.timeout(max(0.0, left)):
            await engine.background.wait_until(lambda: not engine.pending)


async def stop_workers(engine: Engine, deadline: float) -> None:
    """Let handlers finish until ``deadline`` (monotonic), then cancel them and the background tasks."""
    if engine.host is not None:
        if engine in engine.host.guests:
            engine.host.guests.remove(engine)
        await _leave_host(engine, deadline)
    tasks = [worker.task for worker in engine.workers] if engine.host is None else []
    if running := _not_done(tasks):
        remaining = max(0.0, deadline - engine.clock.monotonic())
        await asyncio.wait(running, timeout=remaining)
    already_cancelled = set(tasks) if engine.cancelling else set()
    engine.cancelling = True
    if ending := _not_done([*tasks, *engine.background.tasks]):
        for task in ending:
            if (
                task not in already_cancelled
            ):  # cancelling a second time would interrupt the handler's cleanup
                task.cancel()
        _, left = await asyncio.wait(ending, timeout=_LAST_MOMENT)
        if left:
            _log.warning(
                "%d tasks are still running although cancelled; the next start waits for their handlers",
                len(left),
            )
    for task in tasks:
        if task.done() and not task.cancelled() and task.exception() is not None:
            _log.error("a worker ended with an error", exc_info=task.exception())


async def save_last(engine: Engine, feed: Feed, deadline: float) -> None:
    """Save progress and release subscriptions, until ``deadline`` (monotonic) or some seconds after it.

    A request that the storage has accepted by then is still carried out once the file is free. If time runs
    out, it is as if the process had died: unsaved deliveries are made again, and leases expire.
    """
    now = asyncio.get_running_loop().time
    until = now() + max(_LAST_SAVE, deadline - engine.clock.monotonic())
    try:
        async with asyncio.timeout_at(until):
            await engine.settlement.stop()
    except TimeoutError:
        _log.warning("progress could not be saved before the bus stopped; some events may be delivered again")
    try:
        async with asyncio.timeout_at(max(until, now() + _LAST_MOMENT)):
            await feed.leases.release()
    except TimeoutError:
        _log.warning("subscriptions could not be released; other processes wait until their leases expire")


def is_dead(future: asyncio.Future[Any]) -> bool:
    """Return whether a future belongs to a closed event loop and can therefore never be awaited."""
    return future.get_loop().is_closed()


def close_dead_tasks(*tasks: asyncio.Future[Any] | None) -> None:
    """Close tasks of a closed event loop now; otherwise their ``finally`` runs when they are collected."""
    for task in tasks:
        if isinstance(task, asyncio.Task) and is_dead(task) and not task.done():
            try:
                task.get_coro().close()
            except Exception:
                _log.warning("a task of a closed event loop did not end", exc_info=True)


async def end_tasks(*tasks: asyncio.Future[Any] | None) -> None:
    """Cancel tasks and wait until they have ended; tasks of a closed loop are closed without waiting."""
    close_dead_tasks(*tasks)
    living = [task for task in tasks if task is not None and not is_dead(task)]
    for task in living:
        task.cancel()
    if living:
        await asyncio.wait(living)


def discard_closed_loop(engine: Engine) -> None:
    """Forget what an engine had under way in an event loop that was closed.

    The effect is that of a crash: deliveries that were finished but not saved are made again.
    """
    engine.resting.clear()
    engine.admission.discard_closed_loop()
    engine.background.discard_closed_loop()
    engine.settlement.discard_closed_loop()
    engine.tally.discard_closed_loop()
    if engine.feed is not None:
        engine.feed.discard_closed_loop()
    close_dead_tasks(*(worker.task for worker in engine.workers))
    engine.workers[:] = [worker for worker in engine.workers if not is_dead(worker.task)]
    for consumer in engine.consumers.values():
        consumer.in_flight = 0


def _not_done(tasks: Iterable[asyncio.Future[Any]]) -> list[asyncio.Future[Any]]:
    """Leave out futures that have ended: they may belong to a closed loop, and cannot be awaited."""
    return [task for task in tasks if not task.done()]


async def _leave_host(engine: Engine, deadline: float) -> None:
    """Return when the host is running no handler of this engine, at the latest at ``deadline``."""
    leaving = () if engine.feed is None else engine.feed.leases.leaving
    while any(consumer.in_flight for consumer in (*engine.consumers.values(), *leaving)):
        left = deadline - engine.clock.monotonic()
        if left <= 0:
            return
        await asyncio.wait([engine.background.next_notification()], timeout=min(left, 3600.0))


async def wait_until_ended(tasks: list[asyncio.Task[None]]) -> None:
    """Wait for the workers of an earlier run to end, so that none handles an event beside a new worker."""
    loop = asyncio.get_running_loop()
    left = [task for task in tasks if not task.done() and task.get_loop() is loop]
    if left:
        await asyncio.wait(left)
    tasks.clear()
