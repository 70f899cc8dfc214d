"""The dashboard of a group on a real Valkey server, in a real browser."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
from playwright.sync_api import expect
from starlette.applications import Starlette
from starlette.routing import Mount

from pabal import EventBusFactory
from pabal.dashboard import create_dashboard
from pabal.factory import open_operations
from tests.brokers.server import Server
from tests.dashboard.browser import LONG, browser, opened, run_in_thread, served
from tests.operations.conftest import ShopOrder

pytestmark = pytest.mark.browser
expect.set_options(timeout=LONG)


async def _publish(url: str) -> None:
    async with EventBusFactory.from_url(url) as bus:

        async def pack(event: ShopOrder) -> None:
            if event.quantity < 0:
                raise ValueError("nobody packs less than nothing")

        bus.subscribe(ShopOrder, pack, name="pack", retry_count=0)
        await bus.publish_batch([ShopOrder(f"o-{n}", n) for n in (1, 2, -3)])
        await bus.drain()


@pytest.fixture
def url() -> Iterator[str]:
    server = Server()
    server.start()
    try:
        url = f"{server.url}?group=shop"
        run_in_thread(_publish(url))
        yield url
    finally:
        server.remove()


def _dashboard(url: str) -> Starlette:
    operations = open_operations(url)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with operations:
            yield

    routes = [Mount("/", create_dashboard(operations, allow_actions=True))]
    return Starlette(routes=routes, lifespan=lifespan)


def test_a_reset_of_a_group_offers_only_what_a_group_supports(url: str) -> None:
    """A user who picks a position, which is ambiguous with several partitions, would get an error."""
    with browser() as running, served(_dashboard(url)) as base, opened(running, base) as window:
        page = window.open("events")
        links = page.get_by_role("navigation").get_by_role("link")
        assert not {"Streams", "Projections"} & set(links.all_inner_texts())
        expect(page.locator("tbody td.stream a").first).to_have_attribute(
            "href", re.compile(r"events\?aggregate=")
        )
        page = window.open("subscriptions")
        row = page.locator("tbody tr", has_text="pack")
        row.get_by_role("button", name="Reset pack").click()
        choice = page.get_by_label("Move to")
        assert choice.locator("option").evaluate_all("all => all.map(one => one.value)") == [
            "beginning",
            "now",
            "time",
        ]
        choice.select_option("now")
        page.get_by_role("button", name="Preview").click()
        page.get_by_label("Type pack to confirm").fill("pack")
        page.get_by_role("button", name="Reset", exact=True).click()
        expect(page.get_by_text("pack was reset.")).to_be_visible()
