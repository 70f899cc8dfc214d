"""Event ids: their form, their order, and their uniqueness."""

import re
import subprocess
import sys
import threading
import time
from uuid import UUID

import pytest

from pabal.domain import ids, new_event_id

FORM = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


def test_an_id_is_a_version_7_uuid_with_its_creation_time() -> None:
    """Other programs could not parse the ids, and rows would not be in order of time."""
    before = time.time_ns() // 1_000_000
    text = new_event_id()
    after = time.time_ns() // 1_000_000
    assert FORM.fullmatch(text)
    assert UUID(text).version == 7
    assert before <= int(text.replace("-", "")[:12], 16) <= after


def test_ids_of_one_thread_are_ascending() -> None:
    """Two events of one millisecond would enter the index out of order, at half the speed."""
    made = [new_event_id() for _ in range(50_000)]
    assert made == sorted(made)
    assert len(set(made)) == len(made)


def test_ids_keep_ascending_when_the_clock_goes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A correction of the system clock would put new events before old ones."""
    first = new_event_id()
    monkeypatch.setattr(ids, "time_ns", lambda: time.time_ns() - 3_600_000_000_000)
    later = [new_event_id() for _ in range(100)]
    assert [first, *later] == sorted([first, *later])


def test_ids_are_unique_across_threads_and_ascending_in_each() -> None:
    """Two threads that begin a millisecond at once could each continue below the other's ids."""
    made: list[list[str]] = [[] for _ in range(8)]
    together = threading.Barrier(len(made))

    def make(into: list[str]) -> None:
        together.wait()
        into.extend(new_event_id() for _ in range(10_000))

    threads = [threading.Thread(target=make, args=(into,)) for into in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({one for into in made for one in into}) == 80_000
    assert all(into == sorted(into) for into in made)


def test_only_one_thread_begins_a_new_millisecond(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that lost the race would replace the winner's counter, and the winner's ids would descend."""
    monkeypatch.setattr(ids, "_state", ids._new_state(1000))
    winner = ids._advance(1001)
    assert ids._advance(1001) is winner
    assert ids._advance(1000) is winner
    assert ids._advance(1002) is not winner


def test_a_forked_child_creates_unique_ids_without_waiting_for_the_parents_lock() -> None:
    """A child would repeat its parent's ids, or hang on a lock held by a thread of the parent."""
    script = """
import os, signal
from pabal.domain import ids, new_event_id
new_event_id()
ids.time_ns = lambda: 10**18  # both stay in one millisecond
ids._replacing.acquire()
ids._state = ids._new_state(10**12)
readable, writable = os.pipe()
child = os.fork()
if child == 0:
    signal.alarm(30)
    os.write(writable, "".join(new_event_id() for _ in range(100)).encode())
    os._exit(0)
ids._replacing.release()
mine = {new_event_id() for _ in range(100)}
assert os.waitpid(child, 0)[1] == 0, "the child hung"
text = os.read(readable, 3600).decode()
theirs = {text[at : at + 36] for at in range(0, 3600, 36)}
assert len(mine | theirs) == 200, "repeated"
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
