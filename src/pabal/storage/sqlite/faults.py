"""Turn what SQLite reports into the errors of pabal."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from pabal.errors import (
    CorruptLogError,
    NotAPabalDatabaseError,
    StorageError,
    StorageUnavailableError,
    UsageError,
)

_FAULTS = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_INTERRUPT,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_READONLY,
}


_TOO_LARGE = "Python int too large"
"""How the message of the OverflowError begins that the sqlite3 module raises; others come of dates."""
UNDECODABLE = "Could not decode to UTF-8"
"""How the message begins that the sqlite3 module gives a text of damaged bytes; it has no code."""


def is_fault(error: BaseException) -> bool:
    """Tell trouble with the file or the disk from a mistake in a statement or a value."""
    return isinstance(error, sqlite3.Error) and _code_of(error) in _FAULTS


def is_busy(error: sqlite3.Error) -> bool:
    """Tell whether another connection is writing."""
    return _code_of(error) == sqlite3.SQLITE_BUSY


def is_corruption(error: sqlite3.Error) -> bool:
    """Tell whether SQLite found bytes that cannot be what it wrote."""
    return _code_of(error) == sqlite3.SQLITE_CORRUPT or str(error).startswith(UNDECODABLE)


def _code_of(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def translate(error: sqlite3.Error, path: str) -> StorageError:
    """Return the pabal error that says what happened to the file at ``path``."""
    text = str(error)
    code = _code_of(error)
    if code == sqlite3.SQLITE_NOTADB:
        return NotAPabalDatabaseError(path=path, reason="no SQLite file")
    if is_corruption(error):
        return CorruptLogError(path=path, position=None, reason=text)
    if is_busy(error):
        text = "another process kept it locked for too long"
    return StorageUnavailableError(path=path, reason=text)


@contextmanager
def translated(path: str) -> Iterator[None]:
    """Raise pabal errors instead of SQLite's inside the block."""
    try:
        yield
    except sqlite3.Error as error:
        raise translate(error, path) from error
    except msgspec.DecodeError as error:
        raise CorruptLogError(path=path, position=None, reason=f"unreadable bookkeeping: {error}") from error
    except UnicodeDecodeError as error:
        # What the sqlite3 module raises where SQLite's own message quotes damaged bytes of the schema.
        raise CorruptLogError(path=path, position=None, reason=f"damaged schema: {error}") from error


@contextmanager
def storable() -> Iterator[None]:
    """Raise UsageError where a value was given that SQLite has no form for; inside ``readable``.

    What was read from a file can be given back to it, so the value is the caller's.
    """
    try:
        yield
    except UnicodeEncodeError as error:
        raise UsageError(f"{error.object!r} holds a lone surrogate, which no storage can keep") from error
    except OverflowError as error:
        if not str(error).startswith(_TOO_LARGE):
            raise
        raise UsageError("a number was given of more than 64 bits, which no storage can keep") from error


@contextmanager
def readable(path: str) -> Iterator[None]:
    """Raise CorruptLogError where rows cannot be made sense of; SQLite's own errors are left to others.

    STRICT tables hold what their columns say, so a NULL or a number where none can be is damage that SQLite
    did not notice, for it does not check its pages.
    """
    try:
        yield
    except (msgspec.DecodeError, AttributeError, OverflowError, TypeError, ValueError) as error:
        raise CorruptLogError(path=path, position=None, reason=f"unreadable bookkeeping: {error}") from error
