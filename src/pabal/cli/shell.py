"""Commands as they are typed: what a hint says can be copied into the shell at hand."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Sequence


def typed(words: Sequence[str], *, windows: bool = sys.platform == "win32") -> str:
    """Return a command line of these words; on Windows only double quotation marks hold a word together."""
    return subprocess.list2cmdline(words) if windows else shlex.join(words)
