"""Check the host and port that a server is to listen on, before anything is started."""

from __future__ import annotations

import socket
from typing import Any

from pabal.errors import UsageError

_LAST_PORT = 65535


def resolve(host: str, port: int) -> tuple[socket.AddressFamily, Any]:
    """Return the address family and address to bind; may block. Raises UsageError if either is invalid."""
    if not isinstance(port, int) or not 0 <= port <= _LAST_PORT:
        # The system would raise OverflowError, or nothing at all: it once took 70000 for 4464.
        raise UsageError(
            f"port is {port!r}; it must be a whole number from 0 (any free port) to {_LAST_PORT}"
        )
    try:
        family, _, _, _, address = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)[0]
    except socket.gaierror as error:
        raise UsageError(f"{host!r} is not a host to listen on: {error}") from error
    except UnicodeError as error:
        raise UsageError(
            f"{host!r} is not a host to listen on: a part of it is empty, or too long"
        ) from error
    return family, address
