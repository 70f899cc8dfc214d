"""Errors as text, cheap enough for a subscription whose handler always fails."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from types import CodeType, TracebackType

_KNOWN_MOST = 256
_known: dict[tuple[tuple[CodeType, int], ...], str] = {}
"""The formatted text of stacks seen before, by the code object and instruction of each frame."""


_MESSAGE_MOST = 16_000
"""How many characters of a message are kept; some errors quote a whole document."""


def message_of(error: BaseException) -> str:
    """Return an error's ``str()`` as text that every storage can keep, even if ``str()`` raises."""
    return _safe_text(str, error, "<its str() raised {}>")


def repr_of(error: BaseException) -> str:
    """Return an error's ``repr()`` likewise."""
    return _safe_text(repr, error, f"{type(error).__name__}(<its repr() raised {{}}>)")


def _safe_text(convert: Callable[[BaseException], str], error: BaseException, fallback: str) -> str:
    try:
        text = convert(error)
    except Exception as broken:
        text = fallback.format(type(broken).__name__)
    return storable(text[:_MESSAGE_MOST])


def storable(text: str) -> str:
    """Return a text with lone surrogates, which UTF-8 cannot encode, escaped."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def traceback_text(error: BaseException) -> str:
    """Return what ``traceback.format_exception`` returns, formatting each stack only once.

    Formatting a stack blocks the event loop for 40 µs, and most failures come from the same place. If
    formatting raises, as a faulty source loader can make it do, the text says that instead.
    """
    try:
        return _formatted(error)
    except Exception as broken:
        missing = f"(no traceback: formatting it raised {repr_of(broken)})"
        return f"{missing}\n{type(error).__name__}: {message_of(error)}\n"


def _formatted(error: BaseException) -> str:
    nested = error.__cause__ is not None or (error.__context__ is not None and not error.__suppress_context__)
    if nested or error.__traceback__ is None or isinstance(error, BaseExceptionGroup):
        return "".join(traceback.format_exception(error))
    places: list[tuple[CodeType, int]] = []
    entry: TracebackType | None = error.__traceback__
    while entry is not None:
        places.append((entry.tb_frame.f_code, entry.tb_lasti))
        entry = entry.tb_next
    key = tuple(places)
    stack = _known.get(key)
    if stack is None:
        if len(_known) >= _KNOWN_MOST:
            _known.clear()
        stack = _known[key] = "".join(traceback.format_tb(error.__traceback__))
    return f"Traceback (most recent call last):\n{stack}{''.join(traceback.format_exception_only(error))}"
