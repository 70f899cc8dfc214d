"""A server's URL: mask it for display, and make connections from it."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from redis.asyncio import ConnectionPool

from pabal.errors import UsageError

_SCHEMES = ("redis", "rediss", "valkey", "valkeys", "unix")
_OURS = {"protocol": 2, "decode_responses": False, "socket_timeout": None}
"""Connection settings that pabal fixes, even if a URL shared with other programs sets them."""


def masked(url: str) -> str:
    """Return a server's URL without user, password and settings, fit for logs.

    >>> masked("rediss://risk:secret@10.0.0.1:6379/0?group=risk")
    'rediss://10.0.0.1:6379/0'

    If a password is not escaped, part of it may be taken for the path; then only the scheme is shown.

    >>> masked("redis://risk:half/other@10.0.0.1:6379/0")
    'redis://…'
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        return f"{url.partition(':')[0]}://…"
    if "@" in f"{parts.path}{parts.query}{parts.fragment}":
        return f"{parts.scheme}://…"
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}"


def for_client(url: str) -> str:
    """Return the URL with a Redis scheme: the client does not know Valkey's schemes.

    >>> for_client("valkeys://10.0.0.1:6379/0")
    'rediss://10.0.0.1:6379/0'
    """
    scheme, mark, rest = url.partition(":")
    return scheme.lower().replace("valkey", "redis") + mark + rest


def pool_of(url: str, address: str) -> ConnectionPool:
    """Return a pool that makes connections to a server. Raises UsageError for an invalid URL."""
    try:
        parts = urlsplit(url)
        pool = ConnectionPool.from_url(for_client(url), socket_connect_timeout=5.0, client_name="pabal")
        pool.connection_kwargs.update(_OURS)
        pool.make_connection()  # type: ignore[no-untyped-call]
    except (ValueError, TypeError) as error:
        raise UsageError(f"{address!r} is not the URL of a server: {_why_no_url(error, address)}") from None
    if parts.scheme != "unix" and not re.fullmatch(r"/?\d*", parts.path):
        raise UsageError(
            f"{address!r} is not the URL of a server: the path after the host must be the number of a "
            "database"
        )
    return pool


def _why_no_url(error: Exception, address: str) -> str:
    """Return what is wrong with a URL, without quoting any part that could belong to a password."""
    if address.partition("://")[0] not in _SCHEMES:
        return "it begins with redis://, rediss:// (TLS), valkey://, valkeys:// (TLS) or unix://"
    unknown = re.search(r"unexpected keyword argument '(\w+)'", str(error))
    if unknown is not None and not address.endswith("…"):
        return f"neither pabal nor the client knows the setting {unknown[1]!r}"
    if str(error).startswith("Invalid value for"):
        return str(error)
    return "the host or the port cannot be read; percent-encode the password, for example %2F for /"
