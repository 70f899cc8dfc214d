"""What a log on the server does not offer, refused with a sentence that says what to use instead."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from pabal.domain.envelope import StoredRecord
from pabal.errors import UsageError
from pabal.ports.storage import Control, Replay, Start


class Unsteered:
    """Refuse to pause, move or replay durable subscriptions, and to search the log by what is indexed.

    A subscription's place on the server is one cursor in each partition, each moved by its owner alone.
    """

    async def pause_subscription(self, name: str) -> bool:
        """Raise UsageError."""
        _refuse("pause a subscription", "stop the processes of its group")

    async def resume_subscription(self, name: str) -> bool:
        """Raise UsageError."""
        _refuse("resume a subscription", "start the processes of its group")

    async def reset_subscription(self, name: str, start: Start, *, epoch: int | None = None) -> int:
        """Raise UsageError."""
        _refuse("move a subscription", "subscribe under another name, with start=…")

    async def request_replay(self, name: str, first: int, last: int) -> Replay:
        """Raise UsageError."""
        _refuse("replay to a subscription", "subscribe under another name, with start=…")

    async def cancel_replays(self, name: str) -> int:
        """Raise UsageError."""
        _refuse("cancel replays", "there are none")

    async def forget_subscription(self, name: str) -> bool:
        """Raise UsageError."""
        _refuse("forget a subscription", "use a group of another name")

    async def read_controls(self, names: Sequence[str]) -> list[Control]:
        """Return nothing: nothing can be asked."""
        return []

    def poll_controls(self) -> bool:
        """Return False: nothing can be asked."""
        return False

    def add_control_listener(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Return what takes ``listener`` away; it is never called."""
        return lambda: None

    async def parked_positions(self, name: str, after: int, upto: int) -> list[int]:
        """Return nothing: only replays ask."""
        return []

    async def find_events(self, wanted: Any, **where: Any) -> list[StoredRecord]:
        """Raise UsageError."""
        _refuse("search the log", "keep a local storage and feed the bus with relay(storage, bus)")

    async def list_event_types(self) -> list[str]:
        """Raise UsageError."""
        _refuse("list event types", "keep a local storage and feed the bus with relay(storage, bus)")


def _refuse(what: str, instead: str) -> NoReturn:
    raise UsageError(f"cannot {what} on a log on Redis; {instead}")
