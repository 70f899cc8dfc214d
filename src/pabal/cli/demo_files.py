"""Choose the file for a run of the demo. No file is ever deleted or overwritten."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from pabal import SqliteEventStorage
from pabal.cli.shell import typed
from pabal.demo.errors import RunError
from pabal.demo.runs import find_run

DEFAULT_FILE = Path("pabal-demo.db")


def resume_command(file: Path | None) -> str:
    """Return the command that resumes a run, with the program named as it was called."""
    return typed([*_program(), "demo", "--resume", *(() if file is None else ("--file", str(file)))])


def _program() -> list[str]:
    program = Path(sys.argv[0])
    found = shutil.which(program.name)
    if program.name == "__main__.py":
        return ["python", "-m", "pabal"]
    # On Windows the found file has a suffix that sys.argv[0] lacks.
    if found is not None and Path(found).resolve().with_suffix("") == program.resolve().with_suffix(""):
        return [program.name]
    return [sys.argv[0]]


def default_path(number: int) -> Path:
    """Return the default file name of the first, second … run."""
    return DEFAULT_FILE if number == 1 else DEFAULT_FILE.with_stem(f"{DEFAULT_FILE.stem}-{number}")


def latest_path() -> Path:
    """Return the default file of the latest run, or of the first if there was none."""
    number = 1
    while default_path(number + 1).exists():
        number += 1
    return default_path(number)


async def fresh_path(requested: Path | None, beside_unfinished: bool) -> Path:
    """Return a path for a new run: the given one, or the next default one.

    Raises RunError if there is an unfinished run that the user may not know of, or if the path is taken.
    """
    path = requested or latest_path()
    if not path.exists():
        return path
    async with SqliteEventStorage(path) as storage:
        run, is_finished = await find_run(storage)
    if run is None:
        return path
    if requested is not None:
        state = "a finished run" if is_finished else "an unfinished run; add --resume to continue it"
        raise RunError(path=str(path), reason=f"this file holds {state}. For a new run choose another --file")
    if not is_finished and not beside_unfinished:
        resume, new = resume_command(None), typed([*_program(), "demo", "--new"])
        raise RunError(
            path=str(path),
            reason=f"there is an unfinished run. Continue it: {resume}. Or start a new one beside it: {new}",
        )
    number = 2
    while default_path(number).exists():
        number += 1
    return default_path(number)
