from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from tests.delivery.harness import Harness

from pabal.delivery import consumer as consumer_module
from pabal.delivery import feed, pages, spilling


@pytest.fixture
async def harness() -> AsyncIterator[Harness]:
    made = Harness()
    await made.bus.start()
    yield made
    await made.bus.stop(timeout=0)


@pytest.fixture
def small_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (pages, feed):
        monkeypatch.setattr(module, "BUFFER_HIGH", 32)
    for module in (consumer_module, feed, spilling):
        monkeypatch.setattr(module, "BUFFER_LOW", 16)
    monkeypatch.setattr(feed, "BUFFER_LIVE", 32)
    monkeypatch.setattr(spilling, "SPILL_KEEP", 4)
    monkeypatch.setattr(feed, "_PAGE", 8)
    monkeypatch.setattr(feed, "_READ", 24)
