"""The pages written for people: where they lie, and what is in them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
KOREAN = ".ko.md"

_FENCE = re.compile(r"^( *)(`{3,})([^`]*)$")
_PLAIN_INFO = re.compile(r'^python( title="(?P<title>[^"]+)")?$')
_UNTESTED_INFO = re.compile(r'^python( title="[^"]+")? notest="(?P<reason>[^"]{12,})"$')
_ALIASES = ("py", "python3", "pycon", "py3")


class Block(NamedTuple):
    """One fenced block of a page; ``line`` is the number of its first line of content."""

    page: Path
    line: int
    info: str
    text: str

    @property
    def where(self) -> str:
        """Return the place as an editor jumps to it."""
        return f"{name_of(self.page)}:{self.line}"

    @property
    def title(self) -> str | None:
        """Return the name under which a reader saves the block, where it is a program of its own."""
        found = _PLAIN_INFO.match(self.info)
        return found["title"] if found else None


def name_of(page: Path) -> str:
    """Return a page's path as it is called inside the repository."""
    return page.relative_to(ROOT).as_posix() if page.is_relative_to(ROOT) else page.name


def all_pages() -> list[Path]:
    """Return every page for people."""
    folders = ("", "release/", "benchmarks/", "docs/**/", "examples/*/")
    return sorted(page for folder in folders for page in ROOT.glob(f"{folder}*.md"))


def blocks_of(page: Path) -> Iterator[Block]:
    """Yield the fenced blocks of a page."""
    opened: tuple[str, int, str] | None = None
    content: list[str] = []
    for number, line in enumerate(page.read_text("utf-8").splitlines(), start=1):
        fence = _FENCE.match(line)
        if opened is None and fence:
            opened = (fence[2], number + 1, fence[3].strip())
            content = []
        elif opened is not None and fence and fence[2] == opened[0] and not fence[3].strip():
            yield Block(page, opened[1], opened[2], "\n".join(content) + "\n")
            opened = None
        elif opened is not None:
            content.append(line)
    if opened is not None:
        raise ValueError(f"{name_of(page)}:{opened[1]}: this block is never closed")


def examples_of(page: Path) -> list[Block]:
    """Return the Python blocks that run. Raises ValueError for one that is marked in no known way."""
    examples: list[Block] = []
    for block in blocks_of(page):
        language = block.info.split(" ", 1)[0]
        if language in _ALIASES:
            raise ValueError(f"{block.where}: write 'python', not {language!r}, so that the block is run")
        if language != "python":
            continue
        if _PLAIN_INFO.match(block.info):
            examples.append(block)
        elif not _UNTESTED_INFO.match(block.info):
            raise ValueError(f'{block.where}: {block.info!r} is neither python nor python notest="a reason"')
    return examples


def prose_of(page: Path) -> str:
    """Return a page without its fenced blocks."""
    text = page.read_text("utf-8")
    return re.sub(r"^( *)(`{3,}).*?^\1\2 *$", "", text, flags=re.DOTALL | re.MULTILINE)


def spans_of(page: Path) -> set[str]:
    """Return the texts set in `code` within the prose of a page."""
    return set(re.findall(r"(?<!`)`([^`\n]+)`(?!`)", prose_of(page)))


def section_of(page: Path, heading: str) -> str:
    """Return what stands under a heading, up to the next one of the same or a higher level."""
    text = prose_of(page)
    found = re.search(rf"^(#+) {re.escape(heading)}$", text, re.MULTILINE)
    if found is None:
        raise ValueError(f"{name_of(page)} has no heading {heading!r}")
    rest = text[found.end() :]
    following = re.search(rf"^#{{1,{len(found[1])}}} ", rest, re.MULTILINE)
    return rest[: following.start()] if following else rest


def first_column(markdown: str) -> list[str]:
    """Return the code spans of the first column of every table, in order."""
    names: list[str] = []
    for line in markdown.splitlines():
        if line.startswith("|") and not set(line) <= set("|-: "):
            names += re.findall(r"`([^`]+)`", line.split("|")[1])
    return names
