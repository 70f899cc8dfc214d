"""Who has access, from where, and that requests from other sites can do nothing."""

from __future__ import annotations

import sys
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Mount

from pabal import InMemoryEventBus, InMemoryEventStorage
from pabal.dashboard import create_dashboard
from pabal.dashboard.guard import HEADERS
from pabal.dashboard.sessions import LIFETIME, Sessions
from pabal.errors import MissingExtraError, UsageError
from tests.dashboard.support import TOKEN, action_headers, client

RETRY = {"ids": [1]}


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "a@127.0.0.1", "[::1", ""]
)
async def test_an_unknown_host_header_is_rejected(host: str) -> None:
    """A foreign page could point its own host name at this machine and read the log (DNS rebinding)."""
    async with client(InMemoryEventStorage()) as http:
        response = await http.get("/api/report", headers={"host": host})
        assert (response.status_code, response.json()["error"]["code"]) == (421, "unknown_host")
        assert (await http.get("/", headers={"host": host})).status_code == 421


@pytest.mark.parametrize("host", ["localhost:9", "127.0.0.1:8420", "[::1]:8420", "127.0.0.2", "LOCALHOST"])
async def test_the_names_of_this_machine_are_accepted_as_host(host: str) -> None:
    """The dashboard could not be opened under one of its machine's own names."""
    async with client(InMemoryEventStorage()) as http:
        assert (await http.get("/api/report", headers={"host": host})).status_code == 200


async def test_another_host_name_must_be_allowed() -> None:
    """An operator could not give the dashboard a host name, or anyone could."""
    async with client(InMemoryEventStorage(), allowed_hosts=("ops.example.com",)) as http:
        assert (await http.get("/api/report", headers={"host": "ops.example.com"})).status_code == 200
        assert (await http.get("/api/report", headers={"host": "10.0.0.5"})).status_code == 421


async def test_a_number_as_host_is_accepted_only_if_users_must_log_in() -> None:
    """Nobody could open the dashboard under the address of its machine, or pages without a login leave it."""
    number = {"host": "10.0.0.5:8420"}
    async with client(InMemoryEventStorage(), token=TOKEN) as http:
        assert (await http.get("/api/session", headers=number)).status_code == 200
        assert (await http.get("/api/session", headers={"host": "evil.example"})).status_code == 421
    async with client(InMemoryEventStorage()) as http:
        assert (await http.get("/api/session", headers=number)).status_code == 421


@pytest.mark.parametrize(
    ("method", "mode", "status"),
    [("GET", "navigate", 200), ("GET", "no-cors", 403), ("POST", "navigate", 403)],
)
async def test_another_site_can_link_to_the_dashboard_and_nothing_else(
    method: str, mode: str, status: int
) -> None:
    """A link in a chat would open an error, or a foreign page read or change something."""
    site = {"sec-fetch-site": "cross-site", "sec-fetch-mode": mode}
    async with client(InMemoryEventStorage()) as http:
        for path in ("/", "/api/report"):
            assert (await http.request(method, path, headers=site)).status_code == status


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:9999"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
async def test_a_cross_site_post_is_rejected(bus: InMemoryEventBus, headers: dict[str, str]) -> None:
    """A foreign page could retry dead letters through the browser of a user who opens it."""
    async with client(bus, allow_actions=True) as http:
        mine = await action_headers(http)
        del mine["origin"]
        response = await http.post("/api/dead-letters/discard", json=RETRY, headers={**mine, **headers})
        assert (response.status_code, response.json()["error"]["code"]) == (403, "cross_site")
    assert len(await bus.dead_letters.list()) == 2


@pytest.mark.parametrize("given", [{}, {"x-csrf-token": ""}, {"x-csrf-token": "0" * 64}])
async def test_an_action_requires_the_csrf_token_of_the_session(
    bus: InMemoryEventBus, given: dict[str, str]
) -> None:
    """A form in an old browser, which sends no Origin, could act with the user's cookie."""
    async with client(bus, allow_actions=True) as http:
        response = await http.post("/api/dead-letters/discard", json=RETRY, headers=given)
        assert (response.status_code, response.json()["error"]["code"]) == (403, "csrf")
    assert len(await bus.dead_letters.list()) == 2


async def test_a_token_in_a_header_needs_no_csrf_token_and_one_in_a_cookie_does(
    bus: InMemoryEventBus,
) -> None:
    """A script could not act, or a form in an old browser could, with the user's cookie."""
    async with client(bus, token=TOKEN, allow_actions=True) as http:
        by_header = {"authorization": f"Bearer {TOKEN}"}
        acted = await http.post("/api/dead-letters/discard", json=RETRY, headers=by_header)
        assert (acted.status_code, acted.json()) == (200, {"discarded": 1})
        assert (await http.post("/api/login", json={"token": TOKEN})).status_code == 200
        refused = await http.post("/api/dead-letters/discard", json={"ids": [2]})
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "csrf")
    assert len(await bus.dead_letters.list()) == 1


