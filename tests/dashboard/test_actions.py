"""What can be changed from the dashboard, and what a stale page cannot change."""

from __future__ import annotations

import re
from typing import Any, ClassVar

import pytest

from pabal import DomainEvent, InMemoryEventBus, InMemoryEventStorage
from tests.dashboard.support import Scale, action_headers, client


async def test_actions_are_rejected_unless_allow_actions_is_set(bus: InMemoryEventBus) -> None:
    """A user who only wanted to look could discard dead letters."""
    async with client(bus) as http:
        headers = await action_headers(http)
        for path, body in (
            ("/api/dead-letters/retry", {"ids": [1]}),
            ("/api/dead-letters/discard", {"ids": [1]}),
            ("/api/dead-letters/1/edit", {"payload": {}, "revision": ""}),
            ("/api/subscriptions/pause", {"name": "scale"}),
            ("/api/subscriptions/resume", {"name": "scale"}),
            ("/api/subscriptions/reset", {"name": "scale", "start": 0, "watermark": 0, "confirm": "scale"}),
        ):
            response = await http.post(path, json=body, headers=headers)
            assert (response.status_code, response.json()["error"]["code"]) == (403, "read_only"), path
    assert len(await bus.dead_letters.list()) == 2


async def test_retrying_a_group_is_recorded_in_the_audit_log_with_the_user(
    bus: InMemoryEventBus, scale: Scale
) -> None:
    """The button would retry nothing, or the audit log not show who pressed it."""
    scale.fixed = True
    async with client(bus, allow_actions=True) as http:
        body = {"filter": {"subscription": "scale", "error_type": "ValueError"}, "count": 2}
        response = await http.post("/api/dead-letters/retry", json=body, headers=await action_headers(http))
        assert response.json() == {"begun": 2, "left": 0}
        await bus.drain()
        assert (await http.get("/api/dead-letters/groups")).json()["groups"] == []
        (entry,) = (await http.get("/api/audit")).json()["items"]
    assert (entry["actor"], entry["action"], entry["succeeded"]) == ("local (dashboard)", "retry", True)
    assert (entry["result"], entry["result_ko"]) == ("2 done", "2개 완료")
    assert scale.seen == [500, 0, -1]


async def test_the_audit_log_shows_results_in_both_languages(bus: InMemoryEventBus) -> None:
    """A Korean operator would read in English why an action failed, in the only place that records it."""
    async with client(bus, allow_actions=True) as http:
        letter = (await http.get("/api/dead-letters/1")).json()["letter"]
        body = {"payload": {"parcel": "p-2"}, "revision": letter["revision"]}
        await http.post("/api/dead-letters/1/edit", json=body, headers=await action_headers(http))
        (entry,) = (await http.get("/api/audit")).json()["items"]
    assert (entry["succeeded"], entry["id"]) == (False, 1)
    error, _, message = entry["result"].partition(": ")
    assert entry["result_ko"].startswith(f"{error}: ")
    assert "grams" in message
    assert re.search("[가-힣]", entry["result_ko"])


@pytest.mark.parametrize("action", ["discard", "retry"])
async def test_a_group_that_has_changed_is_left_alone(bus: InMemoryEventBus, action: str) -> None:
    """A page that shows two dead letters would discard a third one that was parked meanwhile."""
    async with client(bus, allow_actions=True) as http:
        body = {"filter": {"subscription": "scale"}, "count": 1}
        response = await http.post(
            f"/api/dead-letters/{action}", json=body, headers=await action_headers(http)
        )
    assert (response.status_code, response.json()["error"]["n"]) == (409, 2)
    assert [letter.state for letter in await bus.dead_letters.list()] == ["parked", "parked"]


async def test_the_next_report_shows_what_an_action_has_done(bus: InMemoryEventBus) -> None:
    """The button that was just used would be shown again, and used again."""
    async with client(bus, allow_actions=True) as http:
        headers = await action_headers(http)

        async def after(path: str, **body: Any) -> Any:
            await http.get("/api/report")  # as a page does once a second: a report is reused for a moment
            response = await http.post(f"/api/{path}", json=body, headers=headers)
            assert response.status_code == 200, response.text
            report = (await http.get("/api/report")).json()
            return report["subscriptions"][0]["state"], report["totals"]["dead_letters"]

        assert await after("subscriptions/pause", name="scale") == ("paused", 2)
        assert await after("dead-letters/discard", ids=[1]) == ("paused", 1)


