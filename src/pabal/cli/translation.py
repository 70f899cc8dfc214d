"""Translate the English messages of the library, the demo and Click into the chosen language."""

from __future__ import annotations

from functools import cache

from pabal.cli.korean.click_words import MISTAKES
from pabal.cli.korean.demo import DEMO_ERRORS, DEMO_SAID
from pabal.cli.korean.own import OWN
from pabal.cli.language import language
from pabal.korean import Sentences


@cache
def _korean() -> Sentences:
    return Sentences({**OWN, **DEMO_SAID, **MISTAKES}, DEMO_ERRORS)


def translate_error(error: BaseException) -> str:
    """Return the message of an error in the chosen language."""
    return str(error) if language() == "en" else _korean().told(error)


def translate(sentence: str) -> str:
    """Return a sentence of the library or of Click in the chosen language; unknown ones stay unchanged."""
    return sentence if language() == "en" else _korean().spoken(sentence)
