"""An operator's view of a group of processes whose log is on a server.

It is not one of these processes: nothing here takes, renews or releases a lease.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from datetime import datetime
from typing import NamedTuple, Protocol

from pabal.domain.envelope import StoredRecord
from pabal.errors import CorruptLogError
from pabal.ports.inspection import ActionLog, DeliveryRecord
from pabal.ports.storage import DeadLetterStore, Replay, Start
from pabal.ports.views import SubscriptionView, Totals

Matches = Callable[[StoredRecord], bool]
OnDamage = Callable[[CorruptLogError], None]


class Place(NamedTuple):
    """A place in a log of several partitions; positions count from 1 in each partition."""

    partition: int
    position: int

    def __str__(self) -> str:
        """Return the place as the cursor that operators type."""
        return f"{self.partition}:{self.position}"


class Placed(NamedTuple):
    """An event and the partition it is in."""

    partition: int
    row: StoredRecord


class Found(NamedTuple):
    """The result of a search; ``cut`` is where it stopped early because it had read too much, or None."""

    events: tuple[Placed, ...]
    cut: Place | None


class GroupInspection(DeadLetterStore, ActionLog, Protocol):
    """Look at a group from outside, decide on its dead letters, and control its subscriptions.

    The process that handles a subscription carries requests out within moments, or at its next start. Every
    method can raise StorageError.
    """

    @property
    def address(self) -> str:
        """Return the server's URL, without user and password."""
        ...

    async def totals(self) -> Totals:
        """Return the totals of the log; positions are counted over all partitions."""
        ...

    async def subscriptions(self) -> list[SubscriptionView]:
        """Return every durable subscription of the group, by name, summed over the partitions."""
        ...

    async def pause_subscription(self, name: str) -> bool:
        """Stop a subscription from taking events; False if it is already paused.

        Raises SubscriptionNotFoundError.
        """
        ...

    async def resume_subscription(self, name: str) -> bool:
        """Resume a paused or halted subscription; False if it is neither.

        Raises SubscriptionNotFoundError.
        """
        ...

    async def reset_subscription(self, name: str, start: Start) -> int:
        """Move a subscription in every partition; return its new position, counted over all of them.

        Raises SubscriptionNotFoundError, and UsageError for a position in a log of several partitions.
        """
        ...

    async def request_replay(self, name: str, first: int | datetime, last: int | datetime | None) -> Replay:
        """Have events that a subscription has finished delivered once more: all, or those between two times.

        Raises SubscriptionNotFoundError, and UsageError for an empty range, or for positions if the log has
        several partitions.
        """
        ...

    async def is_moving(self, name: str) -> bool:
        """Return whether a process that handles a subscription has yet to carry out a reset."""
        ...

    async def published_since(self, moment: datetime) -> int:
        """Return how many events entered the log since ``moment``."""
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
        """Return up to ``limit`` events strictly between two places, in the order they entered the log.

        ``since`` (included) and ``until`` (excluded) are times in microseconds. Raises InvalidFilterError for
        a place that does not exist in the log.
        """
        ...

    def read(
        self,
        matches: Matches,
        *,
        after: Place | None,
        since: int | None,
        until: int | None,
        on_damage: OnDamage | None,
    ) -> AsyncGenerator[Placed, None]:
        """Iterate over matching events after a place, oldest first, up to the present end of the log.

        At a damaged event it raises CorruptLogError, or calls ``on_damage`` with it and passes over it.
        """
        ...

    def follow(
        self, matches: Matches, after: Place | None, since: int | None
    ) -> AsyncGenerator[Placed, None]:
        """Iterate for ever over matching events as they enter the log; without ``after``, only new ones."""
        ...

    async def find_event(self, event_id: str) -> Placed | None:
        """Return an event by its id, as far back as the server knows ids."""
        ...

    async def deliveries_at(self, place: Place) -> list[DeliveryRecord]:
        """Return what is stored about an event for every durable subscription of the group, by name."""
        ...

    async def count_forgotten_letters(self) -> int:
        """Return how many dead letters belong to none of the group's durable subscriptions."""
        ...

    async def aclose(self) -> None:
        """Disconnect."""
        ...
