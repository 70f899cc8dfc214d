"""What an operator asks of a group of processes whose log lies on a server.

Answered without being one of the processes: nothing here takes, renews or gives up a lease.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Protocol

from pabal.domain.envelope import StoredRecord
from pabal.ports.inspection import ActionRecord
from pabal.ports.storage import DeadLetterStore
from pabal.ports.views import SubscriptionView, Totals


class GroupInspection(DeadLetterStore, Protocol):
    """Look at one group from outside, and decide about its dead letters. Raises StorageError throughout.

    A retry or discard leaves word for whoever handles the subscription.
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

    async def published_since(self, moment: datetime) -> int:
        """Return how many events entered the log since then."""
        ...

    async def find_events(self, wanted: Any, **where: Any) -> list[StoredRecord]:
        """Return events by what is indexed. Raises UsageError where nothing is."""
        ...

    async def begin_action(self, actor: str, action: str, subject: str, details: Any) -> int:
        """Write an action down and return its number."""
        ...

    async def finish_action(self, number: int, result: str, *, succeeded: bool) -> None:
        """Write down what came of an action."""
        ...

    async def list_actions(self, *, before: int | None = None, limit: int = 100) -> Sequence[ActionRecord]:
        """Return actions by descending number, from below ``before``."""
        ...

    async def aclose(self) -> None:
        """Disconnect."""
        ...
