"""List the Korean pages that lag behind their English ones, and record that one has caught up.

    python docs/translations.py                    list what lags; exit code 1 if something does
    python docs/translations.py accept PAGE…       record that these Korean pages have caught up

A Korean page ``name.ko.md`` carries, in a comment, the revision of ``name.md`` that it was written from: the
first twelve digits of the SHA-256 of that page's text.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
_FOLDERS = ("", "docs/**/", "release/", "benchmarks/", "examples/*/")
_STAMP = re.compile(r"^<!-- revision: (?P<revision>[0-9a-f]{12}) of (?P<name>\S+) -->$", re.MULTILINE)


class Translation(NamedTuple):
    """A Korean page, its English one, and the revision it was written from (None: it does not say)."""

    korean: Path
    english: Path
    written_from: str | None
    current: str

    @property
    def lags(self) -> bool:
        """Return whether the English page has changed since."""
        return self.written_from != self.current


def revision_of(page: Path) -> str:
    """Return the revision of a page: what its text hashes to, whatever its line endings are."""
    text = page.read_text("utf-8").replace("\r\n", "\n")
    return sha256(text.encode()).hexdigest()[:12]


def translations(root: Path = ROOT) -> Iterator[Translation]:
    """Yield every Korean page."""
    for korean in sorted(page for folder in _FOLDERS for page in root.glob(f"{folder}*.ko.md")):
        english = korean.with_name(korean.name.replace(".ko.md", ".md"))
        stamp = _STAMP.search(korean.read_text("utf-8"))
        written_from = stamp["revision"] if stamp and stamp["name"] == english.name else None
        yield Translation(korean, english, written_from, revision_of(english))


def accept(translation: Translation) -> None:
    """Write the English page's revision into the Korean one."""
    stamp = f"<!-- revision: {translation.current} of {translation.english.name} -->"
    text = translation.korean.read_text("utf-8")
    text = _STAMP.sub(stamp, text, count=1) if _STAMP.search(text) else f"{stamp}\n{text}"
    translation.korean.write_text(text, "utf-8")


def main(arguments: list[str]) -> int:
    """Run as a program; return the exit code."""
    if arguments[:1] == ["accept"]:
        wanted = {Path(name).resolve() for name in arguments[1:]}
        for translation in translations():
            if translation.korean in wanted:
                accept(translation)
                wanted.discard(translation.korean)
        for name in sorted(wanted):
            print(f"{name} is no Korean page here", file=sys.stderr)
        return 1 if wanted else 0
    lagging = [translation for translation in translations() if translation.lags]
    for translation in lagging:
        korean, english = translation.korean.relative_to(ROOT), translation.english.relative_to(ROOT)
        print(f"{korean} was written from {english} at {translation.written_from}, now {translation.current}")
    return 1 if lagging else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
