"""Units of appending, each stored completely or not at all, and the flush that sends several of them."""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import Sequence
from typing import Any

from pabal.brokers.redis.keys import LogKeys
from pabal.brokers.redis.wire import Known, encode_entry, fingerprint
from pabal.domain.envelope import EventRecord, id_to_text
from pabal.domain.event import DomainEvent
from pabal.errors import DuplicateEventError


class Unit:
    """The events of one call to append: all of them are stored, or none."""

    __slots__ = ("events", "fingerprints", "future", "parts", "positions", "records", "since", "size")

    def __init__(self, events: Sequence[DomainEvent], records: list[EventRecord], parts: list[int]) -> None:
        self.events = events
        self.records = records
        self.parts = parts
        self.fingerprints = [fingerprint(record) for record in records]
        self.positions: list[int | None] = [None] * len(records)
        self.size = sum([len(record.payload) for record in records]) + 100 * len(records)
        self.since = time.monotonic()
        self.future: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()

    def fail(self, error: BaseException) -> None:
        """Fail the unit's future; its error need not be retrieved."""
        if not self.future.done():
            self.future.set_exception(error)
            self.future.exception()

    def fail_as_duplicate(self, index: int, position: int) -> None:
        """Fail because the id of the event at ``index`` is stored with other content at ``position``."""
        self.fail(DuplicateEventError(event_id=id_to_text(self.records[index].event_id), position=position))


Place = tuple[Unit, int]
"""A unit, and the index of one of its events."""


def reject_conflicts(units: list[Unit]) -> list[Unit]:
    """Fail units that use an id of the same flush for other content; return the rest.

    The same event may occur several times.
    """
    seen: dict[bytes, int] = {}
    accepted: list[Unit] = []
    for unit in units:
        ids = [record.event_id for record in unit.records]
        own = dict(zip(ids, unit.fingerprints, strict=True))
        conflicts: list[int] = []
        if len(own) < len(ids) or not seen.keys().isdisjoint(own):
            conflicts = [
                index
                for index, (event_id, crc) in enumerate(zip(ids, unit.fingerprints, strict=True))
                if own[event_id] != crc or seen.get(event_id, crc) != crc
            ]
        if conflicts:
            unit.fail_as_duplicate(conflicts[0], 0)
        else:
            seen.update(own)
            accepted.append(unit)
    return accepted


class Flush:
    """Send the events of some units that have no position yet, as one entry per partition."""

    def __init__(self, units: list[Unit]) -> None:
        self._units = units
        self.batches: dict[int, dict[bytes, Place]] = {}
        """The events for each partition, by id."""
        self._repeats: list[tuple[Place, Place]] = []
        """The first and a further occurrence of the same event."""
        for unit in units:
            positions = unit.positions
            for index, part in enumerate(unit.parts):
                if positions[index] is not None:
                    continue
                batch = self.batches.get(part)
                if batch is None:
                    batch = self.batches[part] = {}
                place = (unit, index)
                first = batch.setdefault(unit.records[index].event_id, place)
                if first is not place:
                    self._repeats.append((first, place))

    def build_arguments(self, keys: LogKeys) -> tuple[list[str], list[Any]]:
        """Return the keys and arguments for the script ``append``."""
        names: list[str] = []
        arguments: list[Any] = []
        for partition, batch in self.batches.items():
            names += keys.append_keys(partition)
            count = len(batch)
            ids = b"".join(batch)
            marks: list[int] = [0] * (3 * count)
            marks[0::3] = ids[15::16]
            marks[1::3] = [unit.fingerprints[index] for unit, index in batch.values()]
            marks[2::3] = range(count - 1, -1, -1)
            arguments += (
                count,
                ids,
                struct.pack("<" + "BII" * count, *marks),
                encode_entry([unit.records[index] for unit, index in batch.values()]),
            )
        return names, arguments

    def note_stored(self, answer: Any) -> list[tuple[int, int, tuple[DomainEvent, ...]]]:
        """Assign the positions of an answer; return each entry's partition, first position and events."""
        stored = []
        for (partition, batch), first in zip(self.batches.items(), answer[1:], strict=True):
            for position, (unit, index) in enumerate(batch.values(), first):
                unit.positions[index] = position
            stored.append((partition, first, tuple([unit.events[index] for unit, index in batch.values()])))
        self._note_repeats()
        return stored

    def note_known(self, answer: Any) -> list[Unit]:
        """Assign the positions of events that are already stored; return the units to send again.

        A unit fails if one of its ids is stored with other content.
        """
        numbered = [list(batch.values()) for batch in self.batches.values()]
        for part, number, value in zip(answer[1::3], answer[2::3], answer[3::3], strict=True):
            unit, index = numbered[part][number]
            known = Known.of(value)
            if known.fingerprint == unit.fingerprints[index]:
                unit.positions[index] = known.position
            else:
                unit.fail_as_duplicate(index, known.position)
        self._note_repeats()
        return [unit for unit in self._units if not unit.future.done()]

    def _note_repeats(self) -> None:
        for (first, index), (unit, own) in self._repeats:
            unit.positions[own] = first.positions[index]
