"""The library's English texts in Korean: errors, their reasons, and findings.

The English is in the code, where it is used. The command line and the dashboard look a sentence up here by
its pattern; a sentence that is not found stays English.
"""

from __future__ import annotations

from functools import lru_cache

from pabal.korean.sentences import Sentences

__all__ = ["Sentences", "in_korean", "outcome_in_korean"]

_library = Sentences({}, {})


@lru_cache(maxsize=256)
def in_korean(sentence: str) -> str:
    """Return a sentence of the library in Korean, or unchanged if it is unknown.

    >>> in_korean("the file is read-only")
    '읽기 전용 파일입니다'
    """
    return _library.spoken(sentence)


def outcome_in_korean(result: str) -> str:
    """Return the result of an action in Korean; after a failure the error's class name stays in front.

    >>> outcome_in_korean("StorageUnavailableError: the file is read-only")
    'StorageUnavailableError: 읽기 전용 파일입니다'
    """
    kind, colon, message = result.partition("Error: ")
    return f"{kind}{colon}{in_korean(message)}" if colon else in_korean(result)
