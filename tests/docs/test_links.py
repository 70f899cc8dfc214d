"""What the pages point to exists: other pages, headings, files, pictures."""

from __future__ import annotations

import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from tests.docs.pages import ROOT, all_pages, name_of, prose_of, spans_of

_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_PATH_SPAN = re.compile(r"^(?:src|tests|docs|benchmarks)/[\w./-]+$|^[\w/-]+\.(?:py|sql|svg|md)$")
_PICTURES = ROOT / "docs" / "pictures"


def _anchor_of(heading: str) -> str:
    """Return the anchor that the usual renderers give a heading."""
    text = re.sub(r"[`*_]|\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


def anchors_of(page: Path) -> set[str]:
    """Return the anchors of a page's headings."""
    return {_anchor_of(heading) for heading in re.findall(r"^#+ (.+)$", prose_of(page), re.MULTILINE)}


@pytest.mark.parametrize("page", all_pages(), ids=name_of)
def test_every_link_on_a_page_has_a_target(page: Path) -> None:
    """A reader would follow a link into nothing."""
    broken: list[str] = []
    for target in _LINK.findall(prose_of(page)):
        if re.match(r"^[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in anchors_of(file)):
            broken.append(target)
    assert not broken


@pytest.mark.parametrize("page", all_pages(), ids=name_of)
def test_every_file_that_a_page_names_exists(page: Path) -> None:
    """Readers would look for a file that was moved or renamed."""
    places = (ROOT, ROOT / "src" / "pabal", ROOT / "src" / "pabal" / "storage", page.parent)
    missing = [
        span
        for span in spans_of(page)
        if _PATH_SPAN.match(span)
        and "NNNN" not in span
        and not any((place / span).exists() for place in places)
        and not list(ROOT.glob(f"src/**/{span}"))
    ]
    assert not missing


def test_every_page_is_reachable_from_the_readme() -> None:
    """A page without links to it would not be found."""
    reached: set[Path] = set()
    waiting = [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in reached or not page.is_file():
            continue
        reached.add(page)
        targets = [target.partition("#")[0] for target in _LINK.findall(prose_of(page))]
        waiting += [(page.parent / target).resolve() for target in targets if target.endswith(".md")]
    assert [name_of(page) for page in all_pages() if page not in reached] == []


def test_the_pictures_match_their_source() -> None:
    """A picture would show what was true before the last change of its source."""
    command = [sys.executable, str(_PICTURES / "draw.py"), "--check"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("picture", sorted(_PICTURES.glob("*.svg")), ids=lambda path: path.name)
def test_a_picture_is_well_formed_and_has_its_own_background(picture: Path) -> None:
    """On a page of the other theme, text without a ground of its own cannot be read."""
    root = ElementTree.parse(picture).getroot()
    space = "{http://www.w3.org/2000/svg}"
    first = root.find(f"{space}rect")
    style = root.findtext(f"{space}style") or ""
    assert first is not None
    assert first.get("class") == "page"
    assert "prefers-color-scheme:dark" in style
    assert root.findtext(f"{space}title")


def test_the_watermark_picture_shows_the_numbers_of_the_example() -> None:
    """Picture and example on one page would contradict each other."""
    for name in ("watermark.svg", "watermark.ko.svg"):
        text = (_PICTURES / name).read_text("utf-8")
        assert "watermark 6 · frontier 13 · unfinished [7, 11]" in text
    for name in ("architecture.md", "architecture.ko.md"):
        assert "# → 6 13 (7, 11)" in (ROOT / "docs" / name).read_text("utf-8")


@pytest.mark.parametrize("page", all_pages(), ids=name_of)
def test_a_rendered_page_has_no_leftover_markdown(page: Path) -> None:
    """Asterisks would remain in the text, as where emphasis ends between a bracket and a Korean letter."""
    leftover = [
        child.content
        for token in MarkdownIt("commonmark").enable("table").parse(page.read_text("utf-8"))
        for child in token.children or ()
        if child.type == "text" and ("*" in child.content or "`" in child.content)
    ]
    assert not leftover


@pytest.mark.parametrize(("page", "suffix"), [("dashboard.md", ""), ("dashboard.ko.md", ".ko")])
def test_every_dashboard_screen_has_a_screenshot(page: str, suffix: str) -> None:
    """Readers would have to start it to see what a screen is like."""
    screens = ROOT / "src" / "pabal" / "dashboard" / "static" / "js" / "screens"
    pictures = {
        "audit": ["audit"],
        "dead_letters": ["dead-letters", "dead-letter"],
        "event": ["event"],
        "events": ["events"],
        "overview": ["overview"],
        "projections": ["projections"],
        "streams": ["stream"],
        "subscriptions": ["subscriptions"],
    }
    assert set(pictures) == {screen.stem for screen in screens.glob("*.js")} - {"login"}
    text = (ROOT / "docs" / page).read_text("utf-8")
    shown = [f"(pictures/dashboard/{name}{suffix}.png)" for names in pictures.values() for name in names]
    assert [picture for picture in shown if picture not in text] == []
