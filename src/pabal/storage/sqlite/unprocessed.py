"""Find the events that an application has not marked as processed, without scanning the log each time."""

from __future__ import annotations

import msgspec

from pabal.storage.sqlite.connection import Connection
from pabal.storage.sqlite.statements import statements


class UnprocessedCache:
    """Remember how far the log was scanned and which events had no mark; marks are never removed.

    An application that asks and marks in turn would otherwise skip all marked events, from the first one on,
    with each call.
    """

    def __init__(self) -> None:
        self._seen: tuple[int, tuple[int, ...]] = (0, ())
        """A position, and all unmarked ones up to it; replaced as a whole, as several threads read it."""

    def first(self, connection: Connection, limit: int) -> list[int]:
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
            # If the scan has reached the end of the log, it has passed at least the head read before.
            upto = more[-1] if len(more) == wanted else max(upto, head, *more)
        self._seen = (upto, tuple(found))
        return found[:limit]
