"""Which statements an application may have run on a connection that is not its own."""

from __future__ import annotations

import re

from pabal.errors import UsageError

_SPACE = r"(?:[\s\ufeff]|--[^\n]*(?:\n|$)|/\*.*?\*/)*+"
"""What SQLite passes over; possessive, for there are many ways to read many comments as fewer."""
_FLAGS = re.IGNORECASE | re.DOTALL
_SCHEMA = rf"""(?:(?:\w+|(?:"[^"]*")+|(?:'[^']*')+|(?:`[^`]*`)+|\[[^\]]*\]){_SPACE}\.{_SPACE})?"""
_SETTINGS = (
    r"(?:query_only|locking_mode|journal_mode|synchronous|busy_timeout|auto_vacuum|user_version"
    r"|application_id|schema_version|writable_schema|ignore_check_constraints"
    r"|hard_heap_limit|soft_heap_limit)"
)
_begins = rf"(?:{_SPACE};)*+{_SPACE}"
_not_yours = re.compile(
    _begins + r"(?:(?P<transaction>BEGIN|COMMIT|END|ROLLBACK|SAVEPOINT|RELEASE)\b"
    rf"|PRAGMA\b{_SPACE}{_SCHEMA}[\"'`\[]?{_SETTINGS}[\"'`\]]?{_SPACE}[=(])",
    _FLAGS,
).match
"""Find what would begin or end a transaction, or set what pabal relies on in a connection that lives on."""
_reads = re.compile(_begins + r"(?:SELECT|WITH|VALUES|EXPLAIN|PRAGMA)\b", _FLAGS).match


def only_reads(sql: str) -> bool:
    """Tell whether a statement can do no more than read, where its connection lets nobody write.

    >>> only_reads("SELECT 1"), only_reads("BEGIN"), only_reads('PRAGMA "query_only" = OFF')
    (True, False, False)
    """
    return _not_yours(sql) is None and _reads(sql) is not None


def check_in_transaction(sql: str) -> None:
    """Raise UsageError for a statement that is pabal's to run, where a transaction of pabal's is open."""
    refused = _not_yours(sql)
    if refused is None:
        return
    if refused["transaction"]:
        # Others' events are in this transaction too: it is not this function's to end.
        raise UsageError(f"{sql.strip()!r} inside transact(); leave transactions to pabal")
    # The connection is everybody's, and stays as it is set long after this transaction.
    raise UsageError(f"{sql.strip()!r} inside transact(); leave the connection's settings to pabal")
