"""Let subscriptions stand elsewhere: asked for every partition at once, obeyed by whoever handles each.

A subscription has a cursor in each partition, moved by its owner alone. So a reset is stored, a place for
each partition, and the owner takes the subscription up anew there, once its handlers have ended. Where nobody
handles it, the cursor is moved at once.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pabal.brokers.redis.extent import Extent, extents
from pabal.brokers.redis.scripts import script
from pabal.brokers.redis.steering import Group, Steered, unknown
from pabal.domain.envelope import to_microseconds
from pabal.errors import UsageError
from pabal.ports.storage import Start


class GroupSteered(Steered):
    """Move the subscriptions of a whole group."""

    async def reset_subscription(self, name: str, start: Start, *, epoch: int | None = None) -> int:
        """Move a subscription in every partition; return its position there, counted over all of them.

        Whoever handles a partition obeys within moments, once its handlers have ended. Raises UsageError for
        a position in a log of several partitions.
        """
        group = await self._steering()
        _check(group, name, start)
        found = await measure(group, start if isinstance(start, datetime) else None)
        keys: list[str] = [group.keys.names, group.keys.controls]
        for part in range(group.partitions):
            keys += (group.keys.of(part).moves, group.log.held(part), group.log.part(part))
        places = [_place(start, extent) for extent in found]
        asked = await group.link.run(script("reset"), tuple(keys), group.keys.group, name, *places)
        if asked is None:
            raise await unknown(group, name)
        moving = [move(group, part, name) for part in range(group.partitions)]
        for one in moving:
            await one
        return sum(extent.given(0, int(place)) for extent, place in zip(found, asked, strict=True))

    async def is_moving(self, name: str) -> bool:
        """Tell whether somebody who handles a subscription has still to obey a reset."""
        group = await self._steering()
        calls = [
            group.link.call("HEXISTS", group.keys.of(part).moves, name) for part in range(group.partitions)
        ]
        return any([await one for one in calls])


async def measure(group: Group, since: datetime | None = None) -> list[Extent]:
    """Return how far each partition has come, and where a time lies in it."""
    keys: list[str] = []
    for part in range(group.partitions):
        keys += (group.log.log(part), group.log.part(part))
    moment = "" if since is None else str(to_microseconds(since))
    return extents(await group.link.run(script("extent"), tuple(keys), moment))


async def move(group: Group, part: int, name: str, place: int | str = "", epoch: int | str = "") -> Any:
    """Move a subscription in one partition, to a place or where it was asked to be.

    Returns the place, nothing where nothing is asked, or -1 where somebody else than ``epoch`` says has it.
    """
    log, keys, of = group.log, group.keys, group.keys.of(part)
    return await group.link.run(
        script("move"),
        (
            of.lease,
            of.epochs,
            of.cursors,
            of.retries,
            of.queued,
            of.queue,
            of.blocking,
            log.marks(part),
            log.held(part),
            keys.letters,
            keys.letter_rows,
            keys.letter_states,
            keys.letter_index,
            keys.letter_ids,
            of.moves,
            log.log(part),
            log.part(part),
        ),
        keys.group,
        part,
        name,
        place,
        epoch,
    )


def _check(group: Group, name: str, start: Start) -> None:
    if isinstance(start, int) and start > 0 and group.partitions > 1:
        raise UsageError(
            f"a position has no meaning in a log of {group.partitions} partitions, each of which counts "
            f"its own; move {name!r} to the beginning, to now or to a time"
        )


def _place(start: Start, extent: Extent) -> int | str:
    if start == "now":
        return "now"
    if isinstance(start, datetime):
        return "now" if extent.since is None else extent.since
    return 0 if start == "beginning" else int(start)
