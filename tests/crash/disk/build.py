"""Compile ``disk.c``, the simulated disk."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).with_name("disk.c")


class NoCompilerError(Exception):
    """There is no compiler; tests of the simulated disk then fail, and are not skipped."""


def build_disk(folder: Path) -> Path:
    """Compile the shared library into a folder and return its path."""
    if not sys.platform.startswith("linux"):
        raise NoCompilerError("the simulated disk needs Linux (LD_PRELOAD)")
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise NoCompilerError(
            "the simulated disk (power cuts, full disk, I/O errors) needs a C compiler: install gcc, "
            "for example with 'apt install gcc libc6-dev'"
        )
    library = folder / "disk.so"
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(SOURCE), "-ldl", "-pthread"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NoCompilerError(f"{' '.join(command)} failed:\n{done.stderr}")
    return library
