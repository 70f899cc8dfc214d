"""Which file a run of the demo goes to. Nothing is ever deleted or overwritten."""

from __future__ import annotations

from pathlib import Path

from pabal import SqliteEventStorage
from pabal.demo.errors import RunError
from pabal.demo.runs import find_run

DEFAULT_FILE = Path("pabal-demo.db")


def numbered(number: int) -> Path:
    """Return the default file's name for the first, second … run."""
    return DEFAULT_FILE if number == 1 else DEFAULT_FILE.with_stem(f"{DEFAULT_FILE.stem}-{number}")


def latest_path() -> Path:
    """Return the default file of the latest run; of the first one if there was none."""
    number = 1
    while numbered(number + 1).exists():
        number += 1
    return numbered(number)


async def fresh_path(asked: Path | None, beside_unfinished: bool) -> Path:
    """Return a path for a new run: the one asked for, or the next default one.

    Raises RunError where an unfinished run would be left lying unnoticed, and for a path that is taken.
    """
    path = asked or latest_path()
    if not path.exists():
        return path
    async with SqliteEventStorage(path) as storage:
        run, is_finished = await find_run(storage)
    if run is None:
        return path
    if asked is not None:
        state = "a finished run" if is_finished else "an unfinished run; go on with it by adding --resume"
        raise RunError(path=str(path), reason=f"this file holds {state}. For a new run choose another --file")
    if not is_finished and not beside_unfinished:
        raise RunError(
            path=str(path),
            reason="an unfinished run is here. Go on with it: pabal demo --resume. "
            "Or start a new one beside it: pabal demo --new",
        )
    number = 2
    while numbered(number).exists():
        number += 1
    return numbered(number)
