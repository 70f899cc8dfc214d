"""What an operator asks of a group of processes whose log lies on a server.

Answered without being one of the processes: nothing here takes, renews or gives up a lease.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from datetime import datetime
from typing import NamedTuple, Protocol

from pabal.domain.envelope import StoredRecord
from pabal.ports.inspection import ActionLog, DeliveryRecord
from pabal.ports.storage import DeadLetterStore, Replay, Start
from pabal.ports.views import SubscriptionView, Totals

Matches = Callable[[StoredRecord], bool]


class Place(NamedTuple):
    """Name a place in a log of several partitions; positions count from 1 within each."""

    partition: int
    position: int

    def __str__(self) -> str:
        """Return the cursor that people type."""
        return f"{self.partition}:{self.position}"


class Placed(NamedTuple):
    """Hold an event and the partition that it lies in."""

    partition: int
    row: StoredRecord


class Found(NamedTuple):
    """Hold what a search has found; ``cut`` is how far it came where it has looked at too much (or None)."""

    events: tuple[Placed, ...]
    cut: Place | None


class GroupInspection(DeadLetterStore, ActionLog, Protocol):
    """Look at one group from outside, decide about its dead letters, and steer its subscriptions.

    Whoever handles the subscription obeys within moments, or at its next start. Raises StorageError
    throughout.
    """

    @property
    def address(self) -> str:
        """Return the server's URL, without user and password."""
        ...

    async def totals(self) -> Totals:
        """Return what the log holds; positions are counted over all partitions."""
        ...

    async def subscriptions(self) -> list[SubscriptionView]:
        """Return every durable subscription of the group, by name, summed over the partitions."""
        ...

    async def pause_subscription(self, name: str) -> bool:
        """Let a subscription take no more events; False if it is paused already.

        Raises SubscriptionNotFoundError.
        """
        ...

    async def resume_subscription(self, name: str) -> bool:
        """Let a paused or halted subscription go on; False if it is neither.

        Raises SubscriptionNotFoundError.
        """
        ...

    async def reset_subscription(self, name: str, start: Start) -> int:
        """Move a subscription in every partition; return its position, counted over all of them.

        Raises SubscriptionNotFoundError, and UsageError for a position in a log of several partitions.
        """
        ...

    async def request_replay(self, name: str, first: int | datetime, last: int | datetime | None) -> Replay:
        """Ask that what a subscription has finished is delivered once more: all of it, or between two times.

        Raises SubscriptionNotFoundError, and UsageError for an empty range, and for positions in a log of
        several partitions.
        """
        ...

    async def is_moving(self, name: str) -> bool:
        """Tell whether somebody who handles a subscription has still to obey a reset."""
        ...

    async def published_since(self, moment: datetime) -> int:
        """Return how many events entered the log since then."""
        ...

    async def search(
        self,
        matches: Matches,
        *,
        before: Place | None = None,
        after: Place | None = None,
        since: int | None = None,
        until: int | None = None,
        limit: int,
        oldest_first: bool,
    ) -> Found:
        """Return up to ``limit`` events strictly between two places, by the time they entered the log.

        ``since`` (included) and ``until`` (not) are times in microseconds. Raises InvalidFilterError for a
        place that the log does not have.
        """
        ...

    def follow(
        self, matches: Matches, after: Place | None, since: int | None
    ) -> AsyncGenerator[Placed, None]:
        """Iterate over matching events as they enter the log, for ever; without a place, only new ones."""
        ...

    async def find_event(self, event_id: str) -> Placed | None:
        """Return an event by its id, as far back as ids are known."""
        ...

    async def deliveries_at(self, place: Place) -> list[DeliveryRecord]:
        """Return what is stored of an event at every durable subscription of the group, by name."""
        ...

    async def aclose(self) -> None:
        """Disconnect."""
        ...
