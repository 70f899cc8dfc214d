"""Lay out the pages of one language as a site sees them, with links that hold there.

In the repository a page links to other pages, to its form in the other language, and to source files and
tests. On the site each language stands alone: links stay in their language, and a source file that some page
names is shown as a page of its own.
"""

from __future__ import annotations

import os
import re
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from reference import reference_of

ROOT = Path(__file__).resolve().parents[2]
PLAN = Path(__file__).with_name("plan.toml")

_LINK = re.compile(r"(?P<open>!?\[[^\]]*\]\()(?P<target>[^)\s]+)(?P<close>\))")
_FENCED = re.compile(r"^( *)(`{3,}).*?^\1\2 *$", re.DOTALL | re.MULTILINE)
_STAMP = re.compile(r"^<!-- revision: .*? -->\n", re.MULTILINE)
_NAVIGATION = re.compile(r"^\[(?:한국어|English)\]\([^\n]*(?:\n\[[^\n]*)*\n\n?", re.MULTILINE)
_UNLISTED = "---\nsearch:\n  exclude: true\n---\n\n"
_FENCES = {".py": "python", ".sql": "sql", ".toml": "toml", ".sh": "sh", ".js": "js", ".ipynb": "json"}


class Page(NamedTuple):
    """One page of the plan: the English file in the repository, and where it stands on the site."""

    file: Path
    at: str

    def source(self, language: str) -> Path:
        """Return the file in a language; English where there is no other."""
        translated = self.file.with_name(self.file.name.removesuffix(".md") + f".{language}.md")
        return translated if translated.exists() else self.file


class Section(NamedTuple):
    """One entry of the site's navigation."""

    titles: dict[str, str]
    pages: list[Page]
    reference: list[str]


def read_plan(root: Path = ROOT, plan: Path = PLAN) -> list[Section]:
    """Return what the plan says, with the pages of its patterns in the order of their names."""
    sections = []
    for entry in tomllib.loads(plan.read_text("utf-8"))["section"]:
        pages = [page for item in entry.get("pages", []) for page in _pages_of(root, item)]
        titles = {"en": entry["en"], "ko": entry["ko"]}
        sections.append(Section(titles, pages, entry.get("reference", [])))
    return sections


def _pages_of(root: Path, item: str | dict[str, str]) -> Iterator[Page]:
    pattern, at = (item, None) if isinstance(item, str) else (item["file"], item.get("at"))
    files = sorted(file for file in root.glob(pattern) if not file.name.endswith(".ko.md"))
    if not files:
        raise FileNotFoundError(f"the plan of the site names {pattern}, and there is no such page")
    # An index comes first, whatever the names beside it begin with.
    for file in sorted(files, key=lambda file: file.name not in ("README.md", "index.md")):
        place = at or file.relative_to(root / "docs").as_posix().replace("README.md", "index.md")
        yield Page(file, place)


class Staging:
    """Write the pages of one language, and what they show or point to, into a folder."""

    def __init__(self, folder: Path, language: str, sections: list[Section], root: Path = ROOT) -> None:
        self._folder = folder
        self._language = language
        self._sections = sections
        self._root = root
        self._pages = {page.file: page.at for section in sections for page in section.pages}
        self._shown: set[Path] = set()

    def write(self) -> None:
        """Write everything."""
        for section in self._sections:
            for page in section.pages:
                source = page.source(self._language)
                self._put(page.at, self._on_site(source.read_text("utf-8"), source, page.at))
            for package in section.reference:
                self._put(f"reference/{package}.md", reference_of(package))
        shutil.copy(Path(__file__).with_name("site.css"), self._folder / "site.css")

    def navigation(self) -> list[dict[str, list[dict[str, str]]]]:
        """Return what the site's menu holds: sections with titles and places."""
        menu = []
        for section in self._sections:
            entries = [
                {title_of(page.source(self._language).read_text("utf-8")): page.at} for page in section.pages
            ]
            entries += [{package: f"reference/{package}.md"} for package in section.reference]
            menu.append({section.titles[self._language]: entries})
        return menu

    def _put(self, at: str, text: str) -> None:
        target = self._folder / at
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, "utf-8")

    def _on_site(self, text: str, source: Path, at: str) -> str:
        """Return a page's text without its own navigation and with links for the place it stands at."""
        text = _NAVIGATION.sub("", _STAMP.sub("", text), count=1)
        parts, end = [], 0
        for fenced in _FENCED.finditer(text):
            parts += [self._relinked(text[end : fenced.start()], source, at), fenced[0]]
            end = fenced.end()
        return "".join([*parts, self._relinked(text[end:], source, at)])

    def _relinked(self, prose: str, source: Path, at: str) -> str:
        def relink(link: re.Match[str]) -> str:
            path, hash_, anchor = link["target"].partition("#")
            if not path or ":" in path:
                return link[0]
            target = self._place_of((source.parent / path).resolve())
            return f"{link['open']}{os.path.relpath(target, Path(at).parent)}{hash_}{anchor}{link['close']}"

        return _LINK.sub(relink, prose)

    def _place_of(self, file: Path) -> str:
        """Return where on the site a file of the repository stands, after seeing to it that it does."""
        if file.is_dir() and (file / "README.md") in self._pages:
            file /= "README.md"
        english = file.with_name(file.name.replace(".ko.md", ".md"))
        if english in self._pages:
            return self._pages[english]
        name = file.relative_to(self._root).as_posix()
        if file.suffix in (".svg", ".png", ".webp"):
            place = name.removeprefix("docs/")
            (self._folder / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, self._folder / place)
            return place
        place = f"source/{name}.md"
        if file not in self._shown:
            self._shown.add(file)
            self._put(place, self._listing(file, name) if file.is_dir() else _shown_source(file, name))
        return place

    def _listing(self, folder: Path, name: str) -> str:
        files = [file for file in sorted(folder.iterdir()) if file.suffix in _FENCES]
        places = [os.path.relpath(self._place_of(file), Path(f"source/{name}").parent) for file in files]
        lines = [f"- [{file.name}]({place})" for file, place in zip(files, places, strict=True)]
        return f"{_UNLISTED}# {name}\n\n" + "\n".join(lines) + "\n"


def _shown_source(file: Path, name: str) -> str:
    text = file.read_text("utf-8")
    fence = "`" * max(3, *(len(run) + 1 for run in re.findall(r"`+", text)), 3)
    return f"{_UNLISTED}# {name}\n\n{fence}{_FENCES.get(file.suffix, 'text')}\n{text}{fence}\n"


def title_of(text: str) -> str:
    """Return a page's first heading, without its marks."""
    heading = re.search(r"^# (.+)$", text, re.MULTILINE)
    if heading is None:
        raise ValueError("a page without a heading has no name on the site")
    return re.sub(r"[`*]", "", heading[1])
