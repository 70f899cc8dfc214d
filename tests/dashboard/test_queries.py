"""The contents of the dashboard, requested over HTTP."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from pabal import InMemoryEventBus, InMemoryEventStorage
from pabal.dashboard import queries
from pabal.errors import EventNotFoundError
from pabal.operations import Operations
from pabal.ports.operations import Trace
from tests.cli.conftest import rewrite
from tests.dashboard.support import Scale, Shipped, action_headers, client


async def test_the_report_names_stuck_subscriptions_and_the_reason(bus: InMemoryEventBus) -> None:
    """The operator would see only a number, and have to search for the reason."""
    async with client(bus) as http:
        report = (await http.get("/api/report")).json()
    assert report["health"]["status"] == "degraded"
    (trouble,) = report["troubles"]
    assert trouble["code"] == "dead-letters"
    assert (trouble["subscription"], trouble["error_type"], trouble["n"]) == ("scale", "ValueError", 2)
    assert "weighs -1 g" in trouble["detail"]
    (row,) = report["subscriptions"]
    assert (row["name"], row["state"], row["lag"], row["parked"]) == ("scale", "active", 0, 2)
    assert row["p99"] > 0


async def test_the_report_limits_the_problems_and_counts_the_rest() -> None:
    """Thousands, a megabyte a second to every open page, would block the loop that handlers share."""
    bus = InMemoryEventBus(InMemoryEventStorage())

    async def weigh(event: Shipped) -> None:
        raise ValueError("broken")

    for number in range(150):
        bus.subscribe(Shipped, weigh, name=f"scale-{number}")
    bus.subscribe(Shipped, weigh, name="halts", retry_count=0, on_exhausted="stop")
    async with bus:
        for number in range(150):
            await bus.subscriptions.pause(f"scale-{number}")
        await bus.publish(Shipped("p-1", 5))
        await bus.drain()
        async with client(bus) as http:
            report = (await http.get("/api/report")).json()
    assert [one["code"] for one in report["troubles"]] == ["halted", *["paused"] * 99]
    assert (report["more_troubles"], len(report["subscriptions"])) == (51, 151)


async def test_the_events_endpoint_filters_and_lists_the_newest_first(bus: InMemoryEventBus) -> None:
    """A filter in the address would be ignored, and a link show something else."""
    async with client(bus) as http:
        everything = (await http.get("/api/events")).json()["items"]
        assert [row["position"] for row in everything] == [4, 3, 2, 1]
        assert everything[-1]["preview"].startswith('{"parcel":"p-1"')
        of_type = (await http.get("/api/events", params={"type": "dashboard.sh*"})).json()["items"]
        assert [row["aggregate_id"] for row in of_type] == ["p-3", "p-2", "p-1"]
        of_one = (await http.get("/api/events", params={"aggregate": "parcel/p-1"})).json()["items"]
        assert [row["event_type"] for row in of_one] == ["dashboard.weighed", "dashboard.shipped"]
        caused = (await http.get("/api/events", params={"correlation": of_one[-1]["event_id"]})).json()[
            "items"
        ]
        assert {row["position"] for row in caused} == {1, 4}
        nothing = (await http.get("/api/events", params={"until": "2001-01-01"})).json()
        assert nothing["items"] == []


async def test_pages_of_older_events_have_no_gaps(bus: InMemoryEventBus) -> None:
    """A user who pages through the log would miss events between two pages."""
    await bus.publish_batch([Shipped(f"q-{n}", 1) for n in range(120)])
    await bus.drain()
    seen: list[int] = []
    async with client(bus) as http:
        page = (await http.get("/api/events")).json()
        while True:
            seen += [row["position"] for row in page["items"]]
            assert page["complete"] is (page["next"] is None)
            if page["next"] is None:
                break
            page = (await http.get("/api/events", params={"before": page["next"]})).json()
    assert seen == list(range(244, 0, -1))


async def test_a_page_of_events_names_the_end_of_the_log_that_it_shows(bus: InMemoryEventBus) -> None:
    """The first page of the day would offer to load a million new events, all of which it shows already."""
    async with client(bus) as http:
        page = (await http.get("/api/events")).json()
        assert (page["head"], page["items"][0]["position"]) == (4, 4)
        await bus.publish(Shipped("p-4", 1))
        await bus.drain()
        filtered = (await http.get("/api/events", params={"aggregate": "p-1"})).json()
        assert filtered["head"] == 6


async def test_dead_letters_are_marked_in_a_chain(bus: InMemoryEventBus) -> None:
    """An event whose handler gave up would look like one that was handled."""
    async with client(bus) as http:
        letters = (await http.get("/api/dead-letters")).json()["items"]
        marked = []
        for letter in letters:
            shown = (await http.get(f"/api/events/{letter['event_id']}")).json()
            marked += [node["event_id"] for node in shown["graph"]["nodes"] if node["parked"]]
    assert marked == [letter["event_id"] for letter in letters]
    assert len(marked) == 2


async def test_an_event_shows_its_deliveries_and_its_chain(
    bus: InMemoryEventBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An event's page would not show the handler that failed, or the events that followed."""
    async with client(bus) as http:
        rows = (await http.get("/api/events", params={"aggregate": "p-1"})).json()["items"]
        event = (await http.get(f"/api/events/{rows[0]['event_id']}")).json()
        assert event["event"]["payload"] == {"parcel": "p-1"}
        assert event["graph"]["edges"] == [[rows[1]["event_id"], rows[0]["event_id"]]]
        assert [node["event_id"] for node in event["graph"]["nodes"]] == event["graph"]["edges"][0]
        assert event["graph"]["truncated"] is False
        monkeypatch.setattr(queries, "_MAX_GRAPH_EVENTS", 1)
        cut = (await http.get(f"/api/events/{rows[0]['event_id']}")).json()["graph"]
        assert (len(cut["nodes"]), cut["truncated"]) == (1, True)
        failed = (await http.get("/api/events", params={"aggregate": "p-2"})).json()["items"][0]
        shown = (await http.get(f"/api/events/{failed['event_id']}")).json()
        (delivery,) = shown["deliveries"]
        assert (delivery["subscription"], delivery["state"]) == ("scale", "parked")
        assert delivery["attempts"][0]["error_type"] == "ValueError"
        assert shown["graph"]["nodes"][0]["parked"] is True