async def test_the_session_is_sent_to_the_dashboard_alone() -> None:
    """Other applications on the host would get a cookie with which they can act."""
    async with client(InMemoryEventStorage(), token=TOKEN) as http:
        alone = (await http.post("/api/login", json={"token": TOKEN})).headers["set-cookie"]
    app = Starlette(routes=[Mount("/ops", create_dashboard(InMemoryEventStorage(), token=TOKEN))])
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="https://127.0.0.1") as http:
        mounted = (await http.post("/ops/api/login", json={"token": TOKEN})).headers["set-cookie"]
    assert {"path=/api", "secure"} & set(alone.lower().split("; ")) == {"path=/api"}
    assert {"path=/ops/api", "secure"} <= set(mounted.lower().split("; "))


async def test_without_a_token_only_local_clients_are_served() -> None:
    """Anyone who can reach the port could read the log."""
    async with client(InMemoryEventStorage(), peer="10.0.0.9") as http:
        assert (await http.get("/api/report")).status_code == 403
        assert "csrf" not in (await http.get("/api/session")).json()
    async with client(InMemoryEventStorage()) as http:
        passed_on = await http.get("/api/report", headers={"x-forwarded-for": "203.0.113.9"})
    assert passed_on.status_code == 403


async def test_login_accepts_the_token_and_rejects_a_wrong_one() -> None:
    """A guess would open the dashboard, or the right token would not."""
    async with client(InMemoryEventStorage(), peer="10.0.0.9", token=TOKEN) as http:
        assert (await http.get("/api/report")).status_code == 401
        wrong = await http.post("/api/login", json={"token": TOKEN + "x"})
        assert (wrong.status_code, wrong.json()["error"]["code"]) == (401, "wrong_token")
        assert (await http.get("/api/report")).status_code == 401
        right = await http.post("/api/login", json={"token": TOKEN})
        cookie = right.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=strict" in cookie
        assert (await http.get("/api/report")).status_code == 200
        assert (await http.post("/api/logout", headers=await action_headers(http))).status_code == 200
        assert (await http.get("/api/report")).status_code == 401
        by_header = await http.get("/api/report", headers={"authorization": f"Bearer {TOKEN}"})
        assert by_header.status_code == 200


async def test_cookies_of_other_services_on_the_host_do_not_end_the_session() -> None:
    """Other services on the same machine could lock everybody out, because cookies ignore ports."""
    async with client(InMemoryEventStorage(), token=TOKEN) as http:
        answered = await http.post("/api/login", json={"token": TOKEN})
        ours = answered.headers["set-cookie"].partition(";")[0]
        http.cookies.clear()
        for others in ("a,b=1", "a b", "x=\x01", '{"k": "v; w"}'):
            for header in (f"{others}; {ours}", f"{ours}; {others}"):
                assert (await http.get("/api/report", headers={"cookie": header})).status_code == 200, header
        assert (await http.get("/api/report", headers={"cookie": "a,b=1"})).status_code == 401


async def test_guessing_tokens_by_header_is_rate_limited() -> None:
    """Guessing would be slowed down in the form, but not for programs."""
    async with client(InMemoryEventStorage(), token=TOKEN) as http:
        for number in range(10):
            wrong = await http.get("/api/report", headers={"authorization": f"Bearer guess-{number}"})
            assert wrong.status_code == 401
        right = await http.get("/api/report", headers={"authorization": f"Bearer {TOKEN}"})
        typed = await http.post("/api/login", json={"token": TOKEN})
    assert (right.status_code, typed.status_code) == (401, 429)


async def test_login_without_a_configured_token_answers_no_login() -> None:
    """A page that was open before a restart without token would say that the token is wrong."""
    async with client(InMemoryEventStorage()) as http:
        answered = await http.post("/api/login", json={"token": TOKEN})
    assert (answered.status_code, answered.json()["error"]["code"]) == (409, "no_login")


async def test_guessing_tokens_at_login_is_rate_limited() -> None:
    """A short token could be found by trying."""
    async with client(InMemoryEventStorage(), token=TOKEN) as http:
        answers = [
            (await http.post("/api/login", json={"token": f"guess-{n}"})).status_code for n in range(11)
        ]
        assert answers == [401] * 10 + [429]
        assert (await http.post("/api/login", json={"token": TOKEN})).status_code == 429


def test_session_cookies_expire_and_cannot_be_forged() -> None:
    """A stolen cookie would work forever, or one of another dashboard would be accepted."""
    now = [1000.0]
    sessions = Sessions("secret", TOKEN, clock=lambda: now[0])
    cookie = sessions.issue("kim")
    assert sessions.user_of(cookie) == "kim"
    assert sessions.user_of(cookie.replace("kim", "lee")) is None
    assert Sessions("other", TOKEN).user_of(cookie) is None
    assert Sessions("secret", "another-token-entirely").user_of(cookie) is None
    for text in ("", ".", "a.b.c", "kim.99999999999."):
        assert sessions.user_of(text) is None
    now[0] += LIFETIME + 1
    assert sessions.user_of(cookie) is None


