"""The documentation site: every page stands on it, in both languages, and its links hold there."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import pabal
from tests.docs.pages import ROOT, all_pages, name_of, prose_of
from tests.docs.test_links import anchors_of

_SITE = ROOT / "docs" / "site"
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_LANGUAGES = ("en", "ko")


def _load(name: str) -> ModuleType:
    """Load one of the site's scripts: they are no package, and are run by their path."""
    spec = importlib.util.spec_from_file_location(name, _SITE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def site() -> Any:
    """Give the module that lays out the pages."""
    _load("reference")
    return _load("staging")


@pytest.fixture(scope="module")
def staged(site: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Give the folder of each language, laid out."""
    folders = {language: tmp_path_factory.mktemp(language) for language in _LANGUAGES}
    for language, folder in folders.items():
        site.Staging(folder, language, site.read_plan()).write()
    return folders


def test_every_page_is_on_the_site(site: Any) -> None:
    """A page that is not in docs/site/plan.toml could be found in the repository only."""
    planned = {page.file for section in site.read_plan() for page in section.pages}
    pages = {page for page in all_pages() if not page.name.endswith(".ko.md")}
    assert sorted(map(name_of, pages - planned)) == []


def test_site_links_lead_to_pages_of_the_site(staged: dict[str, Path]) -> None:
    """A link that holds in the repository would lead into nothing on the site, as from an English page there
    to a heading of a Korean one.
    """
    broken = []
    for folder in staged.values():
        for page in folder.rglob("*.md"):
            for target in _LINK.findall(prose_of(page)):
                path, _, anchor = target.partition("#")
                if not path or ":" in path:
                    continue
                file = page.parent / path
                is_there = file.exists() and (
                    not anchor or "reference" in file.parts or anchor in anchors_of(file)
                )
                if not is_there:
                    broken.append((page.relative_to(folder).as_posix(), target))
    assert broken == []


def test_both_languages_have_the_same_pages(staged: dict[str, Path]) -> None:
    """A reader who switches the language would get a page that does not exist."""
    english, korean = (
        {page.relative_to(folder).as_posix() for page in folder.rglob("*.md") if "source" not in page.parts}
        for folder in staged.values()
    )
    assert english == korean


def test_a_page_of_the_korean_site_is_the_korean_page(staged: dict[str, Path]) -> None:
    """The Korean site would show English text though there is a Korean one."""
    for page in all_pages():
        if page.name.endswith(".ko.md") and page.parent == ROOT / "docs":
            shown = (staged["ko"] / page.name.replace(".ko.md", ".md")).read_text("utf-8")
            assert re.search("[가-힣]", shown.split("\n\n")[0]), page


def test_the_reference_lists_every_exported_name(staged: dict[str, Path]) -> None:
    """A name that can be imported would be explained nowhere."""
    page = (staged["en"] / "reference" / "pabal.md").read_text("utf-8")
    headings = set(re.findall(r"^## (\w+)$", page, re.MULTILINE))
    assert headings == {name for name in pabal.__all__ if not name.startswith("_")}


def test_the_reference_includes_members_inherited_from_unexported_bases(staged: dict[str, Path]) -> None:
    """A command bus would seem to have no way to register a handler, and a storage none to be closed."""
    folder = staged["en"] / "reference"
    pages = {page.stem: page.read_text("utf-8") for page in folder.glob("*.md")}
    assert "### CommandBus.register\n" in pages["pabal.cqrs"]
    assert "### Operations.pause\n" in pages["pabal.operations"]
    assert "### SqliteEventStorage.close\n" in pages["pabal"]
    assert "`MessageBus`" not in pages["pabal.cqrs"]
    assert "### RedisEventBus.subscribe\n" not in pages["pabal.brokers.redis"]  # InMemoryEventBus has it


def test_the_reference_shows_the_docstrings_of_fields_and_constants(staged: dict[str, Path]) -> None:
    """A field would be listed with its type alone: readers would not know whether a lag is time or events."""
    folder = staged["en"] / "reference"
    views, records = (
        (folder / f"pabal.ports.{name}.md").read_text("utf-8") for name in ("operations", "storage")
    )
    assert "\n- `lag`: Events in the log that are not finished here" in views
    assert re.search(r"\nStart = .*datetime", records)  # written otherwise by each Python
    assert "\nWhere a subscription begins" in records


def test_the_site_configuration_is_valid_toml_with_the_planned_navigation(site: Any, tmp_path: Path) -> None:
    """A title with a quotation mark would break the build of the whole site."""
    import tomllib

    build = _load("build")
    for language in _LANGUAGES:
        staging = site.Staging(tmp_path, language, site.read_plan())
        settings = tomllib.loads(build.settings_for(language, staging))
        assert settings["project"]["nav"] == staging.navigation()
        assert settings["project"]["theme"]["language"] == language
