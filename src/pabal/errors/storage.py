"""Errors of the file or the disk: an operator must look."""

from __future__ import annotations

from typing import Any

from pabal.errors.base import PabalError


class StorageError(PabalError):
    """Report trouble with the file or the disk under the log. Fields: ``path, reason``."""

    path: str
    reason: str
    template = "{path}: {reason}"


class StorageClosedError(StorageError):
    """Report a call on a log that was closed, as by the bus that keeps it. Fields: ``path, reason``."""

    template = "{path}: this log is closed; open it again, or start the bus that keeps it"


class StorageUnavailableError(StorageError):
    """Report a file that cannot be opened, read or written now. Fields: ``path, reason``.

    Nothing of the refused operation is visible. The storage goes on by itself once the cause is gone.
    """

    template = "{path}: {reason}; nothing was written. Fix path, disk or permissions, then try again"


class NotAPabalDatabaseError(StorageError):
    """Report a file that another program wrote. Fields: ``path, reason``."""

    template = "{path} is not a pabal database ({reason}); it was left untouched. Choose another path"


class NewerSchemaError(StorageError):
    """Report a file written by a newer pabal. Fields: ``path, reason, found, supported``."""

    found: int
    supported: int
    template = "{path} has schema version {found}, beyond {supported}; it was left untouched. Upgrade pabal"


class CorruptLogError(StorageError):
    """Report bytes that are not what was written. Fields: ``path, position, reason``.

    An altered event is never served. The position is None where what is damaged is no event, but the file.
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
