"""The starting points of the exercises: every task is still unsolved, and the tests can be run."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("exercise", ["filtering", "accounts"])
def test_every_test_of_an_exercise_fails_at_its_starting_point(exercise: str) -> None:
    """Learners would believe that they had solved a task before they began."""
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"examples/exercises/{exercise}"],
        cwd=ROOT,
        env={**os.environ, "EXERCISE": "start"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    tests = (ROOT / "examples" / "exercises" / exercise / f"test_{exercise}.py").read_text("utf-8")
    assert re.search(
        rf"^{len(re.findall(r'def test_task', tests))} failed in ", result.stdout, re.MULTILINE
    ), result.stdout[-2000:]
