"""Print, as constraints for pip, the oldest version that pabal admits of everything it needs to run.

``make install LOWEST=1`` installs these, so that the lower bounds in pyproject.toml are tested.
The tools of development are left out: nobody who uses pabal has to have them.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

TOOLS = ("dev", "docs")
REQUIREMENT = re.compile(r"(?P<name>[\w.-]+)(\[[\w,-]+\])?>=(?P<version>[\w.]+)")


def lowest(project: dict[str, Any]) -> list[str]:
    """Return ``name==version`` for each dependency. Raises ValueError for one without a lower bound."""
    needed = list(project["dependencies"])
    for extra, requirements in project["optional-dependencies"].items():
        if extra not in TOOLS:
            needed += requirements
    found = []
    for requirement in needed:
        match = REQUIREMENT.match(requirement)
        if match is None:
            raise ValueError(f"{requirement!r} has no lower bound")
        found.append(f"{match['name']}=={match['version']}")
    return sorted(found)


if __name__ == "__main__":
    text = (Path(__file__).parent.parent / "pyproject.toml").read_text()
    print("\n".join(lowest(tomllib.loads(text)["project"])))
