"""Build the documentation site: English at its root, Korean under ``ko/``.

python docs/site/build.py [FOLDER]     default: build/site
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from staging import ROOT, Staging, read_plan

_WORDS = {
    "en": {
        "site_name": "pabal",
        "site_description": "A domain event bus that lives inside a Python application and does not forget",
        "to_light": "Switch to light mode",
        "to_dark": "Switch to dark mode",
        "to_system": "Follow the system",
        "english_root": "./",
        "korean_root": "./ko/",
    },
    "ko": {
        "site_name": "pabal · 파발",
        "site_description": "애플리케이션 안에서 돌고, 잊지 않는 Python 도메인 이벤트 버스",
        "to_light": "밝은 화면으로",
        "to_dark": "어두운 화면으로",
        "to_system": "시스템 설정에 맞추기",
        "english_root": "../",
        "korean_root": "./",
    },
}


def settings_for(language: str, staging: Staging) -> str:
    """Return the generator's settings for a language."""
    words: dict[str, object] = {**_WORDS[language], "language": language}
    nav = ", ".join(_inline(entry) for entry in staging.navigation())
    template = Path(__file__).with_name("zensical.toml").read_text("utf-8")

    def fill(word: re.Match[str]) -> str:
        return f"[{nav}]" if word[1] == "nav" else json.dumps(words[word[1]], ensure_ascii=False)

    return re.sub(r"%(\w+)%", fill, template)


def _inline(value: object) -> str:
    """Write a value of the menu as TOML on one line: strings look as in JSON there, tables do not."""
    if isinstance(value, dict):
        pairs = (f"{json.dumps(key, ensure_ascii=False)} = {_inline(one)}" for key, one in value.items())
        return "{ " + ", ".join(pairs) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_inline, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def build(target: Path) -> None:
    """Build both languages into a folder, emptied first. Raises CalledProcessError on any warning."""
    shutil.rmtree(target, ignore_errors=True)
    sections = read_plan()
    for language, place in (("en", target), ("ko", target / "ko")):
        with tempfile.TemporaryDirectory() as name:
            work = Path(name)
            staging = Staging(work / "pages", language, sections)
            staging.write()
            (work / "zensical.toml").write_text(settings_for(language, staging), "utf-8")
            subprocess.run([sys.executable, "-m", "zensical", "build", "--strict"], cwd=work, check=True)
            shutil.copytree(work / "html", place, dirs_exist_ok=True)
    print(f"the site is in {target}; to read it: python -m http.server -d {target}")


if __name__ == "__main__":
    build(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "build" / "site")
