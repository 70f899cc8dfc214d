"""Errors of a broker, the server that processes share."""

from __future__ import annotations

from typing import Any

from pabal.errors.storage import StorageError
from pabal.errors.usage import UsageError


class BrokerError(StorageError):
    """Report trouble with the server that keeps the log. Fields: ``path, reason``.

    ``path`` is the server's address, without user and password.
    """

    template = "{path}: {reason}"


class BrokerUnavailableError(BrokerError):
    """Report a server that cannot be reached, or refuses to work. Fields: ``path, reason, was_connected``.

    Whether the operation was carried out is unknown; publishing the same event again is harmless. If
    ``was_connected`` is False, there never was a connection, and nothing was sent.
    """

    was_connected: bool
    template = (
        "{path}: {reason}; it is unknown whether the last call took effect. "
        "Repeat it once the server answers: the same event is stored only once"
    )
    never_connected = "{path}: {reason}; nothing was sent. Check the server and the URL, then try again"

    def __init__(self, detail: str = "", /, **fields: Any) -> None:
        if not fields.setdefault("was_connected", True):
            self.template = self.never_connected
        super().__init__(detail, **fields)


class PartitionCountError(UsageError):
    """Report a log that was created with another number of partitions. Fields: ``path, found, wanted``."""

    path: str
    found: int
    wanted: int
    template = (
        "{path}: the log has another number of partitions ({found}, not {wanted}); it is fixed when the log "
        "is created, because it decides the partition of each key. Leave partitions out, or use another "
        "namespace"
    )