async def test_a_handled_event_shows_its_failed_attempts(bus: InMemoryEventBus, scale: Scale) -> None:
    """Once the handler is fixed, the page would not show that and when it had failed."""
    scale.fixed = True
    await bus.dead_letters.retry("all")
    await bus.drain()
    async with client(bus) as http:
        row = (await http.get("/api/events", params={"aggregate": "p-2"})).json()["items"][-1]
        (delivery,) = (await http.get(f"/api/events/{row['event_id']}")).json()["deliveries"]
    assert (delivery["state"], delivery["dead_letter_id"]) == ("finished", None)
    assert [attempt["message"] for attempt in delivery["attempts"]] == [
        "p-2 weighs 0 g, says kim@example.com"
    ]
    assert delivery["finished_at"] > delivery["attempts"][0]["failed_at"]


async def test_streams_are_found_by_prefix_and_read_in_order(bus: InMemoryEventBus) -> None:
    """An aggregate's history could not be found, or be in the wrong order."""
    async with client(bus) as http:
        found = (await http.get("/api/streams", params={"prefix": "p-"})).json()["items"]
        assert [(row["aggregate_id"], row["version"]) for row in found] == [
            ("p-1", 2),
            ("p-2", 1),
            ("p-3", 1),
        ]
        history = (await http.get("/api/streams/parcel/p-1")).json()
        assert [row["stream_version"] for row in history["items"]] == [1, 2]
        assert history["version"] == 2


async def test_an_unknown_stream_is_answered_with_404_and_a_sentence(bus: InMemoryEventBus) -> None:
    """A mistyped address would look like an aggregate that has no events."""
    async with client(bus) as http:
        unknown = await http.get("/api/streams/parcel/p-77")
        wrong_type = await http.get("/api/streams/order/p-1")
        beyond_the_end = await http.get("/api/streams/parcel/p-1", params={"after": 2})
    assert (unknown.status_code, wrong_type.status_code) == (404, 404)
    assert unknown.json()["error"] == {
        "code": "no_stream",
        "message": "there is no stream 'parcel/p-77' in this log; check its type and id",
        "message_ko": "이 로그에 'parcel/p-77' 스트림이 없습니다. 타입과 ID를 확인하세요",
    }
    assert (beyond_the_end.status_code, beyond_the_end.json()["version"]) == (200, 2)


async def test_dead_letters_can_be_grouped_and_listed(bus: InMemoryEventBus) -> None:
    """Two hundred dead letters with one cause would look like two hundred causes."""
    async with client(bus) as http:
        (group,) = (await http.get("/api/dead-letters/groups")).json()["groups"]
        assert (group["subscription"], group["error_type"], group["count"]) == ("scale", "ValueError", 2)
        listed = (await http.get("/api/dead-letters", params={"error_type": "ValueError"})).json()
        assert (len(listed["items"]), listed["count"]) == (2, 2)
        letter = (await http.get(f"/api/dead-letters/{listed['items'][0]['id']}")).json()["letter"]
        assert letter["payload"] == {"parcel": "p-2", "grams": 0, "email": "kim@example.com"}
        assert "Traceback" in letter["attempts"][0]["traceback"]
        other = (await http.get("/api/dead-letters", params={"error_type": "KeyError"})).json()
        assert other["items"] == []


