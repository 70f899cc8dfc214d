"""The state of one event at every subscription of a group, as stored on the server."""

from __future__ import annotations

from pabal.brokers.redis.cursors import as_pairs, decode_cursor, decode_retry, field
from pabal.brokers.redis.dead_letters import GroupDeadLetters
from pabal.brokers.redis.keys import GroupKeys
from pabal.brokers.redis.link import Link
from pabal.errors import DeadLetterNotFoundError
from pabal.ports.groups import Place
from pabal.ports.inspection import DeliveryRecord, state_of


async def deliveries(
    letters: GroupDeadLetters, link: Link, keys: GroupKeys, place: Place
) -> list[DeliveryRecord]:
    """Return one record per durable subscription, ordered by name."""
    of = keys.of(place.partition)
    records: list[DeliveryRecord] = []
    for name, cursor in sorted(as_pairs(await link.call("HGETALL", of.cursors)).items()):
        subscription = name.decode()
        at = field(subscription, place.position)
        calls = [
            link.call("HGET", keys.letter_index, f"{place.partition}\0{at}"),
            link.call("HGET", of.retries, at),
            link.call("HGET", of.queued, at),
        ]
        letter, retry, queued = [await one for one in calls]
        parked = None if letter is None else await _parked(letters, subscription, int(letter))
        if parked is not None:
            records.append(parked)
        elif retry is not None:
            known = decode_retry(retry)
            records.append(
                DeliveryRecord(subscription, "retrying", known.attempts, known.due_at, known.failures)
            )
        elif queued is not None:
            records.append(DeliveryRecord(subscription, "queued"))
        else:
            saved = decode_cursor(cursor)
            state = state_of(place.position, saved.frontier, saved.positions())
            records.append(DeliveryRecord(subscription, state))
    return records


async def _parked(letters: GroupDeadLetters, subscription: str, number: int) -> DeliveryRecord | None:
    try:
        letter = await letters.get_dead_letter(number)
    except DeadLetterNotFoundError:
        return None  # it was discarded in between
    failures = letter.failures
    return DeliveryRecord(subscription, letter.state, len(failures), None, failures, letter.id)
