"""Say in Korean what the library and Click say in English: by an error's fields, or by a sentence's form."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from string import Formatter

from pabal.cli.korean.click_words import MISTAKES
from pabal.cli.korean.demo import DEMO_SAID
from pabal.cli.korean.errors import ERRORS
from pabal.cli.korean.findings import FINDINGS
from pabal.cli.korean.own import OWN
from pabal.cli.korean.particles import with_particles
from pabal.cli.korean.reasons import REASONS
from pabal.cli.language import language
from pabal.errors import PabalError

_SAID = (
    "action",
    "detail",
    "error",
    "feature",
    "known",
    "message",
    "number_type",
    "reason",
    "state",
    "where",
    "kind",
)
"""Fields that hold words of their own; the others are names and values."""
_TOO_GENERAL = ("{detail}", "{path}: {reason}")


def told(error: BaseException) -> str:
    """Return the message of an error in the language spoken."""
    if language() == "en" or not isinstance(error, PabalError):
        return spoken(str(error))
    for cls in type(error).__mro__:
        if cls in ERRORS and "template" in vars(cls):
            return _filled(ERRORS[cls], error.fields)
        if "template" in vars(cls):
            break
    return spoken(str(error))


def spoken(sentence: str) -> str:
    """Return a sentence of the library or of Click in the language spoken; one that is unknown stays."""
    if language() == "en":
        return sentence
    for form, korean in _forms():
        found = form.fullmatch(sentence)
        if found is not None:
            return _filled(korean, found.groupdict())
    return sentence


def _filled(korean: str, fields: Mapping[str, object]) -> str:
    said = {name: spoken(value) for name, value in fields.items() if name in _SAID and isinstance(value, str)}
    return with_particles(korean.format(**{**fields, **said}))


@cache
def _forms() -> tuple[tuple[re.Pattern[str], str], ...]:
    """Return how every English sentence is recognised; the first that matches is taken.

    What begins with words of its own comes first, for it may hold another sentence; then what leaves least
    open.
    """
    of_errors = {cls.template: _without_conversions(korean) for cls, korean in ERRORS.items()}
    known = {**OWN, **DEMO_SAID, **MISTAKES, **REASONS, **FINDINGS, **of_errors}
    forms = [(english, korean) for english, korean in known.items() if english not in _TOO_GENERAL]
    forms.sort(key=lambda form: (form[0][0] == "{", -sum(len(literal) for literal, _ in _parts(form[0]))))
    return tuple((re.compile(_pattern(english), re.DOTALL), korean) for english, korean in forms)


def _pattern(english: str) -> str:
    seen: set[str] = set()
    pattern = ""
    for literal, field in _parts(english):
        pattern += re.escape(literal)
        if field:
            pattern += f"(?P={field})" if field in seen else f"(?P<{field}>.+?)"
            seen.add(field)
    return pattern


def _parts(text: str) -> Iterator[tuple[str, str | None]]:
    return ((literal, field) for literal, field, _, _ in Formatter().parse(text))


def _without_conversions(korean: str) -> str:
    # What was taken from an English sentence is quoted already.
    return korean.replace("!r}", "}")
