"""Decisions are one page each, numbered, and listed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.pages import KOREAN, ROOT

_FOLDER = ROOT / "docs" / "decisions"
_DECISIONS = sorted(page for page in _FOLDER.glob("[0-9]*.md") if not page.name.endswith(KOREAN))
_KOREAN_DECISIONS = sorted(_FOLDER.glob(f"[0-9]*{KOREAN}"))
_SECTIONS = ["Context", "Decision", "Consequences"]
_KOREAN_SECTIONS = ["배경", "결정", "결과"]


@pytest.mark.parametrize("page", _DECISIONS, ids=lambda page: page.stem)
def test_a_decision_has_a_title_a_status_and_three_sections(page: Path) -> None:
    """A reader who asks why would find no answer, or not know whether it still holds."""
    text = page.read_text("utf-8")
    number, title = page.stem.split("-", 1)
    status = r"Status: (?:accepted|superseded by \[\d{4}\]\(.+\))"
    heading = re.match(rf"# {number}\. (.+)\n\n\[한국어\]\(.+\n\n{status}\n", text)
    assert heading
    words = re.sub(r"[^a-z0-9 ]", "", heading[1].lower()).replace(" ", "-")
    assert words.startswith(title[:16]), "the file is named like its title"
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == _SECTIONS
    assert len(text.splitlines()) <= 60, "one page"
    assert f"[{number}]({page.name})" in (_FOLDER / "README.md").read_text("utf-8")


@pytest.mark.parametrize("page", _KOREAN_DECISIONS, ids=lambda page: page.stem)
def test_a_korean_decision_has_the_same_sections_and_is_listed(page: Path) -> None:
    """Korean readers would find no answer, or take a decision for valid that is not."""
    text = page.read_text("utf-8")
    number = page.name[:4]
    english = page.with_name(page.name.replace(KOREAN, ".md"))
    status = re.search(r"^상태: (?:(채택)|\[\d{4}\]\(.+\))", text, re.MULTILINE)
    assert status
    assert bool(status[1]) is ("\nStatus: accepted\n" in english.read_text("utf-8"))
    assert re.match(rf"<!-- .+ -->\n# {number}\. .+\n\n\[English\]\({re.escape(english.name)}\)", text)
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == _KOREAN_SECTIONS
    assert f"[{number}]({page.name})" in (_FOLDER / "README.ko.md").read_text("utf-8")


def test_no_two_decisions_share_a_number() -> None:
    """A number would refer to two decisions."""
    numbers = [page.name[:4] for page in _DECISIONS]
    assert sorted(set(numbers)) == sorted(numbers)
