"""A real Chromium with a real server, on a log that was written by the demo and a small bus."""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from pabal.dashboard.server import listen

NAMES = ("chromium", "chromium-browser", "google-chrome")
LONG = 20_000
"""Milliseconds after which a page counts as hung."""


def executable() -> str:
    """Return the path of Chromium; fail if it is missing, because a skipped test proves nothing."""
    path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    assert path is not None, "Chromium is missing: apt-get install chromium, or set CHROMIUM=/path/to/it"
    return path


@contextmanager
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        # Chromium's sandbox needs privileges that containers lack; it opens only our own pages here.
        running = playwright.chromium.launch(executable_path=executable(), args=["--no-sandbox"])
        try:
            yield running
        finally:
            running.close()


@contextmanager
def served(app: Any) -> Iterator[str]:
    """Serve an application in its own thread, and yield its address."""
    listener = listen("127.0.0.1", 0)
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


def run_in_thread(work: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine in its own thread, because this one may already run the browser's event loop."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, work).result()


class RecordedPage:
    """A page that records its errors and its requests to other hosts."""

    def __init__(self, context: BrowserContext, base: str) -> None:
        self.base = base
        self.faults: list[str] = []
        self.page: Page = context.new_page()
        self.page.set_default_timeout(LONG)
        self.page.on("console", self._record_console)
        self.page.on("pageerror", lambda error: self.faults.append(f"error: {error}"))
        self.page.on("request", self._record_request)

    def _record_console(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.faults.append(f"{message.type}: {message.text}")

    def _record_request(self, request: Any) -> None:
        if not request.url.startswith(self.base):
            self.faults.append(f"request to {request.url}")

    def open(self, path: str) -> Page:
        """Open a path, and return once the screen shows its data."""
        self.page.goto(self.base + path)
        self.settle()
        return self.page

    def settle(self) -> None:
        """Wait until there is a heading and nothing is loading."""
        self.page.locator("h1").first.wait_for()
        self.page.locator(".bones").first.wait_for(state="detached")
        self.page.locator("[aria-busy=true]").first.wait_for(state="detached")


@contextmanager
def opened(
    running: Browser,
    base: str,
    *,
    language: str = "en",
    width: int = 1280,
    height: int = 860,
    dark: bool = False,
) -> Iterator[RecordedPage]:
    """Open a window in a language and size; at its end, check that no error occurred in it."""
    context = running.new_context(
        viewport={"width": width, "height": height},
        locale={"en": "en-GB", "ko": "ko-KR"}[language],
        timezone_id="Asia/Seoul",
        color_scheme="dark" if dark else "light",
        reduced_motion="reduce",
    )
    try:
        watched = RecordedPage(context, base)
        yield watched
        assert watched.faults == []
    finally:
        context.close()


def axe_script() -> str:
    """Return the source of axe-core, from a Python package that contains it."""
    import axe_playwright_python  # type: ignore[import-untyped]

    folder = Path(axe_playwright_python.__file__).parent
    return next(folder.rglob("axe.min.js")).read_text("utf-8")
