"""Leases on subscriptions: take and renew them, save progress under them, release them.

A lease gives one owner the right to handle a subscription for some seconds. Each time a subscription is taken
its *epoch* increases, so that a previous holder can be told apart and no longer saves progress.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pabal.errors import StorageError
from pabal.ports.storage import Cursor, Progress, Start
from pabal.storage.sqlite import cursors
from pabal.storage.sqlite.faults import readable, storable
from pabal.storage.sqlite.job import Job
from pabal.storage.sqlite.transaction import Transaction
from pabal.storage.sqlite.writer import Writer


class _Held(NamedTuple):
    """A subscription that a bus of this object holds."""

    epoch: int
    loop: asyncio.AbstractEventLoop
    """The bus's event loop; if it was closed before the bus was stopped, another bus may take over."""


class Leases:
    """Hold subscriptions for one storage object: one *owner* among all that have the file open."""

    def __init__(self, writer: Writer, database: Path, owner: str) -> None:
        self._writer = writer
        self._database = database
        self._owner = owner
        self._held: dict[str, _Held] = {}
        """The subscriptions that buses of this object hold, by name."""
        self._interrupted_counted = False

    def open(self, name: str, start: Start, epoch: int | None) -> asyncio.Future[Cursor | None]:
        """Take a subscription; the future gives None while another holder has it.

        With its own ``epoch``, a holder takes the subscription again without releasing it in between.
        """
        held = [] if epoch is None else [epoch]
        taken = held.copy()
        loop = asyncio.get_running_loop()

        def take(tx: Transaction) -> Cursor | None:
            # Decide in the writer thread, where nothing can happen in between.
            for earlier in taken:  # also by an earlier run of this job, undone because another job failed
                self._forget(name, earlier)
            taken[:] = held
            holder = self._held.get(name)
            if holder is not None and not holder.loop.is_closed():
                return None
            with readable(str(self._database)), storable():
                if not self._interrupted_counted:
                    cursors.count_interrupted(tx, self._database, self._owner)
                cursor = cursors.take(tx, name, start, self._owner, self._database)
            if cursor is not None:
                self._held[name] = _Held(cursor.epoch, loop)
                taken.append(cursor.epoch)
            tx.after_commit.append(self._note_interrupted_counted)
            return cursor

        def settle(opening: asyncio.Future[Cursor | None]) -> None:
            if opening.cancelled() or opening.exception() is not None:
                # The caller was cancelled and will not use the subscription, or the commit failed.
                self._give_back(name, taken)

        opening = self._writer.submit(Job(action=take))
        opening.add_done_callback(settle)
        return opening

    def _note_interrupted_counted(self) -> None:
        self._interrupted_counted = True

    def _give_back(self, name: str, taken: list[int]) -> None:
        def give_back(tx: Transaction) -> None:
            # Read `taken` only here: the job that fills it may run after `_give_back`, but before this job.
            for epoch in taken:
                self._release(tx, name, epoch)

        def given_back(future: asyncio.Future[None]) -> None:
            if not future.cancelled() and future.exception() is not None:
                for epoch in taken:  # nobody waits for this failure; the lease expires by itself
                    self._forget(name, epoch)

        try:
            giving_back = self._writer.submit(Job(action=give_back))
        except StorageError:
            return  # the storage is closed, and the lease ended with its journal
        giving_back.add_done_callback(given_back)

    async def release(self, name: str, epoch: int) -> None:
        """Release a subscription, so that another process can take it at once.

        If that cannot be saved, other processes can take it when the lease expires, and this object at once.
        """
        try:
            await self._writer.submit(Job(action=lambda tx: self._release(tx, name, epoch)))
        finally:
            self._forget(name, epoch)

    def _release(self, tx: Transaction, name: str, epoch: int) -> None:
        self._forget(name, epoch)
        cursors.release(tx, name, epoch, self._owner)

    def _forget(self, name: str, epoch: int) -> None:
        """Forget that a subscription is held, unless this object has since taken it in another epoch."""
        held = self._held.get(name)
        if held is not None and held.epoch == epoch:
            self._held.pop(name, None)

    async def note_halt(self, name: str, epoch: int, reason: str) -> bool:
        """Record why a subscription has halted; False if the holder of ``epoch`` has lost it."""
        noted: bool = await self._writer.submit(
            Job(action=lambda tx: cursors.note_halt(tx, name, epoch, self._owner, reason))
        )
        return noted

    async def renew(self) -> list[str]:
        """Renew the leases of all subscriptions held; return the names of those that are lost.

        A subscription that was released or taken again while the renewal was queued does not count as lost.
        """
        of_buses = dict(self._held)
        held = {name: one.epoch for name, one in of_buses.items() if not one.loop.is_closed()}
        if not held:
            return []
        lost: list[str] = await self._writer.submit(
            Job(action=lambda tx: cursors.renew(tx, held, self._owner))
        )
        lost = [name for name in lost if self._held.get(name) == of_buses[name]]
        for name in lost:
            self._forget(name, held[name])
        return lost

    async def save(self, changes: Sequence[Progress]) -> list[str]:
        """Save progress in one transaction; return the names of subscriptions whose lease is lost."""
        lost: list[str] = await self._writer.submit(
            Job(action=lambda tx: cursors.save(tx, changes, self._owner))
        )
        for change in changes:
            if change.name in lost:
                self._forget(change.name, change.epoch)
        return lost
