"""Run ``pabal demo`` and end it with SIGKILL at a named point: ``killed POINT N -- ARGS``.

``committed:TYPE`` is right after the commit with the Nth event of a type, before its publisher learns of it;
``handling:TYPE`` / ``handled:TYPE`` before and after the Nth handling of one, the latter with everything
published but the watermark not saved; ``saved`` / ``saving`` after and before the Nth save of progress;
``failed`` after the Nth failed attempt; ``parked`` when the poison event is parked.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

from pabal.cli import main
from pabal.demo.meter import Meter
from pabal.ports.storage import Committed
from pabal.ports.telemetry import AttemptFailed, EventParked, Report
from pabal.storage.sqlite import SqliteEventStorage


class Fuse:
    """Kill this process at the Nth call."""

    def __init__(self, count: int) -> None:
        self._left = count

    def burn(self, by: int = 1) -> None:
        self._left -= by
        if self._left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)


def arm(point: str, fuse: Fuse) -> None:
    """Install the fuse at a point."""
    place, _, event_type = point.partition(":")
    if place == "committed":
        notify = SqliteEventStorage._notify

        def notify_and_burn(self: Any, batch: Committed) -> None:
            fuse.burn(sum(event.event_type == event_type for event in batch.events))
            notify(self, batch)

        SqliteEventStorage._notify = notify_and_burn  # type: ignore[method-assign]
    elif place in ("handling", "handled"):
        measure = Meter.measure

        async def handle(self: Any, event: Any, context: Any, call_next: Any) -> Any:
            one = event[0] if isinstance(event, Sequence) else event
            mine = one.event_type == event_type and context.subscription != "portfolio"
            if mine and place == "handling":
                fuse.burn()
            result = await measure(self, event, context, call_next)
            if mine and place == "handled":
                fuse.burn()
            return result

        Meter.measure = handle  # type: ignore[method-assign]
    elif place in ("saving", "saved"):
        save = SqliteEventStorage.save_progress

        async def saved(self: Any, changes: Any) -> Any:
            if place == "saving":
                fuse.burn()
            lost = await save(self, changes)
            if place == "saved":
                fuse.burn()
            return lost

        SqliteEventStorage.save_progress = saved  # type: ignore[method-assign]
    else:
        wanted = {"failed": AttemptFailed, "parked": EventParked}[place]
        listen = Meter.listen

        def listen_and_burn(self: Any, report: Report) -> None:
            listen(self, report)
            if isinstance(report, wanted):
                fuse.burn()

        Meter.listen = listen_and_burn  # type: ignore[method-assign]


if __name__ == "__main__":
    arm(sys.argv[1], Fuse(int(sys.argv[2])))
    sys.argv = ["pabal", "demo", *sys.argv[4:]]
    main()
