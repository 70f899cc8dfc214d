"""Translate English texts to Korean: errors by their fields, sentences by their pattern."""

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
    "retries",
    "parked",
    "queued",
    "processes",
    "positions",
)
"""Fields that contain sentences; all others are names and values."""
_LONGEST = 500
"""Longer texts are not looked up: comparing them with every pattern would take too long."""
_TOO_GENERAL = ("{detail}", "{path}: {reason}")


_Form = tuple[re.Pattern[str], str]


class Sentences:
    """Translate the sentences of the library, and additional ones, by English patterns and error classes."""

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
        """Return a sentence in Korean, or unchanged if it is unknown or very long."""
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
        """Return the patterns of all English sentences by first word; the first that matches is used.

        The second value holds the patterns that can begin with any word, used if the first word belongs to no
        other. Patterns that begin with fixed words come first, since they may contain another sentence; then
        those with the most fixed text.
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
    """Return the first word of every sentence of a pattern; None if it is open."""
    literal, _ = next(_parts(english))
    word, space, _ = literal.partition(" ")
    return word if word and space else None


def _pattern(english: str) -> str:
    seen: set[str] = set()
    pattern = ""
    for literal, field in _parts(english):
        pattern += re.escape(literal)
        if field:
            value = r"\S+" if field == "count" else ".+?"  # a number: "nothing was done" is not one
            pattern += f"(?P={field})" if field in seen else f"(?P<{field}>{value})"
            seen.add(field)
    return pattern


def _parts(text: str) -> Iterator[tuple[str, str | None]]:
    return ((literal, field) for literal, field, _, _ in Formatter().parse(text))


def _without_conversions(korean: str) -> str:
    # Text taken from an English sentence is already quoted.
    return korean.replace("!r}", "}")
