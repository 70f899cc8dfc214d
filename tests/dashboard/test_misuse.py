"""Malformed requests are answered as such, not as an error of the server."""

from __future__ import annotations

import pytest

from pabal import InMemoryEventBus
from pabal.operations import operations_of
from tests.dashboard.support import action_headers, client

TOO_MUCH = 10**25
"""More than any log can count to."""


async def answer(bus: InMemoryEventBus, path: str, body: bytes, **headers: str) -> tuple[int, str]:
    """Send a change like a page of the dashboard, with one thing wrong; return the answer."""
    async with client(bus, allow_actions=True) as http:
        own = {**await action_headers(http), "content-type": "application/json", **headers}
        answered = await http.post(path, content=body, headers=own)
        return answered.status_code, answered.json()["error"]["code"]


@pytest.mark.parametrize("path", ["/api/dead-letters/retry", "/api/dead-letters/discard"])
async def test_a_number_beyond_every_log_is_no_damage(bus: InMemoryEventBus, path: str) -> None:
    """The page would report a damaged log, and advise to restore a backup."""
    assert await answer(bus, path, b'{"ids": [%d]}' % TOO_MUCH) == (404, "gone")


async def test_a_too_deeply_nested_body_is_rejected(bus: InMemoryEventBus) -> None:
    """Any user could fill the application's log with tracebacks."""
    deep = b'{"revision": "x", "payload": {"a": %s}}' % (b"[" * 100_000)
    assert await answer(bus, "/api/dead-letters/1/edit", deep) == (400, "body")


async def test_a_start_time_out_of_range_is_rejected(bus: InMemoryEventBus) -> None:
    """A local time before year 1 in UTC would be answered as a server error."""
    body = b'{"name":"scale","confirm":"scale","watermark":0,"start":"0001-01-01T00:00+14:00"}'
    assert await answer(bus, "/api/subscriptions/reset", body) == (400, "start")


async def test_an_invalid_origin_header_counts_as_another_site(bus: InMemoryEventBus) -> None:
    """An unparsable header would raise an exception instead of being refused."""
    path, body = "/api/subscriptions/pause", b'{"name": "scale"}'
    assert await answer(bus, path, body, origin="http://[::1") == (403, "cross_site")


async def test_rejected_requests_are_not_recorded_in_the_audit_log(bus: InMemoryEventBus) -> None:
    """The audit log would fill with actions that were never possible."""
    await answer(bus, "/api/dead-letters/discard", b'{"ids": [%d]}' % TOO_MUCH)
    assert await operations_of(bus).audit() == []
