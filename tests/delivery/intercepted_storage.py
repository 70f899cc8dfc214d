"""A storage that lets a test act between a call and its result, where the engine's races happen."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from pabal import InMemoryEventStorage
from pabal.domain.envelope import StoredRecord
from pabal.ports.storage import Control, Cursor, DeadLetterRecord, Page, Progress, Start, SubscriptionRecord

Act = Callable[[], Awaitable[object]]


class InterceptedStorage(InMemoryEventStorage):
    """Run each action in ``after_call`` once, when the call has its result and before the caller gets it."""

    def __init__(self) -> None:
        super().__init__()
        self.after_call: dict[str, Act] = {}

    async def _run_action(self, call: str) -> None:
        act = self.after_call.pop(call, None)
        if act is not None:
            await act()

    async def read_page(self, *arguments: Any, **named: Any) -> Page:
        page = await super().read_page(*arguments, **named)
        await self._run_action("read_page")
        return page

    async def read_positions(self, positions: Sequence[int]) -> list[StoredRecord]:
        rows = await super().read_positions(positions)
        await self._run_action("read_positions")
        return rows

    async def parked_positions(self, name: str, after: int, upto: int) -> list[int]:
        positions = await super().parked_positions(name, after, upto)
        await self._run_action("parked_positions")
        return positions

    async def queued_positions(self, name: str, key: str, limit: int) -> list[int]:
        positions = await super().queued_positions(name, key, limit)
        await self._run_action("queued_positions")
        return positions

    async def list_dead_letters(self, **filters: Any) -> list[DeadLetterRecord]:
        letters = await super().list_dead_letters(**filters)
        await self._run_action("list_dead_letters")
        return letters

    async def list_subscriptions(self) -> list[SubscriptionRecord]:
        records = await super().list_subscriptions()
        await self._run_action("list_subscriptions")
        return records

    async def begin_retry(
        self, dead_letter_id: int, payload: bytes | None, now: float
    ) -> DeadLetterRecord | None:
        letter = await super().begin_retry(dead_letter_id, payload, now)
        await self._run_action("begin_retry")
        return letter

    async def discard_dead_letter(self, dead_letter_id: int) -> DeadLetterRecord:
        letter = await super().discard_dead_letter(dead_letter_id)
        await self._run_action("discard_dead_letter")
        return letter

    async def read_controls(self, names: Sequence[str]) -> list[Control]:
        controls = await super().read_controls(names)
        await self._run_action("read_controls")
        return controls

    async def save_progress(self, changes: Sequence[Progress]) -> list[str]:
        lost = await super().save_progress(changes)
        await self._run_action("save_progress")
        return lost

    async def reset_subscription(self, name: str, start: Start, *, epoch: int | None = None) -> int:
        position = await super().reset_subscription(name, start, epoch=epoch)
        await self._run_action("reset_subscription")
        return position

    async def pause_subscription(self, name: str) -> bool:
        paused = await super().pause_subscription(name)
        await self._run_action("pause_subscription")
        return paused

    def open_subscription(
        self, name: str, start: Start, *, epoch: int | None = None
    ) -> Awaitable[Cursor | None]:
        opening = super().open_subscription(name, start, epoch=epoch)

        async def answer() -> Cursor | None:
            cursor = await opening
            await self._run_action("open_subscription")
            return cursor

        return answer() if "open_subscription" in self.after_call else opening

    async def release_subscription(self, name: str, epoch: int) -> None:
        await super().release_subscription(name, epoch)
        await self._run_action("release_subscription")
