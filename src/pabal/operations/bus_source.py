"""A bus without its own storage as a source for operators: subscriptions and dead letters, but no log."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from datetime import UTC, datetime
from typing import Any, NoReturn

import msgspec

from pabal.bus.base import BaseEventBus
from pabal.errors import ActionNotPossibleError, BusNotRunningError, SubscriptionNotFoundError, UsageError
from pabal.operations.health import count_forgotten, reason_of_parked, reasons_of_forgotten
from pabal.operations.projections import PROJECTION_ACTIONS, NoProjections
from pabal.operations.views import audit_entry, letter_view, reasons_of, with_bus_counters, with_figures
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
from pabal.ports.records import GroupsByError
from pabal.ports.samples import Sample, Series
from pabal.ports.storage import Start
from pabal.ports.views import ALL_ACTIONS

_PAGE = 500
_MEMORY_ACTIONS: frozenset[Action] = frozenset(("resume", "retry", "edit", "discard"))
_SERVER_ACTIONS: frozenset[Action] = ALL_ACTIONS - PROJECTION_ACTIONS
_NO_LOG = "this bus has no log; give it an event_storage"
_NO_LOG_TO_FOLLOW = (
    "this bus has no log to follow; give it an event_storage, or follow the log of a "
    "server with pabal.factory.open_operations(url)"
)


class BusSource(NoProjections):
    """Read from a live bus that is in memory only, or whose log is on a server.

    For a bus in memory, this object also holds the audit log; a server stores its own.
    """

    def __init__(self, bus: BaseEventBus) -> None:
        self._bus = bus
        self._has_server = bus.address is not None
        address = bus.address or "memory://"
        self._target = Target(address.partition(":")[0], address, live=True, has_log=False)
        self._action_log = bus.action_log
        self._audit: list[AuditEntry] = []

    @property
    def target(self) -> Target:
        """Return what this source shows."""
        return self._target

    @property
    def actions(self) -> frozenset[Action]:
        """Return the actions that this bus supports."""
        return _SERVER_ACTIONS if self._has_server else _MEMORY_ACTIONS

    async def totals(self) -> Totals:
        """Return the totals over the whole bus."""
        return with_bus_counters(Totals(0, 0), self._bus)

    async def subscriptions(self) -> list[SubscriptionView]:
        """Return every subscription, by name."""
        parked: Counter[str] = Counter()
        if self._has_server:  # it counts them by subscription without reading any
            parked.update({record.name: record.parked for record in await self._bus.subscriptions.list()})
        else:
            for group in await self.dead_letter_groups():
                parked[group.subscription] += group.count
        figures = self._bus.get_statistics()["subscriptions"]
        return [_view(name, figures[name], parked[name]) for name in sorted(figures)]

    async def reasons(self) -> list[Reason]:
        """Return the problems that are not apparent from the subscriptions."""
        remarks = [Reason("group", "degraded", text) for text in self._bus.remarks()]
        return [*reasons_of(self._bus), *remarks, *await self._reasons_of_other_letters()]

    async def _reasons_of_other_letters(self) -> list[Reason]:
        """Return the reasons for dead letters of names that are not subscribed here."""
        groups = await self.dead_letter_groups()
        own = self._bus.get_statistics()["subscriptions"]
        others = [group for group in groups if group.subscription not in own]
        known: set[str] = set()
        if others and self._has_server:  # other processes of the group may subscribe under the names
            known = {record.name for record in await self._bus.subscriptions.list()}
        elsewhere: Counter[str] = Counter()
        for group in others:
            if group.subscription in known:
                elsewhere[group.subscription] += group.count
        parked = [reason_of_parked(name, count) for name, count in sorted(elsewhere.items())]
        return parked + reasons_of_forgotten(count_forgotten(others, known))

    async def types(self) -> list[str]:
        """Return an empty list: there is no log."""
        return []

    async def series(self, edges: Sequence[int]) -> Series | None:
        """Return None: there is no log, and no history of figures."""
        return None

    async def latest_samples(self, since: int) -> list[Sample]:
        """Return an empty list: ``totals`` and ``subscriptions`` have the bus's current figures."""
        return []

    async def published_since(self, moment: datetime) -> int:
        """Return 0: without a log, publishing times are not recorded."""
        return 0

    async def events(self, wanted: EventFilter, **page: Any) -> list[EventView]:
        """Return an empty list: there is no log."""
        return []

    async def read(self, wanted: EventFilter, **page: Any) -> AsyncGenerator[EventView, None]:
        """Iterate over nothing: there is no log."""
        for event in await self.events(wanted, **page):
            yield event

    def follow(
        self, wanted: EventFilter, *, after: str | None, every: float
    ) -> AsyncGenerator[EventView, None]:
        """Raise UsageError: there is no log to follow here."""
        raise UsageError(_NO_LOG_TO_FOLLOW)

    async def event(self, event_id: str) -> EventView | None:
        """Return None: there is no log."""
        return None

    async def deliveries(self, event: EventView) -> list[DeliveryView]:
        """Return an empty list: there is no log."""
        return []

    async def streams(self, prefix: str, after: str | None, limit: int) -> StreamPage:
        """Return an empty page: there is no log."""
        return StreamPage((), None)

    async def stream(
        self, aggregate_id: str, aggregate_type: str | None, after_version: int, limit: int
    ) -> list[EventView]:
        """Return an empty list: there is no log."""
        return []

    async def dead_letters(self, wanted: DeadLetterFilter, *, after: int, limit: int) -> list[DeadLetterView]:
        """Return dead letters by ascending id."""
        found = await self._bus.dead_letters.list(
            subscription=wanted.subscription,
            event_type=wanted.event_type,
            error_type=wanted.error_type,
            after=after,
            limit=limit,
        )
        return [letter_view(letter.record) for letter in found]

    async def dead_letter(self, dead_letter_id: int) -> DeadLetterView:
        """Return one dead letter. Raises DeadLetterNotFoundError."""
        return letter_view((await self._bus.dead_letters.get(dead_letter_id)).record)

    async def dead_letter_groups(self) -> list[DeadLetterGroup]:
        """Return the number of dead letters for each subscription and error type."""
        counted = GroupsByError()
        after = 0
        while page := await self._bus.dead_letters.list(after=after, limit=_PAGE):
            after = page[-1].id
            counted.add(letter.record for letter in page)
            await asyncio.sleep(0)  # yield to the event loop: in-memory listing never does
        return counted.groups()

    async def pause(self, name: str) -> ActionResult:
        """Pause a subscription. Not possible in memory, where its events would be lost meanwhile."""
        if not self._has_server:
            self._refuse("pause", name)
        return ActionResult("pause", name, int(await self._bus.subscriptions.pause(name)))

    async def resume(self, name: str) -> ActionResult:
        """Resume a halted or paused subscription."""
        known = sorted(self._bus.get_statistics()["subscriptions"])
        if name not in known:
            raise SubscriptionNotFoundError(name=name, known=", ".join(known) or "none")
        return ActionResult("resume", name, int(await self._bus.resume(name)))

    async def reset(self, name: str, to: Start) -> ActionResult:
        """Move a subscription. Not possible in memory, where no events are kept."""
        if not self._has_server:
            self._refuse("reset", name)
        return ActionResult("reset", name, 1, position=await self._bus.subscriptions.reset(name, to))

    async def replay(self, name: str, first: int | datetime, last: int | datetime | None) -> ActionResult:
        """Deliver a range of events again. Not possible in memory, where no events are kept."""
        subscriptions: Any = self._bus.subscriptions
        if not self._has_server:
            self._refuse("replay", name)
        replay = await subscriptions.replay(name, first, last)
        return ActionResult("replay", name, replay.last - replay.first + 1, pending=True)

    def _refuse(self, action: Action, name: str) -> NoReturn:
        raise ActionNotPossibleError(action=action, subject=name, reason=_NO_LOG)

    async def retry(self, dead_letter_id: int, payload: bytes | None) -> ActionResult:
        """Deliver a dead letter again, with a new payload if one is given."""
        letters = self._bus.dead_letters
        if payload is None:
            return ActionResult("retry", str(dead_letter_id), await letters.retry(dead_letter_id))
        begun = await letters.edit_and_retry(dead_letter_id, msgspec.json.decode(payload))
        return ActionResult("edit", str(dead_letter_id), int(begun))

    async def discard(self, dead_letter_id: int) -> ActionResult:
        """Remove a dead letter for good."""
        return ActionResult(
            "discard", str(dead_letter_id), await self._bus.dead_letters.discard(dead_letter_id)
        )

    async def begin_action(self, actor: str, action: str, subject: str, details: Any) -> int:
        """Record the start of an action in the audit log."""
        if self._action_log is not None:
            if not self._bus.is_running:
                raise BusNotRunningError(action=action, state="stopped")
            return await self._action_log.begin_action(actor, action, subject, details)
        number = len(self._audit) + 1
        self._audit.append(AuditEntry(number, datetime.now(UTC), actor, action, subject, details, "", None))
        return number

    async def finish_action(self, number: int, result: str, *, succeeded: bool) -> None:
        """Record the result of an action in the audit log."""
        if self._action_log is not None:
            await self._action_log.finish_action(number, result, succeeded=succeeded)
            return
        entry = self._audit[number - 1]
        self._audit[number - 1] = msgspec.structs.replace(entry, result=result, succeeded=succeeded)

    async def audit(self, *, before: int | None, limit: int) -> list[AuditEntry]:
        """Return recorded actions, newest first."""
        if self._action_log is not None:
            return [
                audit_entry(record)
                for record in await self._action_log.list_actions(before=before, limit=limit)
            ]
        entries = self._audit if before is None else self._audit[: max(0, before - 1)]
        return entries[::-1][:limit]

    async def aclose(self) -> None:
        """Do nothing: the bus belongs to its application."""


def _view(name: str, figures: Any, parked: int) -> SubscriptionView:
    view = SubscriptionView(
        name=name,
        state=figures["state"],
        watermark=0,
        frontier=0,
        lag=figures["lag"],
        retries=figures["retrying"],
        parked=parked,
        queued=0,
        paused=figures["state"] == "paused",
    )
    return with_figures(view, figures)
