"""CONTRIBUTING names exactly the commands and the layers that exist."""

from __future__ import annotations

import re
import tomllib

import pytest

from tests.docs.pages import ROOT, blocks_of, first_column, section_of, spans_of

_PAGES = pytest.mark.parametrize("language", ["", ".ko"], ids=["english", "korean"])


@_PAGES
def test_contributing_describes_every_target_that_developers_use(language: str) -> None:
    """A command would be unknown to contributors, or promised and not there."""
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = set(re.findall(r"^([a-z-]+):.*##", makefile, re.MULTILINE))
    readme, contributing = ROOT / f"README{language}.md", ROOT / f"CONTRIBUTING{language}.md"
    spans = spans_of(contributing) | spans_of(readme)
    text = "\n".join([*spans, *(block.text for block in blocks_of(readme))])
    described = set(re.findall(r"^make (?:[A-Z_]+=\S+ )*([a-z-]+)", text, re.MULTILINE))
    assert described <= targets
    assert targets - described <= {"clean", "help"}


@_PAGES
def test_contributing_shows_the_layers_that_the_linter_enforces(language: str) -> None:
    """A contributor would put something where the linter refuses it, or look for a room that is not there."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    enforced = [
        set(re.findall(r"\w+", line)) for contract in contracts for line in contract.get("layers", ())
    ]
    blocks = blocks_of(ROOT / f"CONTRIBUTING{language}.md")
    (block,) = [block for block in blocks if "eventsourcing" in block.text]
    shown = [line.split("    ")[0] for line in block.text.splitlines()]
    assert [set(re.findall(r"\w+", line)) for line in shown] == enforced
    for name in set().union(*enforced):
        room = ROOT / "src" / "pabal" / name
        exists = (room / "__init__.py").exists() or room.with_suffix(".py").exists()
        assert any(f"({name})" in line for line in shown) is not exists, name


@pytest.mark.parametrize("page", ["architecture.md", "architecture.ko.md"])
def test_the_architecture_page_describes_every_folder(page: str) -> None:
    """A folder would be explained nowhere."""
    heading = "Folders" if page == "architecture.md" else "패키지 구성"
    described = set(first_column(section_of(ROOT / "docs" / page, heading)))
    folders = {path.name for path in (ROOT / "src" / "pabal").iterdir() if (path / "__init__.py").exists()}
    assert folders <= described
