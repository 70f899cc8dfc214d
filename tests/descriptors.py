"""What this process has open, as Linux reports it."""

from __future__ import annotations

import os


def open_targets() -> list[str]:
    """Return the targets of the open file descriptors."""
    found: list[str] = []
    for number in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{number}"))
        except OSError:
            continue  # the descriptor of the listing itself
    return found


def open_files(folder: object) -> list[str]:
    """Return the files below a folder that are open."""
    return [name for name in open_targets() if name.startswith(str(folder))]
