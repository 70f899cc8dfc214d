"""The dashboard in real use: in a browser, in both languages, on a phone, by keyboard."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect
from starlette.applications import Starlette
from starlette.routing import Mount

from pabal import DomainEvent, InMemoryEventBus, InMemoryEventStorage, SqliteEventStorage
from pabal.dashboard import create_dashboard
from pabal.dashboard.live import Hub
from pabal.dashboard.sessions import Sessions
from pabal.errors import StorageUnavailableError
from tests.dashboard.browser import LONG, RecordedPage, axe_script, browser, opened, served
from tests.dashboard.stage import Stage, play_demo
from tests.dashboard.support import TOKEN, Shipped

pytestmark = pytest.mark.browser

SCREENS = ("", "subscriptions", "events", "streams", "dead-letters", "dead-letters?view=list", "audit")
expect.set_options(timeout=LONG)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as running:
        yield running


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("dashboard") / "demo.db"
    play_demo(file, events=6000)
    return file


@pytest.fixture
def stage(log: Path, tmp_path: Path) -> Stage:
    copy = tmp_path / "demo.db"
    copy.write_bytes(log.read_bytes())
    return Stage(copy)


@pytest.fixture
def base(stage: Stage) -> Iterator[str]:
    with stage.app() as app, served(app) as address:
        yield address


def settle(window: RecordedPage) -> None:
    """Wait until the bus has parked everything it cannot handle yet."""
    window.open("dead-letters")
    expect(window.page.locator(".group")).to_have_count(3)
    expect(window.page.locator(".bar .badge")).to_contain_text(re.compile("Degraded|주의"))


def one_of_each(window: RecordedPage) -> list[str]:
    """Return the paths of one event, one stream and one dead letter."""
    page = window.open("events?type=order.filled")
    event = page.locator("tbody .row-link").first.get_attribute("href")
    stream = page.locator("tbody td a[href*='/streams/']").first.get_attribute("href")
    page = window.open("dead-letters?subscription=mail")
    letter = page.locator("tbody .row-link").first.get_attribute("href")
    assert event is not None
    assert stream is not None
    assert letter is not None
    return [event.lstrip("/"), stream.lstrip("/"), letter.lstrip("/")]


@pytest.mark.parametrize("language", ["en", "ko"])
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (1280, True), (360, False)])
def test_every_screen_renders_fits_and_passes_accessibility_checks(
    chromium: Browser, base: str, language: str, width: int, dark: bool
) -> None:
    """A screen would throw, be in the wrong language, overflow on a phone, or be unusable with a reader."""
    script = axe_script()
    with opened(chromium, base, language=language, width=width, dark=dark) as window:
        settle(window)
        for path in (*SCREENS, *one_of_each(window)):
            page = window.open(path)
            assert page.locator("html").get_attribute("lang") == language
            if language == "ko":
                assert re.search("[가-힣]", page.locator("nav.nav").inner_text())
            overflow = page.evaluate(
                "document.documentElement.scrollWidth - document.documentElement.clientWidth"
            )
            assert overflow <= 0, f"{path} is {overflow} pixels too wide"
            page.evaluate(script)
            found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
            grave = [
                (one["id"], [node["html"][:160] for node in one["nodes"][:3]])
                for one in found["violations"]
                if one["impact"] in ("serious", "critical")
            ]
            assert grave == [], path


def test_the_overview_can_retry_a_group(chromium: Browser, base: str, stage: Stage) -> None:
    """The button next to the trouble would not fix it."""
    with opened(chromium, base) as window:
        settle(window)
        page = window.open("")
        trouble = page.locator(".troubles li", has_text="mail has")
        expect(trouble).to_contain_text("mail.example.com:25 refused the connection")
        stage.fixed = True
        trouble.get_by_role("button", name=re.compile("Retry")).click()
        page.get_by_role("dialog").get_by_role("button", name=re.compile("^Retry")).click()
        expect(page.locator(".toast")).to_contain_text("started")
        expect(trouble).to_have_count(0)
        window.open("audit")
        expect(page.locator("tbody tr").first).to_contain_text("subscription=mail")


def test_the_event_page_shows_failed_attempts_of_a_delivery_that_succeeded(
    chromium: Browser, base: str, stage: Stage
) -> None:
    """The page of a late event would say that it was handled, but not why so late."""
    with opened(chromium, base) as window:
        settle(window)
        page = window.open("dead-letters?subscription=mail")
        page.locator("tbody .row-link").first.click()
        letter = re.sub(r"^.*?/dead-letters", "dead-letters", page.url)
        page.locator("main a[href*='/events/']").first.click()
        delivery = page.locator(".deliveries > li", has_text="mail")
        attempts = delivery.locator(".attempts > li")
        expect(attempts).to_have_count(2)
        expect(delivery.locator(".badge")).to_have_text("dead letter")
        event = re.sub(r"^.*?/events", "events", page.url)
        stage.fixed = True
        window.open(letter)
        page.get_by_role("button", name="Retry", exact=True).click()
        page.get_by_role("dialog").get_by_role("button", name="Retry", exact=True).click()
        expect(page.locator("main")).to_contain_text("This dead letter is gone")
        window.faults.clear()  # the browser reports the 404
        window.open(event)
        expect(delivery.locator(".badge")).to_have_text("finished")
        expect(attempts).to_have_count(3)
        expect(attempts.first).to_contain_text("MailServerDownError")
        expect(attempts.last).to_contain_text("Then succeeded")


def test_the_page_can_edit_and_retry_a_dead_letter(chromium: Browser, base: str) -> None:
    """A wrong number in a payload could not be fixed in the page, or a typing error would be sent."""
    with opened(chromium, base) as window:
        settle(window)
        page = window.open("dead-letters?subscription=clearing")
        page.locator("tbody .row-link").first.click()
        page.get_by_role("button", name="Edit and retry").click()
        editor = page.get_by_role("dialog").get_by_role("textbox")
        before = editor.input_value()
        send = page.get_by_role("button", name="Retry with this payload")
        editor.fill(before[:-1])
        expect(page.locator(".fault")).to_contain_text("not valid JSON")
        expect(send).to_be_disabled()
        editor.fill(re.sub(r'"quantity": "[^"]+"', '"quantity": "much"', before))
        window.faults.clear()
        send.click()
        expect(page.get_by_role("dialog").get_by_role("alert")).to_be_visible()
        refused = [fault for fault in window.faults if "422" not in fault]
        assert refused == []
        window.faults.clear()  # the browser reports the expected refusal
        editor.fill(re.sub(r'"quantity": "[^"]+"', '"quantity": "0.0005"', before))
        send.click()
        expect(page.locator(".toast")).to_contain_text("corrected event")
        expect(page.locator("main")).to_contain_text("This dead letter is gone")
        window.faults.clear()  # and the 404 of the dead letter


def test_the_page_can_pause_and_resume_a_subscription(chromium: Browser, base: str) -> None:
    """The button would do nothing, or the page not show that it did."""
    with opened(chromium, base) as window:
        settle(window)
        page = window.open("subscriptions")
        row = page.locator("tbody tr", has_text="clearing")
        row.get_by_role("button", name="Pause clearing").click()
        expect(row.locator(".badge").first).to_have_text("paused")
        page.reload()
        expect(row.locator(".badge").first).to_have_text("paused")
        row.get_by_role("button", name="Resume clearing").click()
        expect(row.locator(".badge").first).to_have_text("active")


def test_the_url_contains_the_filter(chromium: Browser, base: str) -> None:
    """A shared link would show something else than the sender sees."""
    with opened(chromium, base) as window:
        page = window.open("events")
        page.keyboard.press("/")
        page.keyboard.type("market.tick-received")
        page.keyboard.press("Enter")
        expect(page).to_have_url(re.compile(r"events\?type=market\.tick-received$"))
        expect(page.locator("tbody tr").first).to_contain_text("market.tick-received")
        page.get_by_role("link", name="Older").click()
        expect(page).to_have_url(re.compile("before="))
        window.settle()
        link = page.url
        first = page.locator("tbody tr").first.inner_text()
        page.go_back()
        page.go_back()
        expect(page).to_have_url(re.compile("events$"))
        page.goto(link)
        window.settle()
        expect(page.get_by_label("Event type")).to_have_value("market.tick-received")
        assert page.locator("tbody tr").first.inner_text() == first
        window.open("events?type=nothing.like.this")
        expect(page.locator(".blank")).to_contain_text("Nothing matches")


@pytest.mark.parametrize(
    ("language", "sentence"),
    [("en", "There is no such stream in this log"), ("ko", "이 로그에 그런 스트림이 없습니다")],
)
def test_the_page_of_an_unknown_stream_says_that_there_is_none(
    chromium: Browser, base: str, language: str, sentence: str
) -> None:
    """A mistyped address would show an empty page, as if the aggregate had no events."""
    with opened(chromium, base, language=language) as window:
        page = window.open("streams/order/no-such-order")
        expect(page.locator("main")).to_contain_text(sentence)
        window.faults.clear()  # the browser reports the 404


def test_everything_can_be_reached_by_keyboard(chromium: Browser, base: str) -> None:
    """The dashboard would be unusable without a mouse."""
    with opened(chromium, base) as window:
        settle(window)
        page = window.open("")
        page.keyboard.press("Tab")
        expect(page.locator(".skip")).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.locator("#main")).to_be_focused()
        page.keyboard.press("g")
        page.keyboard.press("d")
        expect(page.locator("h1")).to_have_text("Dead letters")
        expect(page.locator("h1")).to_be_focused()
        expect(page.locator(".row-link").first).to_be_visible()
        page.keyboard.press("j")
        expect(page.locator(".row-link").first).to_be_focused()
        page.keyboard.press("?")
        expect(page.get_by_role("dialog")).to_be_visible()
        page.keyboard.press("Escape")
        expect(page.get_by_role("dialog")).to_have_count(0)
        expect(page.locator(".row-link").first).to_be_focused()


def test_language_and_theme_are_remembered(chromium: Browser, base: str) -> None:
    """Every visit would begin in the wrong language."""
    with opened(chromium, base) as window:
        page = window.open("")
        page.get_by_role("button", name="한국어").click()
        expect(page.locator("h1")).to_have_text("개요")
        page.get_by_role("button", name="어두운 테마").click()
        page.reload()
        expect(page.locator("h1")).to_have_text("개요")
        expect(page.locator("html")).to_have_attribute("data-theme", "dark")


def test_payloads_are_shown_as_text(chromium: Browser, tmp_path: Path) -> None:
    """An order whose name is a script would run in the operator's browser."""
    storage = SqliteEventStorage(tmp_path / "log.db")
    evil = '<img src=x onerror="document.title=1"><script>document.title=2</script>'
    with ThreadPoolExecutor() as pool:  # this thread already runs the browser's event loop
        pool.submit(lambda: asyncio.run(storage.store_events([Shipped(evil, 1)]))).result()
    with storage, served(create_dashboard(storage)) as base, opened(chromium, base) as window:
        page = window.open("events")
        page.locator("tbody .row-link").first.click()
        expect(page.locator(".code")).to_contain_text("<script>")
        window.open("streams")
        expect(page.locator("tbody")).to_contain_text("<img")
        assert page.locator("main img, main script").count() == 0


