"""Which SQL statements an application may run on a connection that belongs to pabal."""

from __future__ import annotations

import re

from pabal.errors import UsageError

_SPACE = r"(?:[\s\ufeff]|--[^\n]*(?:\n|$)|/\*.*?\*/)*+"
"""Whitespace and comments of SQLite; possessive, because comments can be split in many ways."""
_FLAGS = re.IGNORECASE | re.DOTALL
_SCHEMA = rf"""(?:(?:\w+|(?:"[^"]*")+|(?:'[^']*')+|(?:`[^`]*`)+|\[[^\]]*\]){_SPACE}\.{_SPACE})?"""
_SETTINGS = (
    r"(?:query_only|locking_mode|journal_mode|synchronous|busy_timeout|auto_vacuum|user_version"
    r"|application_id|schema_version|writable_schema|ignore_check_constraints"
    r"|hard_heap_limit|soft_heap_limit|max_page_count|wal_autocheckpoint|journal_size_limit"
    r"|(?:checkpoint_)?fullfsync)"
)
_begins = rf"(?:{_SPACE};)*+{_SPACE}"
_not_yours = re.compile(
    _begins + r"(?:(?P<transaction>BEGIN|COMMIT|END|ROLLBACK|SAVEPOINT|RELEASE)\b"
    rf"|PRAGMA\b{_SPACE}{_SCHEMA}[\"'`\[]?(?:wal_checkpoint\b|{_SETTINGS}[\"'`\]]?{_SPACE}[=(]))",
    _FLAGS,
).match
"""Match statements that begin or end a transaction, change a setting that pabal relies on, or checkpoint.

Before SQLite 3.51.3, a checkpoint beside the writer's can damage the file.
"""
_reads = re.compile(_begins + r"(?:SELECT|WITH|VALUES|EXPLAIN|PRAGMA)\b", _FLAGS).match


def only_reads(sql: str) -> bool:
    """Return whether a statement can only read, on a connection that is set to refuse writes.

    >>> only_reads("SELECT 1"), only_reads("BEGIN"), only_reads('PRAGMA "query_only" = OFF')
    (True, False, False)
    """
    return _not_yours(sql) is None and _reads(sql) is not None


def check_in_transaction(sql: str) -> None:
    """Raise UsageError for a statement that must not run inside a transaction of pabal."""
    refused = _not_yours(sql)
    if refused is None:
        return
    if refused["transaction"]:
        # The transaction also holds events of other callers, so this function must not end it.
        raise UsageError(
            f"{sql.strip()!r} is not allowed inside transact(); pabal begins and ends the transaction"
        )
    # The connection is shared, and a setting would outlast this transaction.
    raise UsageError(
        f"{sql.strip()!r} is not allowed inside transact(); pabal sets the connection's settings"
    )
