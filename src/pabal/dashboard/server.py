"""Serve one dashboard with uvicorn, and print its address."""

from __future__ import annotations

import ipaddress
import secrets
import socket
from types import FrameType
from typing import Any, cast

import uvicorn

from pabal.dashboard.app import build
from pabal.observability.listening import resolve

_SHUTDOWN_SECONDS = 1
"""Seconds that open streams get to end at shutdown: one that the client does not read never closes."""


def run(target: Any, *, host: str, port: int, **options: Any) -> None:
    """Serve until Ctrl-C; see ``serve``."""
    options, token = ensure_token(host, options)
    app = build(target, **options)
    listener = listen(host, port)
    print(f"pabal dashboard: {address_of(host, listener.getsockname()[1], token)}", flush=True)
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
        server_header=False,
    )
    try:
        QuietServer(config).run(sockets=[listener])
    except KeyboardInterrupt:
        return  # the normal way to stop; uvicorn raises the signal again once everything is closed
    finally:
        listener.close()


class QuietServer(uvicorn.Server):
    """Shut down silently: on a second Ctrl-C or with an open page, uvicorn would print a traceback."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the streams of open pages, then shut down."""
        cast(Any, self.config.app).state.end_streams()
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Handle the first signal and ignore the others."""
        if not self.should_exit:
            super().handle_exit(sig, frame)


def ensure_token(host: str, options: dict[str, Any]) -> tuple[dict[str, Any], str | None]:
    """Return the options, with a generated token if machines other than this one have access."""
    token = options.get("token")
    if token is None and options.get("auth") is None and not _is_local(host):
        token = secrets.token_urlsafe(24)
    return {**options, "token": token}, token


def listen(host: str, port: int) -> socket.socket:
    """Bind the port, 0 for a free one. Raises UsageError if host or port is invalid, OSError if taken."""
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
    """Return the address to open; the token follows a ``#``, the part that browsers do not send.

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
