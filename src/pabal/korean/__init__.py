"""The Korean of what the library says in English: its errors, their reasons, and what it finds.

English stands in the code, where it is written. The faces for operators, command line and dashboard, look a
sentence up here by its form; one that is unknown stays as it is.
"""

from __future__ import annotations

from functools import lru_cache

from pabal.korean.sentences import Sentences

__all__ = ["Sentences", "in_korean", "outcome_in_korean"]

_library = Sentences({}, {})


@lru_cache(maxsize=256)
def in_korean(sentence: str) -> str:
    """Return a sentence of the library in Korean, or as it is where it is none.

    >>> in_korean("the file is read-only")
    '읽기 전용 파일입니다'
    """
    return _library.spoken(sentence)


def outcome_in_korean(result: str) -> str:
    """Return what came of an action; where it failed, the error's kind stays in front of its message.

    >>> outcome_in_korean("StorageUnavailableError: the file is read-only")
    'StorageUnavailableError: 읽기 전용 파일입니다'
    """
    kind, colon, message = result.partition("Error: ")
    return f"{kind}{colon}{in_korean(message)}" if colon else in_korean(result)
