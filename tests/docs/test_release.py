"""What a release is made of stays complete."""

from __future__ import annotations

import re
import tomllib

from tests.docs.pages import ROOT


def _name(requirement: str) -> str:
    return re.split(r"[\[<>=!~; ]", requirement, maxsplit=1)[0].lower().replace("_", "-")


def test_every_development_tool_is_locked() -> None:
    """A new tool would be installed in any version, while the lock says that all are pinned."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = {_name(requirement) for requirement in project["dependencies"] + extras["dev"] + extras["docs"]}
    locked = set(
        re.findall(r"^([\w.-]+)==", (ROOT / "release" / "dev.lock").read_text("utf-8"), re.MULTILINE)
    )
    assert wanted - {"pabal"} <= locked


def test_the_lock_file_contains_no_download_url() -> None:
    """A lock with an address of its own would bypass the index that the reader trusts."""
    assert "://" not in (ROOT / "release" / "dev.lock").read_text("utf-8")
