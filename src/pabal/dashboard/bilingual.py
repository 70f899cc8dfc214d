"""Send the library's sentences to the pages in both languages; each page shows its own."""

from __future__ import annotations

from pabal.korean import in_korean, outcome_in_korean
from pabal.ports.operations import AuditEntry, DeadLetterView

_HEAD, _TAIL = 300, 100
"""How many characters of an error's message, which may have 16,000, are shown in a list."""


def bilingual(name: str, sentence: str) -> dict[str, str]:
    """Return a field with a sentence, and a second field with its Korean translation.

    >>> bilingual("reason", "the file is read-only")
    {'reason': 'the file is read-only', 'reason_ko': '읽기 전용 파일입니다'}
    """
    return {name: sentence, f"{name}_ko": in_korean(sentence)}


def preview(name: str, sentence: str) -> dict[str, str]:
    """Return the fields of ``bilingual`` for a list: of a long text, only the beginning and the end."""
    return {field: _shortened(text) for field, text in bilingual(name, sentence).items()}


def _shortened(text: str) -> str:
    return text if len(text) <= _HEAD + _TAIL else f"{text[:_HEAD]} … {text[-_TAIL:]}"


def failure_message(letter: DeadLetterView) -> dict[str, str]:
    """Return the message of the last failed attempt, shortened, or the reason if there was no attempt."""
    return preview("message", letter.attempts[-1].message if letter.attempts else letter.reason)


def audit_result(entry: AuditEntry) -> dict[str, str]:
    """Return the result of an action; empty while it is running."""
    return {"result": entry.result, "result_ko": outcome_in_korean(entry.result)}
