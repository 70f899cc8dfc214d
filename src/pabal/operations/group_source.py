"""A group of processes on a server as a source: looked at from outside, without being one of them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NoReturn

from pabal.errors import ActionNotPossibleError
from pabal.operations.letters import matching_letters, retry_elsewhere
from pabal.operations.storage_source import entry_of
from pabal.operations.views import event_view, letter_view
from pabal.ports.groups import GroupInspection
from pabal.ports.operations import (
    Action,
    ActionResult,
    AuditEntry,
    DeadLetterFilter,
    DeadLetterGroup,
    DeadLetterView,
    DeliveryView,
    EventFilter,
    EventView,
    Reason,
    StreamPage,
    SubscriptionView,
    Target,
    Totals,
)
from pabal.ports.samples import Sample, Series
from pabal.ports.storage import Start

_ANOTHER_NAME = "a log on Redis cannot move a subscription; subscribe under another name, with start=…"


class GroupSource:
    """Answer about one group. Its log cannot be searched, and its subscriptions cannot be steered."""

    actions: frozenset[Action] = frozenset(("retry", "edit", "discard"))

    def __init__(self, group: GroupInspection) -> None:
        self._group = group

    @property
    def target(self) -> Target:
        """Return what is being looked at."""
        address = self._group.address
        return Target(address.partition(":")[0], address, live=False, has_log=False)

    # -- looking --------------------------------------------------------------------------------------

    async def totals(self) -> Totals:
        """Return figures of the whole."""
        return await self._group.totals()

    async def subscriptions(self) -> list[SubscriptionView]:
        """Return every subscription, by name."""
        return await self._group.subscriptions()

    async def reasons(self) -> list[Reason]:
        """Return nothing: what is wrong, the subscriptions say."""
        return []

    async def newest(self) -> str:
        """Refuse, as for every search: nobody can go on from a cursor. Raises UsageError."""
        await self._search()
        return "0"

    async def types(self) -> list[str]:
        """Return nothing: there is no index of them."""
        return []

    async def series(self, edges: Sequence[int]) -> Series | None:
        """Return nothing: nothing is kept of the past."""
        return None

    async def latest_samples(self, since: int) -> list[Sample]:
        """Return nothing: the processes note nothing of themselves."""
        return []

    async def published_since(self, moment: datetime) -> int:
        """Return how many events entered the log since then."""
        return await self._group.published_since(moment)

    async def events(self, wanted: EventFilter, **page: Any) -> list[EventView]:
        """Refuse: nothing is indexed. Raises UsageError."""
        return await self._search(wanted, **page)

    async def event(self, event_id: str) -> EventView | None:
        """Refuse: nothing is indexed. Raises UsageError."""
        await self._search()
        return None

    async def deliveries(self, event: EventView) -> list[DeliveryView]:
        """Return nothing: no event is found here."""
        return []

    async def streams(self, prefix: str, after: str | None, limit: int) -> StreamPage:
        """Refuse: nothing is indexed. Raises UsageError."""
        await self._search()
        return StreamPage((), None)

    async def stream(
        self, aggregate_id: str, aggregate_type: str | None, after_version: int, limit: int
    ) -> list[EventView]:
        """Refuse: nothing is indexed. Raises UsageError."""
        return await self._search()

    async def _search(self, wanted: Any = None, **page: Any) -> list[EventView]:
        return [event_view(row, payload=False) for row in await self._group.find_events(wanted, **page)]

    async def dead_letters(self, wanted: DeadLetterFilter, *, after: int, limit: int) -> list[DeadLetterView]:
        """Return dead letters by ascending id."""
        return await matching_letters(self._group, wanted, after=after, limit=limit)

    async def dead_letter(self, dead_letter_id: int) -> DeadLetterView:
        """Return one. Raises DeadLetterNotFoundError."""
        return letter_view(await self._group.get_dead_letter(dead_letter_id))

    async def dead_letter_groups(self) -> list[DeadLetterGroup]:
        """Return how many dead letters there are of each subscription and error type."""
        return await self._group.group_dead_letters()

    # -- steering -------------------------------------------------------------------------------------

    async def pause(self, name: str) -> ActionResult:
        """Refuse."""
        _refuse("pause", name, "a log on Redis cannot pause a subscription; stop the processes of its group")

    async def resume(self, name: str) -> ActionResult:
        """Refuse: only the processes that halted know of it."""
        _refuse("resume", name, "call bus.resume() in its processes, or start them again")

    async def reset(self, name: str, to: Start) -> ActionResult:
        """Refuse."""
        _refuse("reset", name, _ANOTHER_NAME)

    async def replay(self, name: str, first: int, last: int | None) -> ActionResult:
        """Refuse."""
        _refuse("replay", name, _ANOTHER_NAME)

    async def retry(self, dead_letter_id: int, payload: bytes | None) -> ActionResult:
        """Deliver a dead letter again, where its partition is handled, now or later."""
        letter = await self._group.get_dead_letter(dead_letter_id)
        return await retry_elsewhere(self._group, letter, payload)

    async def discard(self, dead_letter_id: int) -> ActionResult:
        """Remove a dead letter for good; what queues behind it goes on where its partition is handled."""
        await self._group.discard_dead_letter(dead_letter_id)
        return ActionResult("discard", str(dead_letter_id), 1)

    # -- the audit log --------------------------------------------------------------------------------

    async def begin_action(self, actor: str, action: str, subject: str, details: Any) -> int:
        """Write down that an action begins."""
        return await self._group.begin_action(actor, action, subject, details)

    async def finish_action(self, number: int, result: str, *, succeeded: bool) -> None:
        """Write down what came of it."""
        await self._group.finish_action(number, result, succeeded=succeeded)

    async def audit(self, *, before: int | None, limit: int) -> list[AuditEntry]:
        """Return actions, newest first."""
        return [entry_of(record) for record in await self._group.list_actions(before=before, limit=limit)]

    async def aclose(self) -> None:
        """Disconnect."""
        await self._group.aclose()


def _refuse(action: Action, name: str, reason: str) -> NoReturn:
    raise ActionNotPossibleError(action=action, subject=name, reason=reason)