async def test_a_subscription_can_be_reset_to_a_position(bus: InMemoryEventBus) -> None:
    """The beginning of the log would be refused when it is given as a number."""
    async with client(bus, allow_actions=True) as http:
        headers = await action_headers(http)
        plan = await http.get("/api/subscriptions/reset", params={"name": "scale", "start": "0"})
        assert plan.json() == {"watermark": 4, "start": 0, "again": 4, "skipped": 0}
        body = {"name": "scale", "start": 0, "watermark": 4, "confirm": "scale"}
        done = await http.post("/api/subscriptions/reset", json=body, headers=headers)
        assert (done.status_code, done.json()["position"]) == (200, 0)


async def test_discarding_a_group_removes_its_dead_letters(bus: InMemoryEventBus) -> None:
    """The button would discard nothing, or more than the page shows."""
    async with client(bus, allow_actions=True) as http:
        headers = await action_headers(http)
        other = {"filter": {"error_type": "KeyError"}, "count": 0}
        assert (await http.post("/api/dead-letters/discard", json=other, headers=headers)).json() == {
            "discarded": 0
        }
        assert len(await bus.dead_letters.list()) == 2
        body = {"filter": {"subscription": "scale", "error_type": "ValueError"}, "count": 2}
        response = await http.post("/api/dead-letters/discard", json=body, headers=headers)
        assert response.json() == {"discarded": 2}
        assert (await http.get("/api/report")).json()["totals"]["dead_letters"] == 0
    assert await bus.dead_letters.list() == []


async def test_a_dead_letter_can_be_edited_and_retried(bus: InMemoryEventBus, scale: Scale) -> None:
    """A payload with one wrong number could only be discarded."""
    async with client(bus, allow_actions=True, payloads="masked") as http:
        letter = (await http.get("/api/dead-letters/1")).json()["letter"]
        assert letter["payload"]["email"] == "•••"
        body = {"payload": {**letter["payload"], "grams": 750}, "revision": letter["revision"]}
        response = await http.post("/api/dead-letters/1/edit", json=body, headers=await action_headers(http))
        assert response.status_code == 200, response.text
    await bus.drain()
    assert scale.seen == [500, 750]
    (left,) = await bus.dead_letters.list()
    assert left.id == 2


class Crate(DomainEvent):
    event_type: ClassVar[str] = "dashboard.crated"
    labels: list[dict[str, str]]


async def test_an_edit_restores_values_masked_within_a_list() -> None:
    """Editing one label would replace all masked addresses by three dots."""
    seen: list[Crate] = []

    async def ship(event: Crate) -> None:
        if event.labels[0]["to"] == "nowhere":
            raise ValueError("nobody lives there")
        seen.append(event)

    async with InMemoryEventBus(event_storage=InMemoryEventStorage()) as bus:
        bus.subscribe(Crate, ship, name="ship", retry_count=0)
        await bus.publish(Crate([{"to": "nowhere", "email": "a@b.c"}, {"to": "Seoul", "email": "d@e.f"}]))
        await bus.drain()
        async with client(bus, allow_actions=True, payloads="masked") as http:
            letter = (await http.get("/api/dead-letters/1")).json()["letter"]
            labels = letter["payload"]["labels"]
            assert [label["email"] for label in labels] == ["•••", "•••"]
            labels[0]["to"] = "Busan"
            body = {"payload": {"labels": labels}, "revision": letter["revision"]}
            edited = await http.post(
                "/api/dead-letters/1/edit", json=body, headers=await action_headers(http)
            )
            assert edited.status_code == 200, edited.text
        await bus.drain()
    assert [event.labels for event in seen] == [
        [{"to": "Busan", "email": "a@b.c"}, {"to": "Seoul", "email": "d@e.f"}]
    ]


