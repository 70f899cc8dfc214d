"""A bus on SQLite and a bus on the in-memory storage behave the same under any sequence of commands."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pabal import DomainEvent, InMemoryEventStorage, SqliteEventStorage
from tests.conformance.system import SUBSCRIPTIONS, NoteTaken, Quiet, System, is_for, outcome_of

KEYS = st.sampled_from(("a", "b", None))
FAILS = st.sampled_from((0, 0, 0, 1, 2, 3, 4, 7))
NAMES = st.sampled_from(tuple(SUBSCRIPTIONS))
STARTS = st.sampled_from(("beginning", "now")) | st.integers(0, 12)
INDEXES = st.integers(0, 50)


class TwoStorages(RuleBasedStateMachine):
    """Give both systems the same commands, and compare everything observable after each."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = Path(tempfile.mkdtemp(prefix="pabal-model-"))
        self.systems: list[System] = []
        self.published: list[Any] = []
        self.discarded: set[tuple[str, int]] = set()
        """(subscription, number) of dead letters that were discarded."""
        self.from_start: set[str] = set()
        """Subscriptions that must have handled the whole log by the end."""
        self.known: set[str] = set()
        self.trimmed = False
        """Only one of the two logs can be trimmed; after that, nothing may ask for old events."""
        self.number = 0

    # -- both at once ---------------------------------------------------------------------------------

    def both(self, command: Callable[[System], Coroutine[Any, Any, Any]], *, settle: bool = True) -> Any:
        """Give a command to both systems; its outcomes must be equal."""

        async def run(system: System) -> Any:
            result = await outcome_of(command(system))
            if settle:
                await system.settle()
            return result

        first, second = [self.runner.run(run(system)) for system in self.systems]
        assert first == second, f"in memory {first}, on SQLite {second}"
        return first

    def make(self, key: str | None, fails: int, fatal: bool) -> NoteTaken:
        self.number += 1
        return NoteTaken(key, self.number, fails, fatal)

    @initialize(names=st.sets(NAMES, min_size=2))
    def begin(self, names: set[str]) -> None:
        async def make(storage: Callable[[], Any]) -> System:
            system = System(storage)
            for name in sorted(names):
                await system.subscribe(name, "now")
            await system.start()
            return system

        self.known, self.from_start = set(names), set(names)
        sqlite = SqliteEventStorage(self.folder / "model.db", "normal")
        self.systems = [self.runner.run(make(storage)) for storage in (InMemoryEventStorage, lambda: sqlite)]

    # -- publishing -----------------------------------------------------------------------------------

    @rule(key=KEYS, fails=FAILS, fatal=st.sampled_from((False, False, False, False, True)))
    def publish(self, key: str | None, fails: int, fatal: bool) -> None:
        self._publish([self.make(key, fails, fatal)])

    @rule(specs=st.lists(st.tuples(KEYS, FAILS), min_size=1, max_size=6), quiet=st.booleans())
    def publish_batch(self, specs: list[tuple[str | None, int]], quiet: bool) -> None:
        events: list[DomainEvent] = [self.make(key, fails, False) for key, fails in specs]
        if quiet:
            self.number += 1
            events.append(Quiet(self.number))
        self._publish(events)

    @rule(keys=st.lists(KEYS, min_size=2, max_size=4))
    def publish_at_once(self, keys: list[str | None]) -> None:
        events = [self.make(key, 0, False) for key in keys]

        async def publish(system: System) -> list[int | None]:
            receipts = await asyncio.gather(*(system.bus.publish(event) for event in events))
            return [receipt.position for receipt in receipts]

        self.both(publish)
        self.published += events

    def _publish(self, events: list[Any], *, settle: bool = True) -> None:
        async def publish(system: System) -> list[int | None]:
            return [receipt.position for receipt in await system.bus.publish_batch(events)]

        self.both(publish, settle=settle)
        self.published += events

    @precondition(lambda self: self.published and not self.trimmed)
    @rule(index=INDEXES)
    def publish_again(self, index: int) -> None:
        event = self.published[index % len(self.published)]
        self.both(lambda system: system.storage.store_event(event))

    @precondition(lambda self: self.published and not self.trimmed)
    @rule(index=INDEXES)
    def publish_another_under_the_same_id(self, index: int) -> None:
        event = self.published[index % len(self.published)]
        other = NoteTaken("a", -1, event_id=event.event_id)
        kind, _ = self.both(lambda system: system.bus.publish_batch([Quiet(-2), other]))
        assert kind == "DuplicateEventError"

    @rule(key=KEYS)
    def publish_an_invalid_batch(self, key: str | None) -> None:
        bad = [NoteTaken(key, -1), NoteTaken(key, -2, price=float("nan"))]
        kind, _ = self.both(lambda system: system.bus.publish_batch(bad))
        assert kind == "NonFiniteNumberError"

    @rule(expected=st.integers(0, 6), fails=FAILS)
    def append_at_a_version(self, expected: int, fails: int) -> None:
        event = self.make("a", fails, False)
        result = self.both(lambda s: s.storage.append("note", "a", [event], expected_version=expected))
        if isinstance(result, list):
            self.published.append(event)

    @rule(key=KEYS, delay=st.sampled_from((0, 5, 15, 25)))
    def schedule(self, key: str | None, delay: int) -> None:
        event = self.make(key, 0, False)

        async def publish(system: System) -> int | None:
            return (await system.bus.publish(event, delay=delay)).position

        self.both(publish)

    # -- time and life --------------------------------------------------------------------------------

    @rule(steps=st.integers(1, 3))
    def let_time_pass(self, steps: int) -> None:
        self.both(lambda system: system.advance(steps))

    @rule()
    def restart(self) -> None:
        self.both(lambda system: system.restart())

    @rule(specs=st.lists(st.tuples(KEYS, FAILS), min_size=1, max_size=6))
    def restart_during_delivery(self, specs: list[tuple[str | None, int]]) -> None:
        self._publish([self.make(key, fails, False) for key, fails in specs], settle=False)
        self.both(lambda system: system.restart())

    @rule(name=NAMES, start=STARTS)
    def subscribe(self, name: str, start: Any) -> None:
        if self.trimmed and name not in self.known:
            start = "now"
        if name not in self.systems[0].subscribed:
            self.both(lambda system: system.subscribe(name, start))
            if name not in self.known and start in ("beginning", 0):
                self.from_start.add(name)
            self.known.add(name)

    @rule(name=NAMES)
    def unsubscribe(self, name: str) -> None:
        if name in self.systems[0].subscribed:
            assert self.both(lambda system: system.unsubscribe(name))

    @rule()
    def resume_halted(self) -> None:
        self.both(lambda system: system.bus.resume("stops"))

    @rule(keep=st.integers(0, 10))
    def trim(self, keep: int) -> None:
        sqlite = self.systems[1]
        gone = self.runner.run(sqlite.storage.trim(max_events=keep))
        self.trimmed = self.trimmed or gone.deleted > 0

    # -- dead letters ---------------------------------------------------------------------------------

    @rule(index=INDEXES)
    def retry_one(self, index: int) -> None:
        async def retry(system: System) -> int | None:
            letter = await system.letter_at(index)
            return None if letter is None else await system.bus.dead_letters.retry(letter.id)

        self.both(retry)

    @rule(index=INDEXES, fails=FAILS, key=KEYS | st.just("as it was"))
    def edit_and_retry(self, index: int, fails: int, key: str | None) -> None:
        async def edit(system: System) -> bool | None:
            letter = await system.letter_at(index)
            if letter is None:
                return None
            payload = {**letter.payload, "fails": fails, "fatal": False}
            if "key" in payload and key != "as it was":
                payload["key"] = key
            return await system.bus.dead_letters.edit_and_retry(letter.id, payload)

        self.both(edit)

    @rule(index=INDEXES)
    def discard(self, index: int) -> None:
        async def discard(system: System) -> tuple[str, int] | None:
            letter = await system.letter_at(index)
            if letter is None:
                return None
            await system.bus.dead_letters.discard(letter.id)
            return letter.subscription, letter.payload["number"]

        gone = self.both(discard)
        if gone is not None:
            self.discarded.add(gone)

    # -- what must hold -------------------------------------------------------------------------------

    @invariant()
    def both_systems_agree(self) -> None:
        if not self.systems:
            return
        floor = self._floor()
        first, second = [self.runner.run(system.observe(floor)) for system in self.systems]
        for what, seen in first.items():
            assert second[what] == seen, f"{what}: in memory {seen}, on SQLite {second[what]}"

    def _floor(self) -> int:
        """Return the position up to which the log was trimmed."""

        async def find(system: System) -> int:
            async for envelope in system.storage.read(limit=1):
                return int(envelope.position) - 1
            return int(await system.storage.head())

        return self.runner.run(find(self.systems[1]))

    def teardown(self) -> None:
        try:
            if self.systems:
                self._fix_and_check()
        finally:
            for system in self.systems:
                self.runner.run(system.bus.stop())
                self.runner.run(system.storage.aclose())
            self.runner.close()
            shutil.rmtree(self.folder)

    def _fix_and_check(self) -> None:
        """Fix every failure, and check that nothing was lost or handled twice."""

        floor = self._floor()

        async def stored(system: System) -> dict[str, Any]:
            await system.bus.stop()
            seen = await system.observe_storage(floor)
            await system.restart()
            return seen

        async def fix_and_retry(system: System) -> int:
            system.failures_fixed = True
            for name in sorted(self.known - system.subscribed.keys()):
                await system.subscribe(name, "now")
            await system.restart()
            await system.advance(3)
            begun = await system.bus.dead_letters.retry("all")
            await system.settle()
            return begun

        self.both(stored)
        self.both(fix_and_retry)
        self.both_systems_agree()
        for system in self.systems:
            self._assert_nothing_lost(system)

    def _assert_nothing_lost(self, system: System) -> None:
        assert self.runner.run(system.bus.dead_letters.list()) == []
        log = self.runner.run(self.systems[0].log())
        for name in self.known:
            numbers = sorted(number for _, number in system.handled[name])
            assert len(set(numbers)) == len(numbers), f"{name} handled an event twice: {numbers}"
            wanted = {event.number for event in log if is_for(name, event)}
            gone = {number for subscription, number in self.discarded if subscription == name}
            assert set(numbers) <= wanted
            if name in self.from_start:
                lost = wanted - gone - set(numbers)
                assert not lost, f"{name} lost {sorted(lost)}"


TestTwoStorages = TwoStorages.TestCase
TestTwoStorages.settings = settings(
    max_examples=30,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
