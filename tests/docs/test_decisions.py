"""Decisions are one page each, numbered, and listed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.pages import ROOT

_FOLDER = ROOT / "docs" / "decisions"
_DECISIONS = sorted(_FOLDER.glob("[0-9]*.md"))
_SECTIONS = ["Context", "Decision", "Consequences"]


@pytest.mark.parametrize("page", _DECISIONS, ids=lambda page: page.stem)
def test_a_decision_has_its_title_its_status_and_its_three_parts(page: Path) -> None:
    """Whoever asks why would find no answer, or not know whether it still holds."""
    text = page.read_text("utf-8")
    number, title = page.stem.split("-", 1)
    heading = re.match(rf"# {number}\. (.+)\n\nStatus: (accepted|superseded by \[\d{{4}}\]\(.+\))\n", text)
    assert heading
    words = re.sub(r"[^a-z0-9 ]", "", heading[1].lower()).replace(" ", "-")
    assert words.startswith(title[:16]), "the file is named like its title"
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == _SECTIONS
    assert len(text.splitlines()) <= 60, "one page"
    assert f"[{number}]({page.name})" in (_FOLDER / "README.md").read_text("utf-8")


def test_no_two_decisions_have_one_number() -> None:
    """A number would stand for two decisions."""
    numbers = [page.name[:4] for page in _DECISIONS]
    assert sorted(set(numbers)) == sorted(numbers)
