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


_Form = tuple[re.Pattern[str], str]


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
        by_word, open_ones = self._forms
        for form, korean in by_word.get(sentence.partition(" ")[0], open_ones):
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
    def _forms(self) -> tuple[dict[str, tuple[_Form, ...]], tuple[_Form, ...]]:
        """Return how every English sentence is recognised, by its first word; the first that matches is taken.

        Beside them what may begin with any word: all that is compared with where the first one is no other's.

        What begins with words of its own comes first, for it may hold another sentence; then what leaves
        least open.
        """
        of_errors = {cls.template: _without_conversions(korean) for cls, korean in self._errors.items()}
        known = {**self._others, **REASONS, **FINDINGS, **of_errors}
        forms = [(english, korean) for english, korean in known.items() if english not in _TOO_GENERAL]
        forms.sort(key=lambda form: (form[0][0] == "{", -sum(len(literal) for literal, _ in _parts(form[0]))))
        made = [
            (_first_word(english), (re.compile(_pattern(english), re.DOTALL), korean))
            for english, korean in forms
        ]
        words = {word for word, _ in made if word is not None}
        by_word = {word: tuple(form for own, form in made if own in (word, None)) for word in words}
        return by_word, tuple(form for own, form in made if own is None)


def _first_word(english: str) -> str | None:
    """Return what every sentence of a form begins with, up to its first space; None where that is open."""
    literal, _ = next(_parts(english))
    word, space, _ = literal.partition(" ")
    return word if word and space else None


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
