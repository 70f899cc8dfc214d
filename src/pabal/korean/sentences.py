"""Say in Korean what stands in English: by an error's fields, or by a sentence's form."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from string import Formatter

from pabal.errors import PabalError
from pabal.korean.errors import ERRORS
from pabal.korean.findings import FINDINGS
from pabal.korean.particles import with_particles
from pabal.korean.reasons import REASONS

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
_LONGEST = 500
"""Letters above which nothing is looked up: what quotes so much takes long to compare with every form."""
_TOO_GENERAL = ("{detail}", "{path}: {reason}")


class Sentences:
    """Know the sentences of the library and those given besides: English forms, and error classes."""

    def __init__(self, others: Mapping[str, str], errors: Mapping[type[PabalError], str]) -> None:
        self._others = others
        self._errors = {**ERRORS, **errors}

    def told(self, error: BaseException) -> str:
        """Return the message of an error in Korean."""
        if isinstance(error, PabalError):
            cls = next(cls for cls in type(error).__mro__ if "template" in vars(cls))
            if cls in self._errors and error.template == cls.template:
                return self._filled(self._errors[cls], error.fields)
        return self.spoken(str(error))

    def spoken(self, sentence: str) -> str:
        """Return a sentence in Korean; one that is unknown, or very long, stays."""
        if len(sentence) > _LONGEST:
            return sentence
        for form, korean in self._forms:
            found = form.fullmatch(sentence)
            if found is not None:
                return self._filled(korean, found.groupdict())
        return sentence

    def _filled(self, korean: str, fields: Mapping[str, object]) -> str:
        said = {
            name: self.spoken(value)
            for name, value in fields.items()
            if name in _SAID and isinstance(value, str)
        }
        return with_particles(korean.format(**{**fields, **said}))

    @cached_property
    def _forms(self) -> tuple[tuple[re.Pattern[str], str], ...]:
        """Return how every English sentence is recognised; the first that matches is taken.

        What begins with words of its own comes first, for it may hold another sentence; then what leaves
        least open.
        """
        of_errors = {cls.template: _without_conversions(korean) for cls, korean in self._errors.items()}
        known = {**self._others, **REASONS, **FINDINGS, **of_errors}
        forms = [(english, korean) for english, korean in known.items() if english not in _TOO_GENERAL]
        forms.sort(key=lambda form: (form[0][0] == "{", -sum(len(literal) for literal, _ in _parts(form[0]))))
        return tuple((re.compile(_pattern(english), re.DOTALL), korean) for english, korean in forms)


def _pattern(english: str) -> str:
    seen: set[str] = set()
    pattern = ""
    for literal, field in _parts(english):
        pattern += re.escape(literal)
        if field:
            value = r"\S+" if field == "count" else ".+?"  # a number: "nothing was done" is none
            pattern += f"(?P={field})" if field in seen else f"(?P<{field}>{value})"
            seen.add(field)
    return pattern


def _parts(text: str) -> Iterator[tuple[str, str | None]]:
    return ((literal, field) for literal, field, _, _ in Formatter().parse(text))


def _without_conversions(korean: str) -> str:
    # What was taken from an English sentence is quoted already.
    return korean.replace("!r}", "}")