class Numbered(DomainEvent):
    """An event with a number that JavaScript cannot hold."""

    number: int
    text: str


def test_an_edit_keeps_large_integers_and_long_names_fit(chromium: Browser, tmp_path: Path) -> None:
    """A correction of another field would change the number; and buttons would be off the screen."""
    storage = SqliteEventStorage(tmp_path / "log.db", durability="normal")
    bus = InMemoryEventBus(event_storage=storage)
    seen: list[int] = []

    async def refuse(event: Numbered) -> None:
        if event.text == "wrong":
            raise ValueError("wrong")
        seen.append(event.number)

    bus.subscribe(Numbered, refuse, name="a-very-long-name-" * 7, retry_count=0)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with bus:
            await bus.publish(Numbered(2**63 - 1, "wrong"))
            await bus.drain()
            yield

    app = Starlette(routes=[Mount("/", create_dashboard(bus, allow_actions=True))], lifespan=lifespan)
    with storage, served(app) as base, opened(chromium, base) as window:
        page = window.open("subscriptions")
        expect(page.locator("tbody tr")).to_have_count(1)
        table = page.locator(".scroll")
        assert table.evaluate("one => one.scrollWidth - one.clientWidth") == 0
        page = window.open("dead-letters/1")
        expect(page.locator(".code")).to_contain_text(str(2**63 - 1))
        page.get_by_role("button", name="Edit and retry").click()
        box = page.get_by_role("dialog").locator("textarea")
        box.fill(box.input_value().replace("wrong", "right"))
        page.get_by_role("button", name="Retry with this payload").click()
        expect(page.get_by_text("This dead letter is gone")).to_be_visible()
        window.faults.clear()  # the browser reports the 404 of the dead letter
    assert seen == [2**63 - 1]


