"""Check every request: its host, its origin, its user; and set the headers that restrict a page."""

from __future__ import annotations

import inspect
import ipaddress
from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pabal.dashboard.problems import Problem
from pabal.dashboard.sessions import COOKIE, Sessions
from pabal.dashboard.settings import DashboardSettings

HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'self'; form-action 'self'; frame-ancestors 'none'; require-trusted-types-for 'script'; "
        "trusted-types 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}
_PROXY_HEADERS = ("forwarded", "x-forwarded-for", "x-real-ip", "via")
_SAFE_METHODS = ("GET", "HEAD")
_PROTECTED_PREFIXES = ("/api/", "/metrics")
_PUBLIC_PATHS = ("/api/session", "/api/login")
"""Paths allowed without a login. Pages and scripts are allowed too, because they contain no data."""


class Guard:
    """Pass on permitted requests; answer all others with a status and a reason.

    A request must name a host that is ours, so that no foreign host name can be pointed at this server. A
    change must come from our own page. The user must be known: by a token, by the application's ``auth``, or
    by making the request from this machine.
    """

    def __init__(self, app: ASGIApp, settings: DashboardSettings, sessions: Sessions) -> None:
        self._app = app
        self._settings = settings
        self._sessions = sessions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse the request, or pass it on with ``scope["state"]["user"]`` set."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
            await send(message)

        request = Request(scope)
        try:
            self._check_host(request)
            self._check_origin(request)
            await self._check_user(request)
        except Problem as problem:
            await problem.response()(scope, receive, send_with_headers)
            return
        await self._app(scope, receive, send_with_headers)

    # -- host ----------------------------------------------------------------------------------------------

    def _check_host(self, request: Request) -> None:
        host = request.headers.get("host", "")
        if not self._is_allowed_host(_hostname_of(host)):
            raise Problem(
                421,
                "unknown_host",
                f"this dashboard is not configured for the host name {host!r}; if the name is "
                "right, add it to allowed_hosts (--allowed-host)",
            )

    def _is_allowed_host(self, name: str) -> bool:
        if name == "localhost" or _is_loopback(name):
            return True
        if name in (allowed.lower() for allowed in self._settings.allowed_hosts):
            return True
        # A numeric address cannot be abused for DNS rebinding: there is no name to point at this server.
        return self._settings.requires_user and _is_address(name)

    # -- origin --------------------------------------------------------------------------------------------

    def _check_origin(self, request: Request) -> None:
        """Refuse requests by scripts or forms on pages of other origins."""
        origin = request.headers.get("origin")
        if origin is not None:
            is_cross_site = _netloc_of(origin) != request.headers.get("host", "").lower()
        else:
            site = request.headers.get("sec-fetch-site", "none")
            is_navigation = (
                request.method in _SAFE_METHODS and request.headers.get("sec-fetch-mode") == "navigate"
            )
            is_cross_site = site not in ("none", "same-origin") and not is_navigation
        if is_cross_site:
            raise Problem(
                403, "cross_site", "this request comes from a page of another site; nothing was done"
            )

    # -- user ----------------------------------------------------------------------------------------------

    async def _check_user(self, request: Request) -> None:
        path = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
        user, has_bearer_token = await self._user_of(request)
        request.scope.setdefault("state", {})["user"] = user
        if not path.startswith(_PROTECTED_PREFIXES) or path in _PUBLIC_PATHS:
            return
        if user is None:
            if not self._settings.requires_user:
                raise Problem(
                    403,
                    "not_local",
                    "without a token this dashboard can be used only on the machine it runs on; start it "
                    "with a token, "
                    "or pass auth=",
                )
            raise Problem(401, "login_required", "log in first")
        # Browsers send cookies automatically, so a cookie needs a CSRF token that only our page has.
        if request.method not in _SAFE_METHODS and not has_bearer_token:
            csrf_token = request.headers.get("x-csrf-token", "")
            if not self._sessions.csrf_matches(user, csrf_token):
                raise Problem(
                    403, "csrf", "the page is too old, or not the dashboard's own; reload it and try again"
                )

    async def _user_of(self, request: Request) -> tuple[str | None, bool]:
        """Return the user, and whether a header identified them."""
        if self._settings.auth is not None:
            answer = self._settings.auth(request)
            # A proxy that knows nobody may send an empty name.
            return (await answer if inspect.isawaitable(answer) else answer) or None, False
        if self._settings.token is None:
            client = request.client
            # Behind a proxy every request comes from this machine, so forwarded ones are not trusted.
            is_proxied = any(name in request.headers for name in _PROXY_HEADERS)
            is_local = client is not None and _is_loopback(client.host) and not is_proxied
            return ("local" if is_local else None), False
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self._sessions.lockout_seconds() == 0.0:
            if self._sessions.is_token(token.strip()):
                return "token", True
            self._sessions.record_failure()
        return self._sessions.user_of(request.cookies.get(COOKIE, "")), False


def _netloc_of(origin: str) -> str | None:
    """Return host and port of an Origin header in lower case, or None if it is invalid."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return None


def _hostname_of(host: str) -> str:
    """Return the name in a Host header, without port and brackets, in lower case; empty if it is invalid."""
    try:
        return (urlsplit(f"//{host}").hostname or "").rstrip(".") if "@" not in host else ""
    except ValueError:
        return ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _is_loopback(name: str) -> bool:
    return _is_address(name) and ipaddress.ip_address(name).is_loopback
