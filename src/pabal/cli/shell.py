"""Format commands for the current shell, so that those in hints can be copied and pasted."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Sequence


def typed(words: Sequence[str], *, windows: bool = sys.platform == "win32") -> str:
    """Return the words as a command line; on Windows, only double quotes can enclose a word."""
    return subprocess.list2cmdline(words) if windows else shlex.join(words)
