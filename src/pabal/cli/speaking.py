"""Say in the language spoken what the library, the demo and Click say in English."""

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


def told(error: BaseException) -> str:
    """Return the message of an error in the language spoken."""
    return str(error) if language() == "en" else _korean().told(error)


def spoken(sentence: str) -> str:
    """Return a sentence of the library or of Click in the language spoken; one that is unknown stays."""
    return sentence if language() == "en" else _korean().spoken(sentence)
