"""Measure in a fresh process, unaffected by the memory and imports of earlier runs."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.harness import ROOT


class ChildError(Exception):
    """A child process failed; the message is the last line of its output."""


def call(function: str, **arguments: Any) -> dict[str, float]:
    """Call ``module:function`` in a fresh interpreter and return its figures. Raises ChildError."""
    completed = subprocess.run(
        [sys.executable, "-m", "benchmarks.child", function, json.dumps(arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if completed.returncode != 0:
        raise ChildError((completed.stderr.strip() or f"exit code {completed.returncode}").splitlines()[-1])
    figures: dict[str, float] = json.loads(completed.stdout.splitlines()[-1])
    return figures


def resident_bytes() -> int:
    """Return the resident memory of this process (Linux)."""
    return _status("VmRSS")


def peak_bytes() -> int:
    """Return the peak of resident memory since ``reset_peak`` (Linux)."""
    return _status("VmHWM")


def reset_peak() -> None:
    """Reset the peak to the memory that is resident now."""
    Path("/proc/self/clear_refs").write_text("5")


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise ChildError(f"/proc/self/status has no {name}")


def memory_is_measurable() -> bool:
    """Return whether this system reports the memory of a process."""
    return Path("/proc/self/clear_refs").exists()


if __name__ == "__main__":
    module, _, name = sys.argv[1].partition(":")
    print(json.dumps(getattr(importlib.import_module(module), name)(**json.loads(sys.argv[2]))))
