"""The language of the command line: English is in the code, Korean in catalogues keyed by the English."""

from __future__ import annotations

import locale
import os
from collections.abc import Sequence
from typing import Any

from pabal.cli.korean.click_words import HELP_PAGE
from pabal.cli.korean.demo import DEMO
from pabal.cli.korean.own import OWN
from pabal.domain.counting import counted as counted_in_english
from pabal.korean.particles import with_particles

LANGUAGES = ("en", "ko")
KOREAN = {**DEMO, **OWN, **HELP_PAGE}


class _Language:
    chosen: str | None = None


def choose(language: str | None) -> None:
    """Set the language; None follows the environment."""
    _Language.chosen = language


def requested_language(arguments: Sequence[str]) -> str | None:
    """Return the language in a ``--lang`` option before the command's name; None if there is none."""
    remaining = iter(arguments)
    for argument in remaining:
        name, separator, value = argument.partition("=")
        if name == "--lang":
            value = value if separator else next(remaining, "")
            return value if value in LANGUAGES else None
        if not argument.startswith("-"):
            break
    return None


def language() -> str:
    """Return the language: the chosen one, that in ``PABAL_LANG``, or that of the locale."""
    if _Language.chosen is not None:
        return _Language.chosen
    for name in ("PABAL_LANG", "LC_ALL", "LC_MESSAGES", "LANG"):
        value = os.environ.get(name)
        if value:
            return _language_of(value)
    # Windows sets no such variable; Python set the character locale from the system's when it started.
    return _language_of(locale.setlocale(locale.LC_CTYPE))


def _language_of(name: str) -> str:
    return "ko" if name.lower().startswith("ko") else "en"


def t(text: str, /, **fields: Any) -> str:
    """Return a message in the current language, with its fields filled in."""
    if language() == "en":
        return text.format(**fields) if fields else text
    text = KOREAN.get(text, text)
    return with_particles(text.format(**fields)) if fields else text


def counted(number: int, one: str, many: str | None = None) -> str:
    """Return a number with its noun in the singular or plural."""
    if language() == "ko":
        return t(f"{{number}} {one}", number=f"{number:,}")
    return counted_in_english(number, one, many)