async def test_an_edit_refuses_a_masked_value_without_an_original() -> None:
    """After the removal of a label, every address would be replaced by three dots, for good."""

    async def refuse(event: Crate) -> None:
        raise ValueError("nobody lives there")

    async with InMemoryEventBus(event_storage=InMemoryEventStorage()) as bus:
        bus.subscribe(Crate, refuse, name="ship", retry_count=0)
        await bus.publish(Crate([{"to": "nowhere", "email": "a@b.c"}, {"to": "Seoul", "email": "d@e.f"}]))
        await bus.drain()
        async with client(bus, allow_actions=True, payloads="masked") as http:
            letter = (await http.get("/api/dead-letters/1")).json()["letter"]
            body = {"payload": {"labels": letter["payload"]["labels"][1:]}, "revision": letter["revision"]}
            edited = await http.post(
                "/api/dead-letters/1/edit", json=body, headers=await action_headers(http)
            )
            assert (edited.status_code, edited.json()["error"]["code"]) == (422, "masked")
            assert (await http.get("/api/dead-letters/1")).json()["letter"] == letter


@pytest.mark.parametrize(
    ("payload", "status"),
    [({"parcel": "p-2"}, 422), ({"parcel": "p-2", "grams": "much", "email": ""}, 422)],
)
async def test_an_edit_rejects_a_payload_that_does_not_fit_the_class(
    bus: InMemoryEventBus, payload: dict[str, Any], status: int
) -> None:
    """A typing error in the editor would lose the dead letter."""
    async with client(bus, allow_actions=True) as http:
        revision = (await http.get("/api/dead-letters/1")).json()["letter"]["revision"]
        body = {"payload": payload, "revision": revision}
        response = await http.post("/api/dead-letters/1/edit", json=body, headers=await action_headers(http))
        assert (response.status_code, response.json()["error"]["code"]) == (status, "does_not_fit")
        assert (await http.get("/api/dead-letters/1")).json()["letter"]["revision"] == revision


async def test_actions_on_missing_or_changed_dead_letters_are_rejected(bus: InMemoryEventBus) -> None:
    """A stale page would act on something other than it shows."""
    async with client(bus, allow_actions=True) as http:
        headers = await action_headers(http)
        stale = {"payload": {"parcel": "p-2", "grams": 1, "email": ""}, "revision": "old"}
        changed = await http.post("/api/dead-letters/1/edit", json=stale, headers=headers)
        assert (changed.status_code, changed.json()["error"]["code"]) == (409, "changed")
        assert (
            await http.post("/api/dead-letters/discard", json={"ids": [1]}, headers=headers)
        ).status_code == 200
        for path, body in (
            ("/api/dead-letters/retry", {"ids": [1]}),
            ("/api/dead-letters/discard", {"ids": [1]}),
            ("/api/dead-letters/1/edit", stale),
        ):
            gone = await http.post(path, json=body, headers=headers)
            assert (gone.status_code, gone.json()["error"]["code"]) == (404, "gone"), path
        assert (await http.get("/api/dead-letters/1")).status_code == 404
        nobody = await http.post("/api/subscriptions/pause", json={"name": "nobody"}, headers=headers)
        assert nobody.status_code in (404, 409)
        moved = {"name": "scale", "start": "beginning", "watermark": 1, "confirm": "scale"}
        response = await http.post("/api/subscriptions/reset", json=moved, headers=headers)
        assert (response.status_code, response.json()["error"]["code"]) == (409, "moved")
        untyped = {**moved, "confirm": "scal"}
        assert (await http.post("/api/subscriptions/reset", json=untyped, headers=headers)).status_code == 400


async def test_the_plan_of_a_reset_shows_what_it_would_do(bus: InMemoryEventBus) -> None:
    """A user could deliver a year of events again without knowing it."""
    async with client(bus) as http:
        plan = (await http.get("/api/subscriptions/reset", params={"name": "scale", "start": "1"})).json()
        assert plan == {"watermark": 4, "start": 1, "again": 3, "skipped": 0}
        for start, again, skipped in (("beginning", 4, 0), ("now", 0, 0), ("2001-01-01", 4, 0), ("99", 0, 0)):
            plan = await http.get("/api/subscriptions/reset", params={"name": "scale", "start": start})
            assert (plan.json()["again"], plan.json()["skipped"]) == (again, skipped), start
        refused = await http.get("/api/subscriptions/reset", params={"name": "scale", "start": "soon"})
        assert refused.status_code == 400
        nobody = await http.get("/api/subscriptions/reset", params={"name": "scales", "start": "now"})
    error = nobody.json()["error"]
    assert (nobody.status_code, error["code"], error["name"]) == (404, "no_subscription", "scales")
    assert re.search("[가-힣]", error["message_ko"])


