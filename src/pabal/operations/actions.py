"""The actions of an operator. Each is recorded in the audit log before it begins and after it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any, Literal

import msgspec

from pabal.domain.schema import encode_json
from pabal.errors import (
    ActionNotPossibleError,
    DeadLetterNotFoundError,
    DecodeError,
    PabalError,
    SubscriptionError,
    UnserializableEventError,
    UsageError,
)
from pabal.eventsourcing.projection import Progress, Projection
from pabal.ports.arguments import MAX_POSITION, checked_start
from pabal.ports.operations import ActionResult, DeadLetterFilter, DeadLetterGroup, OperationsSource
from pabal.ports.storage import Start

_PAGE = 500
_CONCURRENCY = 100
"""Dead letters to act on concurrently, to share a commit; not for retries by a bus in this process."""
_SKIPPED_ERRORS = (DecodeError, SubscriptionError, DeadLetterNotFoundError, ActionNotPossibleError)


class Actions:
    """Control subscriptions, and retry, edit or discard dead letters.

    ``count`` of a result is 0 if there was nothing to do.
    """

    def __init__(self, source: OperationsSource, actor: str) -> None:
        self._source = source
        self.actor = actor

    # -- subscriptions --------------------------------------------------------------------------------

    async def pause(self, name: str) -> ActionResult:
        """Stop delivering events to a subscription until it is resumed, even across restarts.

        Running handlers finish. ``count`` is 0 if it is paused already. Raises SubscriptionNotFoundError,
        ActionNotPossibleError.
        """
        return await self._audited("pause", name, None, lambda: self._source.pause(name))

    async def resume(self, name: str) -> ActionResult:
        """Resume a paused or halted subscription; ``count`` is 0 if it is neither.

        Raises SubscriptionNotFoundError, and BusNotRunningError on a stopped bus that has no log.
        """
        return await self._audited("resume", name, None, lambda: self._source.resume(name))

    async def reset(self, name: str, to: Start) -> ActionResult:
        """Move a subscription to ``"beginning"``, ``"now"``, after a position, or to an aware time.

        Moving back delivers handled events again; moving ahead skips events. The subscription's retries and
        replays are dropped, and so are dead letters whose events will be delivered again. ``position`` of the
        result is its new position. Raises SubscriptionNotFoundError, SubscriptionInUseError,
        ActionNotPossibleError.
        """
        checked_start(to, "to")
        return await self._audited("reset", name, {"to": str(to)}, lambda: self._source.reset(name, to))

    async def replay(
        self, name: str, first: int | datetime = 1, last: int | datetime | None = None
    ) -> ActionResult:
        """Deliver the events from position ``first`` to ``last`` again, to this subscription alone.

        Both positions are included. As ``first``, an aware time means the events that entered the log then or
        later; as ``last``, those before it. ``last`` defaults to the subscription's own position. Unfinished
        events and dead letters are left out. Raises SubscriptionNotFoundError, and UsageError for an empty
        range.
        """
        details = {"first": first, "last": last}
        return await self._audited("replay", name, details, lambda: self._source.replay(name, first, last))

    # -- projections ----------------------------------------------------------------------------------

    async def remove_projection(self, name: str, *, unfinished: bool = False) -> ActionResult:
        """Drop a projection's tables and its position for good, so that it no longer holds back retention.

        Its class is not needed. If the projection is running somewhere, it stops with a ProjectionError at
        its next event; if it is started again, it rebuilds its tables. With ``unfinished``, only the tables
        of an unfinished rebuild are dropped, and a rebuild in progress fails. Raises ProjectionNotFoundError,
        ActionNotPossibleError.
        """
        return await self._audited(
            "remove",
            f"projection {name}",
            {"unfinished": unfinished},
            lambda: self._source.remove_projection(name, unfinished=unfinished),
        )

    async def rebuild_projection(
        self, projection: type[Projection], *, progress: Progress | None = None
    ) -> ActionResult:
        """Rebuild a projection's tables beside the live ones, and swap them; ``position`` is the new one.

        The application may keep running. ``progress(position, head)`` is called after each batch. If the
        rebuild fails or is cancelled, the live tables stay as they were. Raises what ``Projection.rebuild``
        raises, UsageError for a class that cannot be created from a storage alone, ActionNotPossibleError.
        """

        async def rebuild(storage: Any) -> int:
            try:
                instance = projection(storage)
            except TypeError as error:
                raise UsageError(
                    f"{projection.__qualname__} cannot be created from a storage alone: {error}"
                ) from error
            await instance.rebuild(progress=progress)
            return instance.position

        return await self._audited(
            "rebuild",
            f"projection {projection.name}",
            {"version": projection.version},
            lambda: self._source.rebuild_projection(projection.name, rebuild),
        )

    # -- dead letters ---------------------------------------------------------------------------------

    async def retry(self, dead_letter_id: int) -> ActionResult:
        """Deliver a dead letter again; count 0 if that is already in progress.

        Raises DeadLetterNotFoundError, SubscriptionError while its subscription is halted in this process
        (or, on a bus without log, no longer exists), DecodeError for a payload that still does not fit the
        event class, and BusNotRunningError on a stopped bus.
        """
        letter_id = checked_letter_id(dead_letter_id)
        return await self._audited("retry", str(letter_id), None, lambda: self._source.retry(letter_id, None))

    async def edit_and_retry(self, dead_letter_id: int, payload: Mapping[str, Any]) -> ActionResult:
        """Replace a dead letter's payload and deliver it again.

        ``payload`` holds every field, as plain values. Raises DecodeError if it does not fit the event class,
        UnknownEventTypeError if this process has not imported that class, UnserializableEventError for values
        without a JSON form, and what ``retry`` raises; the dead letter then stays as it was.
        """
        letter_id = checked_letter_id(dead_letter_id)
        try:
            encoded = encode_json(dict(payload))
        except (TypeError, ValueError) as error:
            letter = await self._source.dead_letter(letter_id)
            raise UnserializableEventError(
                event_type=letter.event.event_type, event_id=letter.event.event_id, reason=str(error)
            ) from error
        return await self._audited(
            "edit", str(letter_id), None, lambda: self._source.retry(letter_id, encoded)
        )

    async def discard(self, dead_letter_id: int) -> ActionResult:
        """Remove a dead letter for good and release the events behind it. Raises DeadLetterNotFoundError."""
        letter_id = checked_letter_id(dead_letter_id)
        return await self._audited("discard", str(letter_id), None, lambda: self._source.discard(letter_id))

    async def retry_matching(
        self, wanted: DeadLetterFilter, *, progress: Callable[[int], None] | None = None
    ) -> ActionResult:
        """Retry every dead letter that matches; those that cannot be retried now are left as they are.

        ``count`` is the number retried, ``skipped`` the number left. An empty filter means all. ``progress``
        is called with the number processed so far.
        """
        return await self._audited(
            "retry",
            describe_filter(wanted),
            wanted,
            lambda: self._for_each_matching(
                "retry", wanted, lambda letter_id: self._source.retry(letter_id, None), progress
            ),
        )

    async def discard_matching(
        self, wanted: DeadLetterFilter, *, progress: Callable[[int], None] | None = None
    ) -> ActionResult:
        """Discard every dead letter that matches, for good; see ``retry_matching``."""
        return await self._audited(
            "discard",
            describe_filter(wanted),
            wanted,
            lambda: self._for_each_matching("discard", wanted, self._source.discard, progress),
        )

    async def count_matching(self, wanted: DeadLetterFilter) -> int:
        """Return how many dead letters ``retry_matching`` and ``discard_matching`` would take."""
        if wanted.event_type is not None:
            return len(await self._matching_ids(wanted))
        # The storage counts by group: do not read a hundred thousand dead letters for one number.
        return sum(
            group.count for group in await self._source.dead_letter_groups() if is_group_wanted(wanted, group)
        )

    async def _for_each_matching(
        self,
        action: Literal["retry", "discard"],
        wanted: DeadLetterFilter,
        act: Callable[[int], Awaitable[ActionResult]],
        progress: Callable[[int], None] | None,
    ) -> ActionResult:
        # List them first, so that a dead letter that is parked again meanwhile is not taken twice.
        ids = await self._matching_ids(wanted)
        done = skipped = 0
        pending = False
        # A live bus starts retries in call order, so go one by one; otherwise the storage keeps the order.
        batch_size = 1 if action == "retry" and self._source.target.live else _CONCURRENCY
        for start in range(0, len(ids), batch_size):
            batch = ids[start : start + batch_size]
            outcomes = await asyncio.gather(*map(act, batch), return_exceptions=True)
            for processed, outcome in enumerate(outcomes, start + 1):
                if isinstance(outcome, ActionResult):
                    done += outcome.count
                    skipped += not outcome.count
                    pending = pending or outcome.pending
                elif isinstance(outcome, _SKIPPED_ERRORS):
                    skipped += 1  # unchanged, or gone by now; acting on it alone raises the reason
                else:
                    raise outcome
                if progress is not None:
                    progress(processed)
        return ActionResult(action, describe_filter(wanted), done, skipped, pending)

    async def _matching_ids(self, wanted: DeadLetterFilter) -> list[int]:
        ids: list[int] = []
        after = 0
        while page := await self._source.dead_letters(wanted, after=after, limit=_PAGE):
            ids += [letter.id for letter in page]
            after = ids[-1]
            await asyncio.sleep(0)  # yield to the event loop: in-memory listing never does
        return ids

    # -- the audit log --------------------------------------------------------------------------------

    async def _audited(
        self, action: str, subject: str, details: Any, act: Callable[[], Awaitable[ActionResult]]
    ) -> ActionResult:
        plain_details = msgspec.to_builtins(details)
        entry_id = await self._source.begin_action(self.actor, action, subject, plain_details)
        try:
            result = await act()
        except PabalError as error:
            await self._source.finish_action(entry_id, f"{type(error).__name__}: {error}", succeeded=False)
            raise
        except BaseException as error:
            await self._source.finish_action(entry_id, type(error).__name__, succeeded=False)
            raise
        await self._source.finish_action(entry_id, _describe_result(result), succeeded=True)
        return result


def checked_letter_id(dead_letter_id: int) -> int:
    """Return the id of a dead letter. Raises DeadLetterNotFoundError for one that is out of range."""
    if abs(dead_letter_id) > MAX_POSITION:
        raise DeadLetterNotFoundError(dead_letter_id=dead_letter_id)
    return dead_letter_id


def is_group_wanted(wanted: DeadLetterFilter, group: DeadLetterGroup) -> bool:
    """Return whether the dead letters of a group match a filter without event type."""
    return wanted.subscription in (None, group.subscription) and wanted.error_type in (
        None,
        group.error_type,
    )


def describe_filter(wanted: DeadLetterFilter) -> str:
    """Return a filter as the audit log names it."""
    restrictions = {
        name: value for name, value in msgspec.structs.asdict(wanted).items() if value is not None
    }
    return ", ".join(f"{name}={value}" for name, value in restrictions.items()) or "all"


def _describe_result(result: ActionResult) -> str:
    text = f"{result.count} done"
    if result.skipped:
        text += f", {result.skipped} left unchanged"
    return text + (", takes effect when the subscription is handled next" if result.pending else "")
