"""What the pages are told about the session, and about what they do not show."""

from __future__ import annotations

import pytest

from pabal import InMemoryEventBus
from tests.dashboard.support import TOKEN, Shipped, client


async def test_a_session_says_whether_there_is_a_login_and_a_row_has_no_metadata(
    bus: InMemoryEventBus,
) -> None:
    """A page would offer to log out where nobody logs in, or show an unknown user what it should not."""
    await bus.publish(Shipped("p-9", 1, metadata={"trace": "t-1"}))
    async with client(bus, peer="10.0.0.9", token=TOKEN) as http:
        unknown = (await http.get("/api/session")).json()
        assert (unknown["login"], unknown["user"], set(unknown)) == (
            True,
            None,
            {"user", "login", "version", "title"},
        )
    async with client(bus) as http:
        assert (await http.get("/api/session")).json()["login"] is False
        assert (await http.get("/api/types")).json() == {"types": ["dashboard.shipped", "dashboard.weighed"]}
        wrong = await http.get("/api/login")
        assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")
        for row in (await http.get("/api/events")).json()["items"]:
            assert not {"metadata", "payload"} & set(row)


@pytest.mark.parametrize(
    ("payloads", "is_masked"), [("none", (True, True)), ("masked", (True, False)), ("full", (False, False))]
)
async def test_pages_say_whether_values_are_hidden(
    bus: InMemoryEventBus, payloads: str, is_masked: tuple[bool, bool]
) -> None:
    """What is hidden would be taken for the value, and copied or edited as such."""
    async with client(bus, payloads=payloads) as http:
        rows = (await http.get("/api/events", params={"aggregate": "p-1"})).json()["items"]
        events = [(await http.get(f"/api/events/{row['event_id']}")).json()["event"] for row in rows[::-1]]
        letter = (await http.get("/api/dead-letters/1")).json()["letter"]
    assert tuple(event["masked"] for event in events) == is_masked
    assert letter["masked"] is is_masked[0]
