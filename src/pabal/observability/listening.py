"""Where a server is to listen: said wrong, it is told before anything is begun."""

from __future__ import annotations

import socket
from typing import Any

from pabal.errors import UsageError

_LAST_PORT = 65535


def resolve(host: str, port: int) -> tuple[socket.AddressFamily, Any]:
    """Return the family and the address to bind; may block. Raises UsageError for what is no host or port."""
    if not isinstance(port, int) or not 0 <= port <= _LAST_PORT:
        # The system's own word is an OverflowError, or none: it took 70000 for 4464.
        raise UsageError(f"port is {port!r}; it must be a whole number from 0 (a free one) to {_LAST_PORT}")
    try:
        family, _, _, _, address = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)[0]
    except socket.gaierror as error:
        raise UsageError(f"{host!r} is no host to listen on: {error}") from error
    except UnicodeError as error:
        raise UsageError(f"{host!r} is no host to listen on: a part of it is empty, or too long") from error
    return family, address