async def test_an_auth_function_decides_who_is_admitted(bus: InMemoryEventBus) -> None:
    """An application could not use its own login, or the audit log not know who acted."""

    async def auth(request: Request) -> str | None:
        return request.headers.get("x-user")

    async with client(bus, peer="10.0.0.9", auth=auth, allow_actions=True, payloads="full") as http:
        assert (await http.get("/api/report")).status_code == 401
        assert (await http.get("/api/report", headers={"x-user": ""})).status_code == 401
        http.headers["x-user"] = "kim"
        headers = await action_headers(http)
        assert (await http.post("/api/dead-letters/discard", json=RETRY, headers=headers)).status_code == 200
        assert (await http.get("/api/audit")).json()["items"][0]["actor"] == "kim (dashboard)"
        lee = {**headers, "x-user": "lee"}
        assert (
            await http.post("/api/dead-letters/discard", json={"ids": [2]}, headers=lee)
        ).status_code == 403


async def test_every_response_carries_the_security_headers() -> None:
    """A payload that looks like markup would run as a script."""
    async with client(InMemoryEventStorage()) as http:
        for path in (
            "/",
            "/events/x",
            "/static/js/main.js",
            "/api/report",
            "/api/nothing",
            "/static/nothing",
        ):
            response = await http.get(path)
            for name, value in HEADERS.items():
                assert response.headers[name] == value, (path, name)
        page = (await http.get("/")).text
    assert "unsafe" not in HEADERS["content-security-policy"]
    assert " on" not in page
    assert "style=" not in page
    assert "<script>" not in page


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/api/events?type=a%20b", 400, "filter"),
        ("/api/events?since=yesterday", 400, "filter"),
        ("/api/events?before=x", 400, "filter"),
        ("/api/events?since=2026-01-02&until=2026-01-01", 400, "filter"),
        ("/api/dead-letters?after=-1", 400, "filter"),
        ("/api/events/no-such-event", 404, "no_event"),
        ("/api/streams/order/no-such-order", 404, "no_stream"),
        ("/api/streams/-/no-such-order", 404, "no_stream"),
        ("/api/dead-letters/77", 404, "gone"),
        ("/api/nothing", 404, "no_path"),
        ("/api/dead-letters/retry", 405, "method"),
        ("/static/../settings.py", 404, None),
        ("/static/%2e%2e/settings.py", 404, None),
    ],
)
async def test_invalid_urls_are_answered_with_a_reason(path: str, status: int, code: str | None) -> None:
    """A typing error in the address would end in a blank page or a server error."""
    async with client(InMemoryEventStorage()) as http:
        response = await http.get(path)
        if code is None:
            assert "DashboardSettings" not in response.text
            return
        assert (response.status_code, response.json()["error"]["code"]) == (status, code)
        assert response.json()["error"]["message"]


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        ({"content": b"ids=1", "headers": {"content-type": "text/plain"}}, 415),
        ({"content": b"{", "headers": {"content-type": "application/json"}}, 400),
        ({"json": {"ids": "one"}}, 400),
        ({"content": b"[" * (5 << 20), "headers": {"content-type": "application/json"}}, 413),
    ],
)
async def test_invalid_request_bodies_are_answered_with_a_reason(
    bus: InMemoryEventBus, sent: dict[str, Any], status: int
) -> None:
    """A malformed request would end in a server error, or fill the server's memory."""
    async with client(bus, allow_actions=True) as http:
        headers = {**await action_headers(http), **sent.pop("headers", {})}
        response = await http.post("/api/dead-letters/retry", headers=headers, **sent)
    assert response.status_code == status


@pytest.mark.parametrize(
    "options",
    [{"token": "short"}, {"secret": ""}, {"payloads": "some"}, {"allowed_hosts": "a.b"}, {"colour": 1}],
)
def test_invalid_dashboard_options_are_rejected(options: dict[str, Any]) -> None:
    """A typing error in an option would leave the dashboard open."""
    with pytest.raises(UsageError):
        create_dashboard(InMemoryEventStorage(), **options)


async def test_metrics_require_authorization(bus: InMemoryEventBus) -> None:
    """Anyone who can reach the port could read business figures."""
    async with client(bus, peer="10.0.0.9", token=TOKEN, metrics=True) as http:
        assert (await http.get("/metrics/")).status_code == 401
        known = await http.get("/metrics/", headers={"authorization": f"Bearer {TOKEN}"})
        assert known.status_code == 200
        assert 'bus="default",subscription="scale"' in known.text
    with pytest.raises(UsageError):
        create_dashboard(InMemoryEventStorage(), metrics=True)


def test_metrics_without_the_extra_name_the_package_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user who installed only the dashboard would see the name of an unknown module."""
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    monkeypatch.delitem(sys.modules, "pabal.observability.prometheus", raising=False)
    with pytest.raises(MissingExtraError, match=r"the metrics endpoint.*pabal\[prometheus\]"):
        create_dashboard(InMemoryEventBus(), metrics=True)
