"""The run stored in a file: what is needed to continue it, and its result."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

from pabal.demo.errors import RunError
from pabal.demo.events import (
    OrderFilled,
    OrderPlaced,
    OrderRejected,
    PositionChanged,
    RunFinished,
    RunStarted,
    Settings,
    derived_id,
)
from pabal.demo.tape import DEFAULT_LENGTH, Tape, read_tape, simulate_tape
from pabal.ports.storage import EventStorage

RESULT_EVENTS = (OrderPlaced, OrderRejected, OrderFilled, PositionChanged)
"""The events that make up a run's result: orders, fills and positions."""

_TRADES_WINDOWS = (3, 8)
_CANDLES_WINDOWS = (10, 30)


def plan(tape: Tape, seed: int, row_limit: int | None) -> RunStarted:
    """Return the event that starts a run of a tape."""
    fast, slow = _CANDLES_WINDOWS if tape.kind == "candles" else _TRADES_WINDOWS
    return RunStarted(
        tape=tape.source,
        simulated=tape.simulated,
        kind=tape.kind,
        rows=len(tape.rows),
        row_limit=len(tape.rows) if tape.simulated else row_limit,
        fingerprint=tape.fingerprint,
        settings=Settings(seed=seed, candle_seconds=tape.seconds, fast=fast, slow=slow),
        event_id=derived_id("run", tape.fingerprint, seed),
    )


def load_tape(source: Path | None, seed: int, row_limit: int | None) -> Tape:
    """Read the tape from a file, or simulate one. Raises TapeError."""
    if source is None:
        return simulate_tape(seed, row_limit or DEFAULT_LENGTH)
    return read_tape(source, row_limit)


async def find_run(storage: EventStorage) -> tuple[RunStarted | None, bool]:
    """Return the run stored in a log (None for an empty log), and whether it is finished.

    Raises RunError if the log is not a demo log.
    """
    rows = (await storage.read_page(0, limit=1)).rows
    if not rows:
        return None, False
    # Check the row itself: the event type of another application is not registered here.
    if rows[0].event_type != RunStarted.event_type:
        raise RunError(
            path=getattr(storage, "path", "the log"),
            reason=f"this log begins with {rows[0].event_type!r}, so it is not the demo's; "
            "choose another --file",
        )
    run: RunStarted = await storage.get_event(rows[0].id_text)
    return run, await storage.get_event(finish_id(run)) is not None


def tape_of(run: RunStarted, path: str, moved_to: Path | None = None) -> Tape:
    """Return the tape of a stored run, from its original path or from where it was moved to.

    Raises TapeError, or RunError if the tape has changed.
    """
    source = None if run.simulated else Path(run.tape)
    tape = load_tape(moved_to or source, run.settings.seed, run.row_limit)
    if tape.fingerprint != run.fingerprint:
        raise RunError(
            path=path,
            reason=f"its run plays {run.tape}, and {tape.source} is not that tape or has changed since; "
            "give the old one with --tape, or start a new run in another --file",
        )
    return tape


def finish_id(run: RunStarted) -> str:
    """Return the id of the event that ends a run."""
    return derived_id(run.event_id, "finished")


def run_finished(run: RunStarted, result: str) -> RunFinished:
    """Return the event that ends a run."""
    return RunFinished(result, event_id=finish_id(run))


async def result_of(storage: EventStorage) -> str:
    """Return a fingerprint of every order, fill and position of a run, in order for each symbol.

    Two runs of one tape with the same settings have the same fingerprint, however often either was killed.
    """
    digests: dict[str, bytes] = {}
    async for envelope in storage.read(types=RESULT_EVENTS):
        event = envelope.event
        kind = "position" if isinstance(event, PositionChanged) else event.event_type
        line = f"{event.event_id} {sorted(event.to_dict()['payload'].items())}".encode()
        key = f"{kind}/{event.symbol}"
        digests[key] = sha256(digests.get(key, b"") + line).digest()
    digest = sha256()
    for key in sorted(digests):
        digest.update(key.encode() + digests[key])
    return digest.hexdigest()[:16]
