"""Who holds a subscription: taking it, keeping it, saving progress while it is held, giving it up."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from pabal.errors import StorageError
from pabal.ports.storage import Cursor, Progress, Start
from pabal.storage.sqlite import cursors
from pabal.storage.sqlite.faults import readable, storable
from pabal.storage.sqlite.job import Job
from pabal.storage.sqlite.transaction import Transaction
from pabal.storage.sqlite.writer import Writer


class Leases:
    """Hold subscriptions for one storage object, which is one *owner* among all who opened the file."""

    def __init__(self, writer: Writer, database: Path, owner: str) -> None:
        self._writer = writer
        self._database = database
        self._owner = owner
        self._held: dict[str, int] = {}
        """The epoch of each name that some bus of this object holds."""
        self._interrupted_counted = False

    def open(self, name: str, start: Start, epoch: int | None) -> asyncio.Future[Cursor | None]:
        """Take a subscription, anew with the ``epoch`` of its holder; None while another one has it."""
        held = [] if epoch is None else [epoch]
        taken = held.copy()

        def take(tx: Transaction) -> Cursor | None:
            # Decided in the writer's thread, where nobody can come in between.
            for earlier in taken:  # also what its group has undone, for another part of that had failed
                self._let_go(name, earlier)
            taken[:] = held
            if name in self._held:
                return None
            with readable(str(self._database)), storable():
                if not self._interrupted_counted:
                    cursors.count_interrupted(tx, self._database, self._owner)
                cursor = cursors.take(tx, name, start, self._owner, self._database)
            if cursor is not None:
                self._held[name] = cursor.epoch
                taken.append(cursor.epoch)
            tx.after_commit.append(self._note_interrupted_counted)
            return cursor

        def settle(opening: asyncio.Future[Cursor | None]) -> None:
            if opening.cancelled() or opening.exception() is not None:
                # Whoever asked will not come for it, or the commit failed.
                self._give_back(name, taken)

        opening = self._writer.submit(Job(action=take))
        opening.add_done_callback(settle)
        return opening

    def _note_interrupted_counted(self) -> None:
        self._interrupted_counted = True

    def _give_back(self, name: str, taken: list[int]) -> None:
        def give_back(tx: Transaction) -> None:
            # The job that fills ``taken`` may not have run yet; this one comes after it.
            for epoch in taken:
                self._release(tx, name, epoch)

        def given_back(future: asyncio.Future[None]) -> None:
            if not future.cancelled() and future.exception() is not None:
                for epoch in taken:  # a failure is nobody's to hear of; the lease runs out
                    self._let_go(name, epoch)

        try:
            giving_back = self._writer.submit(Job(action=give_back))
        except StorageError:
            return  # closed: the lease ends with the journal
        giving_back.add_done_callback(given_back)

    async def release(self, name: str, epoch: int) -> None:
        """Give a subscription up, so that another process can take it at once.

        Where that cannot be written, others take it when its lease is over, and this object at any time.
        """
        try:
            await self._writer.submit(Job(action=lambda tx: self._release(tx, name, epoch)))
        finally:
            self._let_go(name, epoch)

    def _release(self, tx: Transaction, name: str, epoch: int) -> None:
        self._let_go(name, epoch)
        cursors.release(tx, name, epoch, self._owner)

    def _let_go(self, name: str, epoch: int) -> None:
        """Forget that a subscription is held, unless another bus of this object has taken it since."""
        if self._held.get(name) == epoch:
            self._held.pop(name, None)

    async def note_halt(self, name: str, epoch: int, reason: str) -> bool:
        """Write down why a subscription has halted; False if ``epoch`` is over."""
        noted: bool = await self._writer.submit(
            Job(action=lambda tx: cursors.note_halt(tx, name, epoch, self._owner, reason))
        )
        return noted

    async def renew(self) -> list[str]:
        """Prolong the leases of everything held; return the names that were lost.

        One that was given up or taken anew before its turn came in the writer's queue is not lost.
        """
        held = dict(self._held)
        if not held:
            return []
        lost: list[str] = await self._writer.submit(
            Job(action=lambda tx: cursors.renew(tx, held, self._owner))
        )
        lost = [name for name in lost if self._held.get(name) == held[name]]
        for name in lost:
            self._let_go(name, held[name])
        return lost

    async def save(self, changes: Sequence[Progress]) -> list[str]:
        """Save progress in one transaction; return the names whose lease is lost."""
        lost: list[str] = await self._writer.submit(
            Job(action=lambda tx: cursors.save(tx, changes, self._owner))
        )
        for change in changes:
            if change.name in lost:
                self._let_go(change.name, change.epoch)
        return lost