@pytest.mark.parametrize(
    ("language", "said"), [("en", "the file is read-only"), ("ko", "읽기 전용 파일입니다")]
)
def test_the_page_warns_while_the_log_cannot_be_read(
    chromium: Browser, monkeypatch: pytest.MonkeyPatch, language: str, said: str
) -> None:
    """Old figures would be shown as if all were well, while the disk is gone."""
    fine, failing = Hub.report, [False]

    async def report(hub: Hub) -> dict[str, object]:
        if failing[0]:
            raise StorageUnavailableError(path="log.db", reason="the file is read-only")
        return await fine(hub)

    monkeypatch.setattr(Hub, "report", report)
    app = create_dashboard(InMemoryEventStorage())
    with served(app) as base, opened(chromium, base, language=language) as window:
        page = window.open("")
        expect(page.locator(".bar .badge")).to_have_count(1)
        failing[0] = True
        expect(page.locator("main .notice.bad")).to_contain_text(said)
        expect(page.locator(".bar .badge")).to_have_class("badge warn")
        expect(page.locator(".verdict")).to_have_count(0)
        failing[0] = False
        expect(page.locator("main .notice.bad")).to_have_count(0)
        expect(page.locator(".bar .badge")).to_have_class("badge ok")


def test_the_page_asks_for_a_token_and_removes_it_from_the_url(chromium: Browser) -> None:
    """The token would stay in the address, and appear on the next screenshot."""
    app = create_dashboard(InMemoryEventStorage(), token=TOKEN)
    with served(app) as base, opened(chromium, base) as window:
        page = window.page
        page.goto(base)
        page.get_by_label("Token").fill("wrong")
        page.get_by_role("button", name="Log in").click()
        expect(page.get_by_role("alert")).to_contain_text("Wrong token")
        window.faults.clear()  # the browser notes the refusal
        page.goto(f"{base}events#token={TOKEN}")
        expect(page.locator("h1")).to_have_text("Events")
        assert page.url == f"{base}events"
        page.get_by_role("button", name="Log out").click()
        expect(page.locator("h1")).to_have_text("Log in")


def test_a_page_whose_session_has_ended_asks_for_the_token(
    chromium: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a restart of the server it would show old figures, and look for the server that is there."""
    app = create_dashboard(InMemoryEventStorage(), token=TOKEN)
    with served(app) as base, opened(chromium, base) as window:
        page = window.page
        page.goto(f"{base}subscriptions#token={TOKEN}")
        expect(page.locator(".dot.live")).to_have_count(1)
        monkeypatch.setattr(Sessions, "user_of", lambda sessions, cookie: None)
        app.state.end_streams()
        expect(page.locator("h1")).to_have_text("Log in")
        window.faults.clear()  # the browser notes the refusal
        monkeypatch.undo()
        page.get_by_label("Token").fill(TOKEN)
        page.get_by_role("button", name="Log in").click()
        expect(page.locator(".dot.live")).to_have_count(1)
