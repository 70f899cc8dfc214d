"""The screen of projections in a browser: both languages, dark mode, a phone, a screen reader."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from pabal import InMemoryEventStorage, SqliteEventStorage
from pabal.dashboard import create_dashboard
from tests.cli.models import Quantities
from tests.dashboard.browser import LONG, axe_script, browser, opened, run_in_thread, served
from tests.operations.conftest import ShopOrder

pytestmark = pytest.mark.browser
expect.set_options(timeout=LONG)


class _StopHereError(BaseException):
    pass


def _stop_here(position: int, head: int) -> None:
    raise _StopHereError


class QuantitiesOfEachCustomerByMonthAndWarehouse(Quantities):
    """A projection with names longer than a phone is wide."""

    tables = (
        "CREATE TABLE {quantities_of_each_customer_by_month_and_warehouse} (quantity INTEGER NOT NULL);"
        "CREATE TABLE {quantities} (order_id TEXT PRIMARY KEY, quantity INTEGER NOT NULL)"
    )


async def _fill(path: Path) -> None:
    async with SqliteEventStorage(path, durability="normal") as storage:
        await storage.store_events([ShopOrder(f"o-{n}", n) for n in range(12_000)])
        async with QuantitiesOfEachCustomerByMonthAndWarehouse(storage):
            pass
        with pytest.raises(_StopHereError):
            await QuantitiesOfEachCustomerByMonthAndWarehouse(storage).rebuild(progress=_stop_here)
        await storage.store_events([ShopOrder(f"p-{n}", n) for n in range(345)])


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as running:
        yield running


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    path = tmp_path_factory.mktemp("projections") / "log.db"
    run_in_thread(_fill(path))
    with SqliteEventStorage(path) as storage, served(create_dashboard(storage)) as address:
        yield address


@pytest.mark.parametrize("language", ["en", "ko"])
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (1280, True), (360, False)])
def test_the_projections_screen_renders_fits_and_passes_accessibility_checks(
    chromium: Browser, base: str, language: str, width: int, dark: bool
) -> None:
    """It would throw, be in the wrong language, overflow on a phone, or be unusable with a reader."""
    with opened(chromium, base, language=language, width=width, dark=dark) as window:
        page = window.open("projections")
        expect(page.locator("h1")).to_have_text({"en": "Projections", "ko": "프로젝션"}[language])
        row = page.locator("tbody tr", has_text=QuantitiesOfEachCustomerByMonthAndWarehouse.name)
        expect(row).to_contain_text("12,000")
        expect(row).to_contain_text("345")
        expect(row).to_contain_text({"en": "version 1", "ko": "버전 1"}[language])
        assert page.locator("main button").count() == 0
        overflow = page.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        assert overflow <= 0, f"{overflow} pixels too wide"
        page.evaluate(axe_script())
        found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        assert [
            (one["id"], [node["html"][:160] for node in one["nodes"][:3]])
            for one in found["violations"]
            if one["impact"] in ("serious", "critical")
        ] == []


def test_navigation_items_do_not_overlap_on_a_phone(chromium: Browser, base: str) -> None:
    """The names would overlap, and users not know what a tap opens."""
    for language in ("en", "ko"):
        with opened(chromium, base, language=language, width=360) as window:
            page = window.open("projections")
            wide = page.evaluate(
                "[...document.querySelectorAll('nav.nav a')].filter(a => a.scrollWidth > a.clientWidth)"
                ".map(a => a.innerText)"
            )
            assert wide == []


def test_the_projections_screen_is_reachable_by_keyboard_and_has_an_empty_state(chromium: Browser) -> None:
    """An empty table would look like one that is still loading."""
    app = create_dashboard(InMemoryEventStorage())
    with served(app) as address, opened(chromium, address) as window:
        page = window.open("")
        page.keyboard.press("g")
        page.keyboard.press("p")
        expect(page).to_have_url(re.compile("projections$"))
        expect(page.locator(".blank")).to_contain_text("No projections")
