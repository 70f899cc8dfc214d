"""``drain``: wait until nothing is left to do."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from pabal.bus.inbox import Inbox
from pabal.bus.intake import Intake
from pabal.delivery.consumer import ACTIVE, Consumer
from pabal.delivery.engine import Engine
from pabal.errors import DrainTimeoutError


async def wait_until_drained(
    engine: Engine, inbox: Inbox, intake: Intake, timeout: float | None, retries: bool
) -> None:
    """Return when everything published is handled or parked, and saved. Raises DrainTimeoutError."""
    try:
        async with asyncio.timeout(timeout):
            # Events that a unit of work committed in this turn of the loop reach the engine in the next turn.
            await asyncio.sleep(0)
            while not _is_drained(engine, inbox, intake, retries):
                await engine.background.wait_until(lambda: _is_drained(engine, inbox, intake, retries))
                await engine.settlement.flush()
    except TimeoutError:
        raise drain_timeout_error([engine], timeout) from None


def drain_timeout_error(engines: Iterable[Engine], timeout: float | None) -> DrainTimeoutError:
    """Return the error that says how many deliveries were left, and how many of them wait for a retry."""
    pending = retrying = 0
    for engine in engines:
        pending += engine.pending
        retrying += _count_held_by_retries(engine)
    return DrainTimeoutError(timeout=timeout, pending=max(pending, 1), retrying=retrying)


def _is_drained(engine: Engine, inbox: Inbox, intake: Intake, retries: bool) -> bool:
    if engine.halting:
        return False  # deliveries may look finished because they were forgotten; ``wait_until`` raises
    engine.settlement.check()
    return inbox.is_empty and is_idle(engine, intake.last_position, retries)


def is_idle(engine: Engine, position: int, retries: bool) -> bool:
    """Return whether an engine has finished and saved all of its log, which must reach ``position``.

    Without ``retries``, deliveries that wait for a retry are not counted, nor is what waits for the end of a
    replay that waits for them.
    """
    pending = engine.pending
    replaying: list[Consumer] = []
    if not retries:
        pending -= _count_held_by_retries(engine)
        # If nothing else is pending, the deliveries that these wait for do all wait for a retry.
        replaying = [one for one in engine.consumers.values() if _only_waits(one)]
    if pending > 0 or len(engine.background.tasks) > len(replaying):  # each replay is a task
        return False
    return engine.feed is None or (
        engine.feed.is_caught_up(position, besides=replaying) and engine.settlement.idle
    )


def _only_waits(consumer: Consumer) -> bool:
    return consumer.state == ACTIVE and consumer.replay is not None and consumer.replay.only_waits


def _count_held_by_retries(engine: Engine) -> int:
    return sum(consumer.held_by_retries() for consumer in engine.consumers.values())
