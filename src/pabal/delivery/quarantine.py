"""Make deliveries that may have killed a process one at a time, so that another death has one suspect."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pabal.ports.storage import DIED_AMONG_OTHERS, PROCESS_DIED, AttemptFailure

if TYPE_CHECKING:
    from pabal.delivery.bookkeeping import Failing
    from pabal.delivery.consumer import Consumer
    from pabal.delivery.engine import Engine
    from pabal.delivery.lane import Lane

_LONGEST = 10.0
"""Seconds until everything goes on even without a suspect: it may be waiting for a delivery held back."""
_MOST_REPRIEVES = 3


class Quarantine:
    """Hold back all lanes while there are suspects, except for one suspect at a time.

    A dead process leaves a record of the deliveries that were in flight, but not of the one that killed it.
    An attempt is counted for all of them; if they were made side by side again, innocent ones would be parked
    together with the guilty one.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.active = False
        """Workers ask ``admits`` before they take a lane, and call ``settle`` after it."""
        self._suspects: dict[tuple[Consumer, int], Failing] = {}
        self._held: list[Lane] = []
        self._running = False
        self._until = 0.0

    def suspect_if_died(self, consumer: Consumer, position: int, failing: Failing) -> None:
        """Make a delivery a suspect if its process died during its last attempt."""
        if not died_in_last_attempt(failing.failures):
            return
        clock = self._engine.clock
        self._until = clock.monotonic() + _LONGEST
        self._engine.timers.add(_LONGEST, self._expire)
        self.active = True
        self._suspects[consumer, position] = failing

    def allows_extra_attempt(self, consumer: Consumer, position: int, excess: int) -> bool:
        """Return whether a delivery gets an attempt beyond its limit.

        It does, up to three times, if it last died among others: nothing proves that it was the cause.
        """
        failing = consumer.failing.get(position)
        return (
            failing is not None
            and excess <= _MOST_REPRIEVES
            and bool(failing.failures)
            and failing.failures[-1].error_type == DIED_AMONG_OTHERS
        )

    def admits(self, lane: Lane) -> bool:
        """Tell a worker whether to take a lane now; if not, the lane is held back."""
        if not self._running and self._is_quiet() and self._bring_forward(lane):
            self._running = True
            lane.consumer.slice = 1
            return True
        self._held.append(lane)
        return False

    def settle(self) -> None:
        """Record that a worker has left a lane."""
        self._running = False
        self._suspects = {
            (consumer, position): failing
            for (consumer, position), failing in self._suspects.items()
            if consumer.failing.get(position) is failing
        }
        if not self._suspects:
            self.active = False
        self.release_if_quiet()

    def release_if_quiet(self) -> None:
        """Let workers ask for held lanes again: a suspect may have entered one of them."""
        if not self.active or (not self._running and self._is_quiet()):
            self._release()

    def reset(self) -> None:
        """Forget all suspects and held lanes, as the engine stops."""
        self.active = self._running = False
        self._suspects.clear()
        self._held.clear()

    def _expire(self) -> None:
        if self.active and self._engine.clock.monotonic() >= self._until:
            self.active = False
            self._suspects.clear()
            self._release()

    def _is_quiet(self) -> bool:
        return not any(consumer.in_flight for consumer in self._engine.consumers.values())

    def _bring_forward(self, lane: Lane) -> bool:
        """Return whether a lane holds a suspect; in a shared lane, move it to the front."""
        for index, item in enumerate(lane.items):
            if (lane.consumer, item[0]) in self._suspects:
                if lane.shared:
                    del lane.items[index]
                    lane.items.appendleft(item)
                return True
        return False

    def _release(self) -> None:
        held, self._held = self._held, []
        for lane in held:
            self._engine.make_ready(lane)


def died_in_last_attempt(failures: tuple[AttemptFailure, ...]) -> bool:
    """Return whether the process died during the last of these attempts."""
    return bool(failures) and failures[-1].error_type in (PROCESS_DIED, DIED_AMONG_OTHERS)
