"""Send the library's sentences to the pages in both languages; each page shows its own."""

from __future__ import annotations

from pabal.korean import in_korean, outcome_in_korean
from pabal.ports.operations import AuditEntry, DeadLetterView


def bilingual(name: str, sentence: str) -> dict[str, str]:
    """Return a field with a sentence, and a second field with its Korean translation.

    >>> bilingual("reason", "the file is read-only")
    {'reason': 'the file is read-only', 'reason_ko': '읽기 전용 파일입니다'}
    """
    return {name: sentence, f"{name}_ko": in_korean(sentence)}


def failure_message(letter: DeadLetterView) -> dict[str, str]:
    """Return the message of the last failed attempt or, if there was none, the reason."""
    return bilingual("message", letter.attempts[-1].message if letter.attempts else letter.reason)


def audit_result(entry: AuditEntry) -> dict[str, str]:
    """Return the result of an action; empty while it is running."""
    return {"result": entry.result, "result_ko": outcome_in_korean(entry.result)}
