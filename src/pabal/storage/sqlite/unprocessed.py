"""Find the events that an application has not marked as dispatched, without looking at the others again."""

from __future__ import annotations

from typing import Any

import msgspec

from pabal.storage.sqlite.statements import statements


class UnprocessedCache:
    """Remember how far the log was looked through, and what of it was unmarked; marks are never taken back.

    Who asks and marks in turn would otherwise pass over all that is marked, each time from the beginning.
    """

    def __init__(self) -> None:
        self._seen: tuple[int, tuple[int, ...]] = (0, ())
        """A position, and every unmarked one up to it; replaced as a whole, for several threads read."""

    def first(self, connection: Any, limit: int) -> list[int]:
        """Return the lowest unmarked positions."""
        sql = statements()
        upto, known = self._seen
        asked = msgspec.json.encode(known).decode()
        found = [position for (position,) in connection.execute(sql["still_unmarked"], (asked,))]
        if len(found) < limit:
            head: int = connection.execute(sql["head"]).fetchone()[0]
            wanted = limit - len(found)
            more = [position for (position,) in connection.execute(sql["unmarked"], (upto, wanted))]
            found += more
            # Where it was looked through to its end, that was at the head it had before, or beyond.
            upto = more[-1] if len(more) == wanted else max(upto, head, *more)
        self._seen = (upto, tuple(found))
        return found[:limit]
