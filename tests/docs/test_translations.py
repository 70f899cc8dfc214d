"""English and Korean readers find the same."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.docs.pages import KOREAN, ROOT, all_pages, blocks_of, name_of, prose_of

_ENGLISH_ALONE = {"CHANGELOG.md"}
_KOREAN_PAGES = [page for page in all_pages() if page.name.endswith(KOREAN)]


def _english_of(page: Path) -> Path:
    return page.with_name(page.name.replace(KOREAN, ".md"))


def _tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("translations", ROOT / "docs" / "translations.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_no_korean_page_lags_behind_the_english_page() -> None:
    """Korean readers would read outdated text. The output lists the pages."""
    result = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "translations.py")], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_every_page_exists_in_both_languages() -> None:
    """Readers of one language would have no page."""
    english = {page for page in all_pages() if not page.name.endswith(KOREAN)}
    alone = {name_of(page) for page in english - {_english_of(page) for page in _KOREAN_PAGES}}
    assert alone - _ENGLISH_ALONE == set()


@pytest.mark.parametrize("page", _KOREAN_PAGES, ids=name_of)
def test_the_pages_of_both_languages_link_to_each_other(page: Path) -> None:
    """A reader who came to the wrong language would have to search for the right one."""
    english = _english_of(page)
    assert f"[English]({english.name})" in page.read_text("utf-8")
    assert f"[한국어]({page.name})" in english.read_text("utf-8")


@pytest.mark.parametrize("page", _KOREAN_PAGES, ids=name_of)
def test_a_korean_page_links_to_korean_pages(page: Path) -> None:
    """A Korean reader would land on an English page though there is a Korean one."""
    english = [
        target
        for text, target in re.findall(r"\[([^\]]*)\]\(([^)#\s]+\.md)[^)]*\)", prose_of(page))
        if text != "English"
        and not target.endswith(KOREAN)
        and (page.parent / target.replace(".md", KOREAN)).is_file()
    ]
    assert english == []


@pytest.mark.parametrize("page", _KOREAN_PAGES, ids=name_of)
def test_a_korean_page_has_the_structure_of_the_english_page(page: Path) -> None:
    """A section, a row of a table or a picture would be missing in one language."""
    assert _shape(page) == _shape(_english_of(page))


@pytest.mark.parametrize("page", _KOREAN_PAGES, ids=name_of)
def test_the_examples_of_both_languages_differ_only_in_comments(page: Path) -> None:
    """The two languages would teach different code."""
    assert _code(page) == _code(_english_of(page))


def _shape(page: Path) -> list[str]:
    """Return the sequence of headings, blocks and pictures, and of table rows with their number of cells."""
    shape: list[str] = []
    inside = False
    for line in page.read_text("utf-8").splitlines():
        if line.lstrip().startswith("```"):
            inside = not inside
            if inside:
                shape.append(line.strip())
        elif inside:
            continue
        elif line.startswith("#"):
            shape.append(line.split(" ")[0])
        elif line.startswith("|"):
            shape.append("row of " + str(len(re.split(r"(?<!\\)\|", line)) - 2))
        elif line.startswith("!["):
            shape.append("picture")
    return shape


def _code(page: Path) -> list[str]:
    return [
        ast.unparse(ast.parse(block.text)) if block.info.startswith("python") else ""
        for block in blocks_of(page)
    ]


# -- the tool itself ----------------------------------------------------------------------------------------


def test_a_changed_english_page_makes_the_korean_page_lag_until_accepted(tmp_path: Path) -> None:
    """The check would pass whatever changes."""
    tool = _tool()
    english, korean = tmp_path / "page.md", tmp_path / "page.ko.md"
    english.write_text("# Title\n", "utf-8")
    korean.write_text("# 제목\n", "utf-8")
    (found,) = tool.translations(tmp_path)
    assert found.lags, "a page without a stamp lags"
    tool.accept(found)
    (found,) = tool.translations(tmp_path)
    assert not found.lags
    english.write_text("# Another title\n", "utf-8")
    (found,) = tool.translations(tmp_path)
    assert found.lags
    tool.accept(found)
    (found,) = tool.translations(tmp_path)
    assert not found.lags
    assert korean.read_text("utf-8").count("revision:") == 1
