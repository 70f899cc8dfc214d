"""Serve one dashboard with uvicorn, and say where."""

from __future__ import annotations

import ipaddress
import secrets
import socket
from types import FrameType
from typing import Any, cast

import uvicorn

from pabal.dashboard.app import build
from pabal.observability.listening import resolve

_GRACE = 1
"""Seconds that open streams get at the end: one that is not read does not close by itself."""


def run(target: Any, *, host: str, port: int, **options: Any) -> None:
    """Serve until Ctrl-C; see ``serve``."""
    options, token = with_token(host, options)
    app = build(target, **options)
    listener = listen(host, port)
    print(f"pabal dashboard: {address_of(host, listener.getsockname()[1], token)}", flush=True)
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, timeout_graceful_shutdown=_GRACE, server_header=False
    )
    try:
        OnceInterrupted(config).run(sockets=[listener])
    except KeyboardInterrupt:
        return  # this is how it is ended; uvicorn raises the signal again once everything is closed
    finally:
        listener.close()


class OnceInterrupted(uvicorn.Server):
    """End without a word: a second Ctrl-C, or an open page, would have uvicorn break off with a traceback."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let open pages go, and end."""
        cast(Any, self.config.app).state.end_streams()
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Hear the first signal; the others have nothing to add."""
        if not self.should_exit:
            super().handle_exit(sig, frame)


def with_token(host: str, options: dict[str, Any]) -> tuple[dict[str, Any], str | None]:
    """Return the options with a token, where others than this machine could come in."""
    token = options.get("token")
    if token is None and options.get("auth") is None and not _is_local(host):
        token = secrets.token_urlsafe(24)
    return {**options, "token": token}, token


def listen(host: str, port: int) -> socket.socket:
    """Take the port, 0 for a free one. Raises UsageError for what is no host or port, OSError if taken."""
    family, address = resolve(host, port)
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        listener.listen(128)
    except BaseException:
        listener.close()
        raise
    return listener


def address_of(host: str, port: int, token: str | None) -> str:
    """Return what to open; the token stands behind a ``#``, which browsers keep to themselves.

    >>> address_of("127.0.0.1", 8420, None), address_of("::", 80, "secret")
    ('http://127.0.0.1:8420/', 'http://[::1]:80/#token=secret')
    """
    name = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    name = f"[{name}]" if ":" in name else name
    return f"http://{name}:{port}/" + (f"#token={token}" if token else "")


def _is_local(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
