"""Numbers with their nouns, for the sentences of findings, reasons and the command line."""

from __future__ import annotations


def counted(number: int, one: str, many: str | None = None) -> str:
    """Return a number and its noun: ``one`` after 1, otherwise ``many`` (by default, ``one`` with an s).

    >>> counted(1, "retry", "retries"), counted(1204, "event")
    ('1 retry', '1,204 events')
    """
    return f"{number:,} {one if number == 1 else many or one + 's'}"
