"""The table of promises says what the tests prove, no more and no less."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from tests.docs.pages import ROOT

_CITED = re.compile(r"Promises? (\d+(?:[–-]\d+)?(?:(?:, | and )\d+(?:[–-]\d+)?)*)")
_TESTS = ROOT / "tests"


def _numbers(text: str) -> set[int]:
    """Return the numbers of a list such as ``1, 4 and 9–11``."""
    found: set[int] = set()
    for first, last in re.findall(r"(\d+)(?:[–-](\d+))?", text):
        found.update(range(int(first), int(last or first) + 1))
    return found


@cache
def _cited_in(file: Path) -> frozenset[int]:
    """Return the numbers of the promises that docstrings of a test file cite."""
    text = file.read_text("utf-8")
    if "Promise" not in text:
        return frozenset()
    tree = ast.parse(text)
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docs = [ast.get_docstring(node) or "" for node in ast.walk(tree) if isinstance(node, kinds)]
    return frozenset(number for doc in docs for cited in _CITED.findall(doc) for number in _numbers(cited))


def _rows(page: str) -> list[tuple[set[int], list[Path]]]:
    """Return, for each row of the table, its promises and the files that prove them."""
    rows: list[tuple[set[int], list[Path]]] = []
    for line in (ROOT / page).read_text("utf-8").splitlines():
        found = re.match(r"^\| (\d[\d, –-]*) \|", line)
        if found:
            rows.append(
                (_numbers(found[1]), [ROOT / path for path in re.findall(r"\]\((tests/[^)]+)\)", line)])
            )
    return rows


@pytest.mark.parametrize("page", ["README.md", "README.ko.md"])
def test_each_promise_is_cited_by_a_test_named_in_its_row(page: str) -> None:
    """The page would promise something that no test proves."""
    rows = _rows(page)
    assert rows
    for numbers, files in rows:
        assert files, numbers
        proven = set().union(*(_cited_in(file) for file in files))
        assert numbers <= proven, f"{sorted(numbers - proven)} in {[file.name for file in files]}"


@pytest.mark.parametrize("page", ["README.md", "README.ko.md"])
def test_each_promise_cited_by_a_test_is_in_the_table(page: str) -> None:
    """A proven promise would be missing from the page."""
    cited: dict[int, str] = {}
    for file in sorted(_TESTS.rglob("test_*.py")):
        if file.parent.name != "docs":
            cited |= dict.fromkeys(_cited_in(file), file.relative_to(ROOT).as_posix())
    listed = set().union(*(numbers for numbers, _ in _rows(page)))
    assert {number: file for number, file in cited.items() if number not in listed} == {}


def test_both_tables_have_the_same_rows() -> None:
    """Korean readers would be promised something else."""
    assert _rows("README.md") == _rows("README.ko.md")


def test_promise_citations_are_parsed_in_every_form(tmp_path: Path) -> None:
    """A citation that is not understood would count as missing, or as there."""
    file = tmp_path / "test_x.py"
    file.write_text('"""Promises 1, 4 and 9–11."""\ndef test_a():\n    """Breaks. Promise 22, short."""\n')
    assert _cited_in(file) == {1, 4, 9, 10, 11, 22}
