"""Use an installed pabal as a stranger would.

`make dist` runs it where the wheel alone is installed, and from outside the checkout: what is
used must be the installed files.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import importlib.resources
import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path

from pabal import DomainEvent, EventBusFactory
from pabal.errors import MissingExtraError


class OrderPlaced(DomainEvent):
    """An event to carry through a file."""

    order_id: str


async def deliver(path: Path, publish: list[str]) -> list[str]:
    """Live one life of a process: publish, deliver what is unfinished, end. Returns what was delivered."""
    bus = EventBusFactory.create_default_event_bus(str(path))
    delivered: list[str] = []

    @bus.on(OrderPlaced, name="orders", start="beginning")
    async def note(event: OrderPlaced) -> None:
        delivered.append(event.order_id)

    async with bus:
        await bus.publish_batch([OrderPlaced(order_id) for order_id in publish])
        await bus.drain()
    return delivered


def main() -> None:
    """Check what is installed; raises AssertionError for what is wrong."""
    root = importlib.resources.files("pabal")
    assert "site-packages" in str(root), f"this is not the installed package: {root}"
    assert (root / "py.typed").is_file(), "type checkers would ignore every annotation"
    names = {requirement.split(">")[0] for requirement in importlib.metadata.requires("pabal") or ()}
    assert "msgspec" in names
    assert importlib.util.find_spec("rich") is None, "this environment holds more than the wheel needs"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "orders.db"
        assert asyncio.run(deliver(path, ["o-1", "o-2"])) == ["o-1", "o-2"]
        assert asyncio.run(deliver(path, ["o-3"])) == ["o-3"], (
            "finished events came again, or a new one did not"
        )
    try:
        EventBusFactory.create_redis_event_bus("redis://localhost", group="smoke")
    except MissingExtraError as error:
        told_how = "pabal[redis]" in str(error)
    else:
        raise AssertionError("a bus on Redis was made without the extra that it needs")
    assert told_how, "the error does not say how to get the extra"
    command = [sys.executable, "-m", "pabal", "--help"]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "pabal[cli]" in told.stdout + told.stderr, told
    print(f"pabal {importlib.metadata.version('pabal')} works from its wheel")


if __name__ == "__main__":
    main()
