"""Take the screenshots of the dashboard: ``make screenshots``.

The demo writes the log at its own pace, so that the charts have something to show; that takes about two
minutes.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from playwright.sync_api import Page, expect

from tests.dashboard.browser import RecordedPage, browser, opened, served
from tests.dashboard.stage import Stage, play_demo

FOLDER = Path(__file__).parents[2] / "docs" / "pictures" / "dashboard"
WIDTH, HEIGHT = 1160, 640
LISTS, LIST_HEIGHT = ("events", "stream", "projections", "audit"), 480
EVENTS, PER_SECOND = 36_000, 400


def take(window: RecordedPage, folder: Path, language: str) -> None:
    """Open each screen and save a screenshot."""
    page = window.open("dead-letters")
    expect(page.locator(".group")).to_have_count(3)
    keep(page, folder, "dead-letters", language)
    page = window.open("dead-letters?subscription=mail")
    page.locator("tbody .row-link").first.click()
    window.settle()
    keep(page, folder, "dead-letter", language)
    keep(window.open("subscriptions"), folder, "subscriptions", language)
    keep(window.open("events?type=order.*"), folder, "events", language)
    page.locator("tbody .row-link", has_text="order.filled").last.click()
    window.settle()
    page.locator(".graph").wait_for()
    keep(page, folder, "event", language)
    keep(window.open("streams/candles/SIM-ETH"), folder, "stream", language)
    page = window.open("projections")
    expect(page.locator("tbody tr")).to_have_count(2)
    keep(page, folder, "projections", language)
    page = window.open("")
    page.locator(".uplot canvas").first.wait_for()
    expect(page.locator(".troubles li")).to_have_count(3)
    keep(page, folder, "overview", language)
    act(window)
    page = window.open("audit")
    expect(page.locator("tbody tr").nth(1)).to_be_visible()
    keep(page, folder, "audit", language)


def act(window: RecordedPage) -> None:
    """Do something that is recorded in the audit log, but changes nothing."""
    page = window.open("subscriptions")
    row = page.locator("tbody tr", has_text="clearing")
    for kind in ("warn", "ok"):
        row.locator(".levers button").first.click()
        expect(row.locator(".badge").first).to_have_class(f"badge {kind}")


def keep(page: Page, folder: Path, name: str, language: str) -> None:
    """Save a screenshot with few colours, which is enough for text and lines."""
    page.evaluate("document.fonts.ready")
    page.locator(".dot.live").first.wait_for()
    suffix = "" if language == "en" else f".{language}"
    path = folder / f"{name}{suffix}.png"
    # The rest of a long list looks the same; cutting it keeps the file small.
    size = page.viewport_size or {"width": WIDTH, "height": HEIGHT}
    shown = {"x": 0, "y": 0, **size, "height": LIST_HEIGHT if name in LISTS else size["height"]}
    page.screenshot(path=path, animations="disabled", clip=shown)  # type: ignore[arg-type]
    print(f"{path.name}  {path.stat().st_size / 1000:.0f} kB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--events", type=int, default=EVENTS)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        file = Path(temporary) / "trading.db"
        play_demo(file, events=arguments.events, speed=PER_SECOND)
        with Stage(file, title="trading.db").app() as app, served(app) as base, browser() as running:
            for language in ("en", "ko"):
                with opened(running, base, language=language, width=WIDTH, height=HEIGHT) as window:
                    take(window, arguments.folder, language)
            with opened(running, base, width=WIDTH, height=HEIGHT, dark=True) as window:
                page = window.open("")
                page.locator(".uplot canvas").first.wait_for()
                keep(page, arguments.folder, "overview-dark", "en")
            with opened(running, base, language="ko", width=390, height=800) as window:
                window.open("")
                keep(window.page, arguments.folder, "phone", "ko")


if __name__ == "__main__":
    main()
