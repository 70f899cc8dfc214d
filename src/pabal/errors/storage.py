"""Errors of the file or the disk, which need an operator."""

from __future__ import annotations

from typing import Any

from pabal.errors.base import PabalError


class StorageError(PabalError):
    """Report trouble with the file or disk of the log. Fields: ``path, reason``."""

    path: str
    reason: str
    template = "{path}: {reason}"


class StorageClosedError(StorageError):
    """Report a call on a closed log, closed for example by its bus. Fields: ``path, reason``."""

    template = "{path}: the log is closed; open it again, or start the bus that uses it"


class StorageUnavailableError(StorageError):
    """Report a file that cannot be opened, read or written now. Fields: ``path, reason``.

    Nothing of the refused operation is visible. Once the cause is gone, the storage works again by itself.
    """

    template = "{path}: {reason}; nothing was written. Fix path, disk or permissions, then try again"


class NotAPabalDatabaseError(StorageError):
    """Report a file that was written by another program. Fields: ``path, reason``."""

    template = "{path} is not a pabal database ({reason}); it was left untouched. Choose another path"


class NewerSchemaError(StorageError):
    """Report a file written by a newer pabal. Fields: ``path, reason, found, supported``."""

    found: int
    supported: int
    template = (
        "{path} has schema version {found}, but only versions up to {supported} are supported; "
        "it was left untouched. Upgrade pabal"
    )


class CorruptLogError(StorageError):
    """Report bytes that differ from what was written. Fields: ``path, position, reason``.

    An altered event is never returned. The position is None if the damage is in the file and not in an event.
    """

    position: int | None
    template = (
        "{path}: the log is damaged at position {position} ({reason}); the event is not served. "
        "Restore a backup, or copy what is intact with backup() and check()"
    )
    of_the_file = "{path}: the file of the log is damaged ({reason}). Restore a backup"

    def __init__(self, detail: str = "", /, **fields: Any) -> None:
        if fields.get("position") is None:
            self.template = self.of_the_file
        super().__init__(detail, **fields)


class CorruptDeadLetterError(CorruptLogError):
    """Report a dead letter that differs from what was written; its event in the log may be intact.

    Fields: ``path, position, dead_letter_id, reason``.
    """

    dead_letter_id: int
    template = (
        "{path}: dead letter {dead_letter_id}, of the event at position {position}, is damaged ({reason}) "
        "and not served. Discard it; the event itself may be intact"
    )
