"""Each problem on a page names what keeps it away, and that is there."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, all_pages, name_of, spans_of

_LEARN = ROOT / "docs" / "learn"
_EXAMPLES_OF_A_NAME = {"test_a_retry_of_one_key_does_not_delay_another"}
"""Names that a page shows to say how tests are named."""


@cache
def _tests_of(file: Path) -> frozenset[str]:
    return frozenset(re.findall(r"^(?:async )?def (test_\w+)", file.read_text("utf-8"), re.MULTILINE))


@cache
def _every_test() -> frozenset[str]:
    files = [*ROOT.glob("tests/**/test_*.py"), *ROOT.glob("examples/**/test_*.py")]
    return frozenset(name for file in files for name in _tests_of(file))


@pytest.mark.parametrize("page", all_pages(), ids=name_of)
def test_every_test_named_on_a_page_exists(page: Path) -> None:
    """Readers would look for the proof of a sentence, and find none."""
    named = {span for span in spans_of(page) if re.fullmatch(r"test_\w+", span)}
    assert named - _every_test() - _EXAMPLES_OF_A_NAME == set()


@pytest.mark.parametrize(("page", "word"), [("problems-met.md", "Test"), ("problems-met.ko.md", "테스트")])
def test_each_solved_problem_names_existing_tests(page: str, word: str) -> None:
    """It would come back, and the page go on to say that it is solved."""
    _, *problems = re.split(r"^## ", (_LEARN / page).read_text("utf-8"), flags=re.MULTILINE)
    assert len(problems) >= 8
    for problem in problems:
        answer = problem.partition(f"*{word}")[2]
        (file,) = re.findall(r"`(tests/[\w/]+\.py)`", answer)
        tests = _tests_of(ROOT / file)
        assert tests, problem
        assert set(re.findall(r"`(test_\w+)`", answer)) <= tests, problem


@pytest.mark.parametrize("page", ["eight-problems.md", "eight-problems.ko.md"])
def test_each_of_the_eight_problems_has_a_test(page: str) -> None:
    """The page says that each of them is one."""
    numbers = re.findall(r"^## (\d)\. ", (_LEARN / page).read_text("utf-8"), re.MULTILINE)
    tests = _tests_of(ROOT / "tests" / "bus" / "test_eight_problems.py")
    assert numbers == [str(number) for number in range(1, 9)]
    assert {name.split("_")[1] for name in tests} == set(numbers)
