"""The state of a group's subscriptions: in each partition, and summed over all of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime

import msgspec

from pabal.brokers.redis.control import HELD, PAUSED
from pabal.brokers.redis.cursors import as_pairs, decode_cursor, letter_place, replays_of
from pabal.brokers.redis.extent import Extent
from pabal.brokers.redis.keys import GroupKeys
from pabal.brokers.redis.link import Link
from pabal.delivery.turns import iter_slices
from pabal.ports.storage import SubscriptionRecord

_SUMMED = ("watermark", "frontier", "unfinished", "retries", "parked", "queued")


async def read_subscriptions(
    link: Link, keys: GroupKeys, partitions: Iterable[int]
) -> list[list[SubscriptionRecord]]:
    """Return the subscriptions of each partition, ordered by name; positions are those of the partition."""
    letters: Counter[tuple[int, bytes]] = Counter()
    async for some in iter_slices(await link.call("HKEYS", keys.letter_index)):
        letters.update(place[:2] for place in map(letter_place, some) if place is not None)
    controls = as_pairs(await link.call("HGETALL", keys.controls))
    return [await _read_partition(link, keys, part, letters, controls) for part in partitions]


async def _read_partition(
    link: Link,
    group: GroupKeys,
    part: int,
    letters: Mapping[tuple[int, bytes], int],
    controls: Mapping[bytes, bytes],
) -> list[SubscriptionRecord]:
    keys, call = group.of(part), link.call
    calls = [
        call("HGETALL", keys.cursors),
        call("HGETALL", keys.epochs),
        call("HKEYS", keys.retries),
        call("HKEYS", keys.queued),
        call("HGETALL", keys.replays),
        call("HGET", keys.lease, "owner"),
    ]
    cursors, epochs, retries, queued, asked, owner = [await one for one in calls]
    epochs, replays = as_pairs(epochs), as_pairs(asked)
    retrying, waiting = _by_name(retries), _by_name(queued)
    records: list[SubscriptionRecord] = []
    for name, data in sorted(as_pairs(cursors).items()):
        cursor = decode_cursor(data)
        mark = epochs.get(name + b"\0held", b"") if owner else b""
        records.append(
            SubscriptionRecord(
                name=name.decode(),
                watermark=cursor.watermark,
                frontier=cursor.frontier,
                unfinished=len(cursor.unfinished) + waiting[name],
                retries=retrying[name],
                parked=letters[part, name],
                queued=waiting[name],
                owner=owner.decode() if mark else None,
                epoch=int(epochs.get(name, 0)),
                updated_at=datetime.fromtimestamp(cursor.updated_at, UTC),
                paused=controls.get(name) == PAUSED,
                replays=replays_of(replays, name.decode()),
                halted="" if mark == HELD else mark.decode(),
            )
        )
    return records


def sum_partitions(
    parts: Sequence[Sequence[SubscriptionRecord]],
    extents: Sequence[Extent],
    living: Collection[str] | None = None,
) -> list[SubscriptionRecord]:
    """Return each subscription once, ordered by name, with positions counted over all partitions.

    A subscription that stands in the trimmed part of the log, as after a reset to the beginning, counts as
    standing at the end of that part, because no event below can be delivered. If ``living`` is given, owners
    that are not in it are left out, and so are the halts they recorded.
    """
    totals: dict[str, SubscriptionRecord] = {}
    owners: dict[str, set[str]] = {}
    for records, extent in zip(parts, extents, strict=True):
        for record in records:
            is_alive = record.owner is not None and (living is None or record.owner in living)
            counted = msgspec.structs.replace(
                record,
                halted=record.halted if is_alive else "",
                watermark=extent.count_assigned(0, extent.skip_trimmed(record.watermark)),
                frontier=extent.count_assigned(0, extent.skip_trimmed(record.frontier)),
            )
            total = totals.get(record.name)
            totals[record.name] = counted if total is None else _sum(total, counted)
            if is_alive:
                owners.setdefault(record.name, set()).add(str(record.owner))
    return [
        msgspec.structs.replace(record, owner=", ".join(sorted(owners.get(name, ()))) or None)
        for name, record in sorted(totals.items())
    ]


def head_of(extents: Iterable[Extent]) -> int:
    """Return how many positions were assigned in all partitions together."""
    return sum(extent.count_assigned(0, extent.head) for extent in extents)


def _by_name(fields: Iterable[bytes]) -> Counter[bytes]:
    return Counter(at.partition(b"\0")[0] for at in fields)


def _sum(total: SubscriptionRecord, more: SubscriptionRecord) -> SubscriptionRecord:
    added = {name: getattr(total, name) + getattr(more, name) for name in _SUMMED}
    return msgspec.structs.replace(
        total,
        **added,
        replays=total.replays + more.replays,
        epoch=max(total.epoch, more.epoch),
        updated_at=max(total.updated_at, more.updated_at),
        halted=total.halted or more.halted,
    )
