"""Translate SQLite's errors into pabal's."""

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
"""Start of the message when sqlite3 raises OverflowError; other OverflowErrors come from dates."""
UNDECODABLE = "Could not decode to UTF-8"
"""Start of the message when sqlite3 reads text that is not UTF-8; this error has no error code."""


def is_fault(error: BaseException) -> bool:
    """Return whether the file or the disk caused this error, rather than the statement or its values."""
    return isinstance(error, sqlite3.Error) and _code_of(error) in _FAULTS


def is_busy(error: sqlite3.Error) -> bool:
    """Return whether the error means that another connection holds the lock."""
    return _code_of(error) == sqlite3.SQLITE_BUSY


def is_corruption(error: sqlite3.Error) -> bool:
    """Return whether the error means that the file's content is damaged."""
    return _code_of(error) == sqlite3.SQLITE_CORRUPT or str(error).startswith(UNDECODABLE)


def _code_of(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def translate(error: sqlite3.Error, path: str) -> StorageError:
    """Return the pabal error for an SQLite error in the file at ``path``."""
    text = str(error)
    code = _code_of(error)
    if code == sqlite3.SQLITE_NOTADB:
        return NotAPabalDatabaseError(path=path, reason="not an SQLite file")
    if is_corruption(error):
        return CorruptLogError(path=path, position=None, reason=text)
    if is_busy(error):
        text = "another process kept it locked for too long"
    return StorageUnavailableError(path=path, reason=text)


@contextmanager
def translated(path: str) -> Iterator[None]:
    """Translate the SQLite errors raised in the block."""
    try:
        yield
    except sqlite3.Error as error:
        raise translate(error, path) from error
    except msgspec.DecodeError as error:
        raise CorruptLogError(path=path, position=None, reason=f"unreadable bookkeeping: {error}") from error
    except UnicodeDecodeError as error:
        # sqlite3 raises this when SQLite's error message quotes damaged bytes of the schema.
        raise CorruptLogError(path=path, position=None, reason=f"damaged schema: {error}") from error


@contextmanager
def storable() -> Iterator[None]:
    """Raise UsageError if the block passes SQLite a value that it cannot store; use inside ``readable``.

    Such a value can only come from the caller: whatever was read from a file can also be written to it.
    """
    try:
        yield
    except UnicodeEncodeError as error:
        raise UsageError(f"{error.object!r} contains a lone surrogate, which cannot be stored") from error
    except OverflowError as error:
        if not str(error).startswith(_TOO_LARGE):
            raise
        raise UsageError("a number has more than 64 bits, which cannot be stored") from error


@contextmanager
def readable(path: str) -> Iterator[None]:
    """Raise CorruptLogError if the block cannot interpret the rows it reads; SQLite's errors pass through.

    STRICT tables enforce their column types, so an impossible NULL or number means damage. SQLite does not
    notice it, because its pages have no checksums.
    """
    try:
        yield
    except (msgspec.DecodeError, AttributeError, OverflowError, TypeError, ValueError) as error:
        raise CorruptLogError(path=path, position=None, reason=f"unreadable bookkeeping: {error}") from error
