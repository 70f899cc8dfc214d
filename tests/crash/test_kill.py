"""After kill -9 at random instants and named points, no acked event is lost and none is skipped."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
from pathlib import Path

import pytest

from pabal import SqliteEventStorage
from tests.crash.check import Findings, check_acked, check_deliveries, read_log
from tests.crash.laboratory import Child, Laboratory
from tests.crash.points import POINTS
from tests.crash.record import BEGUN, lines

pytestmark = pytest.mark.crash


DURABILITIES = ("full", "normal")


async def test_kills_at_random_instants_lose_no_acked_event_and_skip_none(tmp_path: Path) -> None:
    """Promises 1 and 4, a short run: 20 rounds of publishing and handling for each durability."""

    async def kill_repeatedly(durability: str) -> tuple[Laboratory, Findings]:
        laboratory = Laboratory(tmp_path, durability, seed=1)
        for number in range(20):
            await laboratory.kill_at_random(within=0.25)
            if number % 5 == 0:
                findings = laboratory.check_acks()
                assert not findings.wrong, findings
        await laboratory.finish()
        return laboratory, laboratory.check_all()

    for laboratory, findings in await asyncio.gather(*map(kill_repeatedly, DURABILITIES)):
        assert not findings.wrong, findings
        assert laboratory.kills == 20
        assert findings.acked > 200
        assert findings.handled == findings.stored


async def test_a_kill_at_any_named_point_loses_no_acked_event(tmp_path: Path) -> None:
    """Promises 1, 4 and 5, at the instants that a random kill seldom hits."""

    async def kill_at_each(durability: str) -> tuple[Laboratory, Findings]:
        laboratory = Laboratory(tmp_path, durability, seed=2)
        for point in POINTS:
            await laboratory.kill_at_point(point, nth=laboratory.chance.randrange(2, 6))
        await laboratory.finish()
        return laboratory, laboratory.check_all()

    for laboratory, findings in await asyncio.gather(*map(kill_at_each, DURABILITIES)):
        assert laboratory.kills == len(POINTS)
        assert not findings.wrong, findings


async def test_an_event_whose_handler_was_killed_is_delivered_again(tmp_path: Path) -> None:
    """Promise 4: only events that were in flight are delivered again."""
    laboratory = Laboratory(tmp_path, "full", seed=3, failing=0.0)
    await laboratory.kill_at_point("in a handler", nth=25)
    begun = [line.fields for line in lines(laboratory.record) if line.kind == BEGUN][-1]
    await laboratory.finish()
    again = [
        line.fields for line in lines(laboratory.record) if line.kind == BEGUN and line.fields[0] == begun[0]
    ]
    # It is attempt 2, because the first attempt was counted before it ran.
    assert [fields[-1] for fields in again] == ["1", "2"]
    findings = laboratory.check_all()
    assert not findings.wrong, findings


async def test_a_projection_applies_an_event_once_despite_kills_before_the_save(tmp_path: Path) -> None:
    """Promise 5: the handler runs again, but the sum in the same transaction does not change again."""
    laboratory = Laboratory(tmp_path, "full", seed=4, project=True)
    for point, nth in (
        ("after a handler", 9),
        ("before a save", 4),
        ("after commit", 15),
        ("after a handler", 20),
    ):
        await laboratory.kill_at_point(point, nth)
    await laboratory.finish()
    findings = laboratory.check_all()
    assert not findings.wrong, findings
    assert findings.redelivered > 0
    connection = sqlite3.connect(laboratory.path)
    shown = connection.execute("SELECT total, count FROM sums").fetchone()
    expected = connection.execute("SELECT sum(payload ->> 'number'), count(*) FROM events").fetchone()
    connection.close()
    assert shown == expected


async def test_an_event_that_kills_the_process_is_parked_after_its_last_attempt(tmp_path: Path) -> None:
    """Promise 6: attempts are counted across restarts, and other events are not held up."""
    laboratory = Laboratory(tmp_path, "full", seed=5, failing=0.0, publishers=3)
    poison = (1 << 20) + 4
    publishing = await Child.start(laboratory.next_settings(consume=False, per_publisher=10))
    assert await publishing.wait_for_exit() == 0
    # Each of the three keys has this number, so three events kill three processes each.
    deaths = -1
    code = -signal.SIGKILL
    while code == -signal.SIGKILL:
        deaths += 1
        assert deaths <= 9, "the process is killed again and again"
        code = await (
            await Child.start(laboratory.next_settings(publishers=0, poison=poison))
        ).wait_for_exit()
    assert deaths == 9
    async with SqliteEventStorage(laboratory.path) as storage:
        letters = await storage.list_dead_letters()
    assert len(letters) == 3
    for letter in letters:
        assert [failure.attempt for failure in letter.failures] == [1, 2, 3]
        first, *later = [failure.error_type for failure in letter.failures]
        # If the first death left several suspects, each was delivered alone from then on.
        assert first in ("ProcessDied", "ProcessDiedAmongOthers")
        assert later == ["ProcessDied", "ProcessDied"]
        assert "died during attempt 3" in letter.reason
    findings = Findings()
    stored = read_log(laboratory.path, findings)
    check_acked(stored, lines(laboratory.record), findings)
    check_deliveries(stored, lines(laboratory.record), findings, complete=True)
    assert findings.wrong == {"unseen": 3}, findings
    assert {position for position, (_, _, number) in stored.items() if number == poison} == {
        letter.position for letter in letters
    }


async def test_two_processes_killed_in_turns_lose_no_event(tmp_path: Path) -> None:
    """A standby takes over the killed process's subscription while it publishes into the same file."""
    laboratory = Laboratory(tmp_path, "full", seed=6)
    survivor = await Child.start(laboratory.next_settings(prefix="q"))
    assert await survivor.next_line_is("published")
    for turn in range(4):
        newcomer = await Child.start(laboratory.next_settings(prefix=f"r{turn}-"))
        assert await newcomer.next_line_is("published")
        await asyncio.sleep(laboratory.chance.uniform(0, 0.2))
        await survivor.kill()
        survivor = newcomer
    await survivor.kill()
    await laboratory.finish()
    findings = Findings()
    stored = read_log(laboratory.path, findings)
    check_acked(stored, lines(laboratory.record), findings)
    assert not findings.wrong, findings
    # The lines of two processes interleave, so deliveries are checked for completeness only.
    handled = {int(line.fields[0]) for line in lines(laboratory.record) if line.kind == "d"}
    assert handled == set(stored)
