"""The audit log of a group: operators' actions, whichever tool they used."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from pabal.brokers.redis.dead_letters import Linked
from pabal.brokers.redis.keys import GroupKeys
from pabal.ports.arguments import check_bounds
from pabal.ports.inspection import ActionRecord

_KEPT = 10_000

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(ActionRecord).decode


class GroupActions:
    """Record operators' actions on one group on the server; the newest 10,000 are kept."""

    def __init__(self, log: Linked, keys: GroupKeys) -> None:
        self._log = log
        self._keys = keys

    async def begin_action(self, actor: str, action: str, subject: str, details: Any) -> int:
        """Record the start of an operator's action and return its number."""
        number = int(await self._log.link.call("INCR", self._keys.action_counter))
        plain = msgspec.to_builtins(details)
        await self._write(ActionRecord(number, datetime.now(UTC), actor, action, subject, plain))
        await self._log.link.call("HDEL", self._keys.actions, number - _KEPT)
        return number

    async def finish_action(self, number: int, result: str, *, succeeded: bool) -> None:
        """Record the result of an action."""
        known = await self._log.link.call("HGET", self._keys.actions, number)
        if known is not None:
            begun = _decode(known)
            await self._write(msgspec.structs.replace(begun, result=result, succeeded=succeeded))

    async def _write(self, record: ActionRecord) -> None:
        await self._log.link.call("HSET", self._keys.actions, record.id, _encode(record))

    async def list_actions(self, *, before: int | None = None, limit: int = 100) -> list[ActionRecord]:
        """Return recorded actions by descending number, below ``before`` if given; at most ``limit``."""
        check_bounds(limit, before=before or 0)
        newest = int(await self._log.link.call("GET", self._keys.action_counter) or 0)
        last = newest if before is None else min(newest, before - 1)
        numbers = range(last, max(0, last - limit), -1)
        if not numbers:
            return []
        found = await self._log.link.call("HMGET", self._keys.actions, *numbers)
        return [_decode(data) for data in found if data is not None]