async def test_the_plan_of_a_reset_counts_skipped_events(bus: InMemoryEventBus) -> None:
    """A user could skip events for good without knowing how many."""
    await bus.stop()
    async with client(bus.storage, allow_actions=True) as http:
        back = {"name": "scale", "start": "beginning", "watermark": 4, "confirm": "scale"}
        await http.post("/api/subscriptions/reset", json=back, headers=await action_headers(http))
        plan = await http.get("/api/subscriptions/reset", params={"name": "scale", "start": "now"})
    assert plan.json() == {"watermark": 0, "start": 4, "again": 0, "skipped": 4}


async def test_retrying_several_dead_letters_skips_those_that_are_gone(
    bus: InMemoryEventBus, scale: Scale
) -> None:
    """One dead letter that was discarded meanwhile would keep the others from being retried."""
    scale.fixed = True
    async with client(bus, allow_actions=True) as http:
        body = {"ids": [1, 2, 99]}
        response = await http.post("/api/dead-letters/retry", json=body, headers=await action_headers(http))
    assert response.json() == {"begun": 2, "left": 1}
    await bus.drain()
    assert await bus.dead_letters.list() == []


async def test_a_subscription_can_be_paused_reset_and_resumed(bus: InMemoryEventBus, scale: Scale) -> None:
    """The buttons of the page would do nothing."""
    async with client(bus, allow_actions=True) as http:
        headers = await action_headers(http)
        paused = await http.post("/api/subscriptions/pause", json={"name": "scale"}, headers=headers)
        assert paused.status_code == 200, paused.text
        (row,) = (await http.get("/api/report")).json()["subscriptions"]
        assert row["state"] == "paused"
        back = {"name": "scale", "start": "beginning", "watermark": row["watermark"], "confirm": "scale"}
        reset = await http.post("/api/subscriptions/reset", json=back, headers=headers)
        assert reset.status_code == 200, reset.text
        scale.fixed = True
        resumed = await http.post("/api/subscriptions/resume", json={"name": "scale"}, headers=headers)
        assert resumed.status_code == 200, resumed.text
        await bus.drain()
        assert scale.seen == [500, 500, 0, -1]
        actions = [entry["action"] for entry in (await http.get("/api/audit")).json()["items"]]
        assert actions == ["resume", "reset", "pause"]


async def test_actions_work_on_the_file_of_a_stopped_bus(bus: InMemoryEventBus, scale: Scale) -> None:
    """After a crash loop, the application would have to run before anything could be fixed."""
    await bus.stop()
    async with client(bus.storage, allow_actions=True) as http:
        headers = await action_headers(http)
        retried = await http.post("/api/dead-letters/retry", json={"ids": [1]}, headers=headers)
        assert retried.json() == {"begun": 1, "left": 0}
        again = await http.post("/api/dead-letters/retry", json={"ids": [1]}, headers=headers)
        assert (again.status_code, again.json()["error"]["code"]) == (409, "retrying")
        begun = (await http.get("/api/dead-letters/1")).json()["letter"]
        late = {"payload": {**begun["payload"], "grams": 9}, "revision": begun["revision"]}
        edited = await http.post("/api/dead-letters/1/edit", json=late, headers=headers)
        assert (edited.status_code, edited.json()["error"]["code"]) == (409, "retrying")
        letter = (await http.get("/api/dead-letters/2")).json()["letter"]
        body = {"payload": {**letter["payload"], "grams": 7}, "revision": letter["revision"]}
        assert (await http.post("/api/dead-letters/2/edit", json=body, headers=headers)).status_code == 200
    scale.fixed = True
    await bus.start()
    await bus.drain()
    assert sorted(scale.seen) == [0, 7, 500]
