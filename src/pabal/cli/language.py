"""Speak English or Korean: English stands in the code, Korean in a catalogue beside it."""

from __future__ import annotations

import os
from typing import Any

from pabal.cli.korean import KOREAN

LANGUAGES = ("en", "ko")


class _Language:
    chosen: str | None = None


def choose(language: str | None) -> None:
    """Speak this language from now on; None follows the environment."""
    _Language.chosen = language


def language() -> str:
    """Return the language: what was chosen, ``PABAL_LANG``, or what the locale says."""
    if _Language.chosen is not None:
        return _Language.chosen
    for name in ("PABAL_LANG", "LC_ALL", "LC_MESSAGES", "LANG"):
        value = os.environ.get(name)
        if value:
            return "ko" if value.lower().startswith("ko") else "en"
    return "en"


def t(text: str, /, **fields: Any) -> str:
    """Return a message in the language spoken, with its fields filled in."""
    if language() == "ko":
        text = KOREAN.get(text, text)
    return text.format(**fields) if fields else text