async def test_the_series_comes_from_the_log_and_the_samples(
    bus: InMemoryEventBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a reload the charts would be empty, because only the page remembered the figures."""
    storage = bus.storage
    await bus.stop()  # takes a last sample
    later = time.time() + 3600  # a step is shown only once it is over
    monkeypatch.setattr("pabal.dashboard.live.time.time", lambda: later)
    async with client(storage) as http:
        series = (await http.get("/api/series", params={"range": "7d"})).json()["series"]
        assert len(series["at"]) == 168
        assert sum(rate * 3600 for rate in series["published"] if rate) == pytest.approx(4)
        assert all(any(series[name]) for name in ("handled", "p50", "p99"))
        assert [count for count in series["dead_letters"] if count][-1] == 2
        refused = await http.get("/api/series", params={"range": "1y"})
    assert refused.status_code == 400


async def test_masked_payloads_hide_fields_and_the_errors_that_quote_them(bus: InMemoryEventBus) -> None:
    """A dashboard open to others would show addresses and card numbers."""
    async with client(bus, payloads="masked") as http:
        texts = [
            (await http.get(path)).text
            for path in (
                "/api/events",
                "/api/dead-letters",
                "/api/dead-letters/1",
                "/api/report",
                "/api/dead-letters/groups",
            )
        ]
    assert not any("kim@example.com" in text for text in texts)
    assert "•••" in texts[0]
    async with client(bus, payloads="none") as http:
        assert "p-1" not in (await http.get("/api/events")).json()["items"][-1]["preview"]


async def test_a_halted_subscription_is_listed_first_without_its_error_when_masked() -> None:
    """A halt would be last in the list, or its error show what masking should hide."""
    storage = InMemoryEventStorage()
    async with InMemoryEventBus(event_storage=storage) as bus:
        scale = Scale(bus)
        bus.subscribe(Shipped, scale, name="strict", retry_count=0, on_exhausted="stop", start="beginning")
        bus.subscribe(Shipped, scale, name="scale", retry_count=0, start="beginning")
        await bus.publish(Shipped("p-1", 0))
        await bus.drain()
        async with client(bus, payloads="full") as http:
            report = (await http.get("/api/report")).json()
            first = report["troubles"][0]
            assert [(first["code"], first["subscription"])] == [("halted", "strict")]
            assert first["detail"].startswith("halted at event ")
            assert first["detail_ko"].startswith("위치 1의 이벤트 ")
            row = next(row for row in report["subscriptions"] if row["name"] == "strict")
            assert (row["reason"], row["reason_ko"]) == (first["detail"], first["detail_ko"])
            assert "dead-letters" in [one["code"] for one in report["troubles"]]
            assert report["health"]["status"] == "failing"
        async with client(bus, payloads="masked") as http:
            masked = await http.get("/api/report")
    first = masked.json()["troubles"][0]
    assert first["code"] == "halted"
    assert first["detail"].endswith(" at position 1; the last error was ValueError")
    assert first["detail_ko"].startswith("위치 1의 이벤트 ")
    assert first["detail_ko"].endswith("에서 멈춤. 마지막 오류는 ValueError")
    assert "kim@example.com" not in masked.text


async def test_a_bus_without_storage_has_a_dashboard_too() -> None:
    """The dashboard would fail on the kind of bus that most users start with."""
    async with InMemoryEventBus() as bus:
        scale = Scale(bus)
        bus.subscribe(Shipped, scale, name="scale", retry_count=0)
        await bus.publish(Shipped("p-1", 0))
        await bus.drain()
        async with client(bus) as http:
            report = (await http.get("/api/report")).json()
            assert report["troubles"][0]["n"] == 1
            assert (await http.get("/api/events")).json()["items"] == []
            assert (await http.get("/api/series")).json()["series"] is None
            assert (await http.get("/api/dead-letters/1")).json()["letter"]["payload"]["parcel"] == "p-1"


async def test_the_memory_storage_keeps_a_series() -> None:
    """An application that tries things out in memory would see empty charts."""
    storage = InMemoryEventStorage()
    async with InMemoryEventBus(event_storage=storage) as bus:
        scale = Scale(bus)
        bus.subscribe(Shipped, scale, name="scale", start="beginning")
        await bus.publish(Shipped("p-1", 1))
        await bus.drain()
    (sample,) = await storage.latest_samples(0)
    assert (sample.handled, sample.subscriptions["scale"].lag) == (1, 0)
    second = sample.at // 1_000_000
    series = await storage.read_series(range(second - 30, second + 31, 15))
    assert sum(rate for rate in series.handled if rate) > 0
    assert sum(rate * 15 for rate in series.published if rate) == pytest.approx(2)


async def test_an_event_is_shown_although_its_chain_was_deleted(
    bus: InMemoryEventBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While retention deletes, an event that still exists would be reported as missing."""

    async def trimmed(operations: Operations, event_id: str, **options: int) -> Trace:
        raise EventNotFoundError(event_id=event_id)

    monkeypatch.setattr(Operations, "trace", trimmed)
    async with client(bus) as http:
        effect, event = (await http.get("/api/events", params={"aggregate": "p-1"})).json()["items"]
        shown = (await http.get(f"/api/events/{event['event_id']}")).json()
    assert shown["event"]["payload"]["parcel"] == "p-1"
    assert [node["event_id"] for node in shown["graph"]["nodes"]] == [event["event_id"], effect["event_id"]]
    assert shown["graph"]["edges"] == [[event["event_id"], effect["event_id"]]]
    assert shown["graph"]["truncated"] is False


async def test_metadata_is_shown_and_masked_as_payloads_are(bus: InMemoryEventBus) -> None:
    """The publisher of an event would be invisible, or a token in the metadata be shown."""
    event = Shipped("p-7", 1, metadata={"desk": "seoul", "api_token": "t-1"})
    await bus.publish(event)
    async with client(bus, payloads="masked") as http:
        shown = (await http.get(f"/api/events/{event.event_id}")).json()["event"]
    assert (shown["metadata"], shown["masked"]) == ({"desk": "seoul", "api_token": "•••"}, True)


async def test_streams_dead_letters_and_the_audit_log_can_be_paged(bus: InMemoryEventBus) -> None:
    """Anything after the first fifty entries would be unreachable."""
    await bus.publish_batch([Shipped("p-0", -n) for n in range(50)])
    await bus.drain()
    async with client(bus, allow_actions=True) as http:
        headers = await action_headers(http)
        assert (await http.get("/api/streams/parcel/p-0")).json()["next"] is None
        await bus.publish_batch([Shipped("p-0", -n) for n in range(10)])
        await bus.drain()
        first = (await http.get("/api/streams/parcel/p-0")).json()
        rest = (await http.get("/api/streams/parcel/p-0", params={"after": first["next"]})).json()
        assert [row["stream_version"] for row in first["items"] + rest["items"]] == list(range(1, 61))
        assert rest["next"] is None
        letters = (await http.get("/api/dead-letters")).json()
        last = (await http.get("/api/dead-letters", params={"after": letters["next"]})).json()
        assert [one["id"] for one in letters["items"] + last["items"]] == list(range(1, 63))
        for number in range(30):
            for action in ("pause", "resume"):
                await http.post(f"/api/subscriptions/{action}", json={"name": "scale"}, headers=headers)
            if number == 24:
                assert (await http.get("/api/audit")).json()["next"] is None
        done = (await http.get("/api/audit")).json()
        before = (await http.get("/api/audit", params={"before": done["next"]})).json()
        assert [one["id"] for one in done["items"] + before["items"]] == list(range(60, 0, -1))


async def test_a_payload_that_is_not_json_is_shown_and_can_be_replaced(
    bus: InMemoryEventBus, tmp_path: Path
) -> None:
    """One event of another program would break a page of the log, and its dead letter could not be fixed."""
    await bus.stop()
    for table, number in (("events", 2), ("dead_letters", 1)):
        rewrite(tmp_path / "log.db", table, number, payload=b"\xff\x00")
    as_text = {"base64": "/wA="}
    async with client(bus.storage, allow_actions=True) as http:
        row = next(one for one in (await http.get("/api/events")).json()["items"] if one["position"] == 2)
        assert row["preview"] == '{"base64":"/wA="}'
        assert (await http.get(f"/api/events/{row['event_id']}")).json()["event"]["payload"] == as_text
        letter = (await http.get("/api/dead-letters/1")).json()["letter"]
        assert letter["payload"] == as_text
        fixed = {"payload": {"parcel": "p-2", "grams": 5, "email": ""}, "revision": letter["revision"]}
        answered = await http.post("/api/dead-letters/1/edit", json=fixed, headers=await action_headers(http))
        assert answered.status_code == 200, answered.text
        assert (await http.get("/api/dead-letters/1")).json()["letter"]["payload"] == fixed["payload"]
