"""``wait_for``: return the first matching event since a receipt, or the next one."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from pabal.delivery.engine import Engine
from pabal.delivery.handler import plain_result
from pabal.delivery.matching import EventMatcher
from pabal.delivery.shutdown import is_dead
from pabal.domain.envelope import Receipt
from pabal.domain.event import DomainEvent, body_of, copy_if_mutable, kind_of
from pabal.errors import BusNotRunningError, SubscriptionError, UsageError

_REMEMBERED = 1024


@asynccontextmanager
async def timeout_with_message(timeout: float | None, event_type: Any) -> AsyncIterator[None]:
    """Limit a wait to ``timeout`` seconds; raise a TimeoutError that names the limit and the event type."""
    limit = asyncio.timeout(timeout)
    try:
        async with limit:
            yield
    except TimeoutError:
        if not limit.expired():
            raise  # raised inside, as by ``where``
        kinds = event_type if isinstance(event_type, tuple) else (event_type,)
        named = " or ".join(kind.__name__ if isinstance(kind, type) else repr(kind) for kind in kinds)
        raise TimeoutError(f"no matching {named} came within {timeout} s") from None


class Expectations:
    """Match published events against the calls that wait for one."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.recent: deque[DomainEvent] = deque(maxlen=_REMEMBERED)
        """The last events of a bus without storage, for ``since``."""
        self.waiting: list[tuple[Callable[[DomainEvent], bool], asyncio.Future[Any]]] = []

    def start(self) -> None:
        """Forget events of an earlier run."""
        self.recent.clear()

    def stop(self) -> None:
        """Raise BusNotRunningError in all waiting calls."""
        for _, future in self.waiting:
            if not future.done() and not is_dead(future):
                future.set_exception(BusNotRunningError(action="wait any longer", state="stopping"))
        self.waiting.clear()

    def offer(self, event: DomainEvent) -> None:
        """Give a published event to the calls that it matches."""
        remaining = []
        for matches, future in self.waiting:
            if future.done():
                continue
            try:
                if matches(event):
                    future.set_result(body_of(copy_if_mutable(event)))  # a copy, hidden from handlers
                    continue
            except Exception as error:  # ``where`` raised: tell its caller, not the publisher
                future.set_exception(as_settable_error(error))
                continue
            remaining.append((matches, future))
        self.waiting[:] = remaining

    async def wait(self, event_type: Any, where: Callable[[Any], bool] | None, since: Receipt | None) -> Any:
        """Return the first match after ``since``, or the next one, on a bus without storage."""
        matches = condition(EventMatcher(event_type), where)
        if since is not None:
            missed = self._engine.sequence - since.sequence
            if missed > len(self.recent):
                raise UsageError(
                    f"{missed} events were published since that receipt and only the last {len(self.recent)} "
                    "are remembered; wait sooner, or use a bus with storage"
                )
            for event in list(self.recent)[len(self.recent) - missed :]:
                if matches(event):
                    return body_of(copy_if_mutable(event))
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.waiting.append((matches, future))
        self._engine.router.watch(True)
        try:
            return await future
        finally:
            self.waiting = [entry for entry in self.waiting if entry[1] is not future]
            self._engine.router.watch(bool(self.waiting))


def condition(matcher: EventMatcher, where: Callable[[Any], bool] | None) -> Callable[[DomainEvent], bool]:
    """Return a function that tells whether an event matches; it raises what ``where`` raises."""

    def matches(event: DomainEvent) -> bool:
        if not matcher.matches_class(kind_of(event)):
            return False
        if where is None:
            return True
        try:
            answer = where(body_of(event))
        except asyncio.CancelledError as error:  # it would cancel whoever compares events for its caller
            raise SubscriptionError(f"where raised {error!r}; it must return True or False") from error
        return bool(plain_result("where", answer))

    return matches


def as_settable_error(error: Exception) -> Exception:
    """Return an error that a future accepts: StopIteration it does not."""
    return RuntimeError("where= raised StopIteration") if isinstance(error, StopIteration) else error
