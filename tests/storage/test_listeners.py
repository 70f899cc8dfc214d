"""Functions that both storages call after a change."""

from __future__ import annotations

from typing import Any

import pytest

from pabal.ports.storage import Committed
from tests.storage.events import ticks


async def test_a_listener_that_raises_fails_neither_the_change_nor_other_listeners(
    any_storage: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """A publisher would be told that its event is not stored, and store it again under another id."""
    heard: list[object] = []

    def broken(*batch: Committed) -> None:
        raise LookupError("not my day")

    for add in (any_storage.add_listener, any_storage.add_control_listener):
        add(broken)
        add(lambda *batch: heard.append(batch))
    assert await any_storage.store_events(ticks(2)) == [1, 2]
    await any_storage.open_subscription("sub", "now")
    assert await any_storage.pause_subscription("sub")
    assert len(heard) == 2
    assert caplog.text.count("LookupError: not my day") == 2
